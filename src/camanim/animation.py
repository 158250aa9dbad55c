"""`Animation`: the result of a run, and the doors that lead outward from it.

Each door is a call of the room that does the work, imported when the door is opened; that keeps this
module at the bottom of the house, where every other may import it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from camanim.judged import Judged
from camanim.progress import Progress, silent

if TYPE_CHECKING:
    from camanim.stack import Normalization, Stack


class Animation(Judged):
    """The maps of all shown layers of one network for one image and one target; see `Result`.

    What can be made of them are its methods: `stack`, `plane`, `table`, `write_movie`, ...; what can be
    asked of them those of `Judged`: `score`, `measure`, `localise`, `check_randomisation`, ...
    """

    def stack(
        self, normalization: Normalization | None = "local", *, signed: bool = False
    ) -> Stack:
        """Give all maps as one lazy array (L, H, W) or (L, D, H, W) at the network's input size.

        Parameters
        ----------
        normalization : {"local", "global", None}
            ``(c - min) / (max - min)`` over one layer's raw map, or over those of all layers;
            None leaves the raw values.
        signed : bool
            Keep negative evidence: divide by the largest absolute value, so that 0 stays 0 and
            values lie in [-1, 1]. Otherwise negative values are cut off (ReLU) first, and values
            lie in [0, 1].

        Returns
        -------
        Stack
            Has ``shape``, ``dtype``, ``ndim``, ``size``; a slice is made when it is asked for.
        """
        from camanim.stack import Stack

        return Stack(
            self.maps, self.geometry.size, normalization, signed=signed, extremes=self.extremes
        )

    def plane(self, z: int | None = None) -> Animation:
        """Give the animation of one plane of a volume.

        Parameters
        ----------
        z : int or None
            Index along the image's first axis, by default the middle of what the maps cover.

        Returns
        -------
        Animation
            With maps (h, w), brightened as those of the whole volume; itself if it has no depth.

        Raises
        ------
        ImageError
            Where there is no such plane, or no map covers it.
        """
        from camanim.slicing import take_plane

        return take_plane(self, z)

    def write_movie(
        self,
        path: str | Path,
        *,
        normalization: Normalization = "local",
        signed: bool = False,
        fps: float = 5,
        size: int = 448,
        colormap: str | None = None,
        opacity: float = 0.5,
        quality: Literal["standard", "high"] = "standard",
        z: int | None = None,
        progress: Progress = silent,
    ) -> Path:
        """Write the movie: one frame per layer, with its name, class, colour bar and ROAD curve.

        Parameters
        ----------
        path : path-like
            Must end in ``.mp4``. Written beside it first and renamed when complete.
        normalization, signed
            As for `stack`.
        fps : float
            Frames a second.
        size : int
            Longer side of the image within the frame, in pixels.
        colormap : str, optional
            Any name that ``cmap`` knows; by default turbo, or a diverging one with ``signed``.
        opacity : float
            Of the map over the image, in [0, 1].
        quality : {"standard", "high"}
            Of the H.264 compression.
        z : int or None
            Which plane of a volume, see `plane`.
        progress : Progress
            Called after every frame; raising in it leaves no file behind.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        RenderError
            For a path or setting that cannot be used, or when writing fails.
        """
        from camanim.render import write_movie

        return write_movie(
            self.plane(z),
            path,
            normalization=normalization,
            signed=signed,
            fps=fps,
            size=size,
            colormap=colormap,
            opacity=opacity,
            quality=quality,
            progress=progress,
        )

    def write_picture(
        self,
        path: str | Path,
        layer: int | None = None,
        *,
        normalization: Normalization = "local",
        signed: bool = False,
        size: int = 448,
        colormap: str | None = None,
        opacity: float = 0.5,
        z: int | None = None,
    ) -> Path:
        """Write one frame of the movie as a picture.

        Parameters
        ----------
        path : path-like
            Must end in ``.png``. Written beside it first and renamed when complete.
        layer : int, optional
            Which of `layers`; by default the one that ROAD finds best, or the last without scores.
        normalization, signed, size, colormap, opacity, z
            As for `write_movie`.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        RenderError
            For a path or setting that cannot be used, or when writing fails.
        """
        from camanim.render import write_picture

        return write_picture(
            self.plane(z),
            self.best_index if layer is None else layer,
            path,
            normalization=normalization,
            signed=signed,
            size=size,
            colormap=colormap,
            opacity=opacity,
        )

    def table(self) -> list[dict[str, Any]]:
        """List every call of every module, one row each, ready for pandas.

        Returns
        -------
        list of dict
            Keys: index, name, call, kind, output shape, layout, parameters, status, raw min, raw max,
            milliseconds; ROAD with its spread, baseline, excess, whether that is above chance, and why
            it is undefined; then what `localise`, `check_randomisation` and `check_labels` found. What
            does not exist is None; the status says why.
        """
        from camanim.table import rows

        return rows(self)

    def write_table(self, path: str | Path) -> Path:
        """Write `table` as a CSV file.

        Parameters
        ----------
        path : path-like
            Must end in ``.csv``; written beside it first and renamed when complete.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        RenderError
            For another suffix, or when the file cannot be written.
        """
        from camanim.table import write_table

        return write_table(self, path)

    def write_plot(
        self,
        path: str | Path,
        what: Literal["scores", "removal", "randomisation"] = "scores",
        layer: int | None = None,
    ) -> Path:
        """Write a plot of the scores, or of what a check found.

        Parameters
        ----------
        path : path-like
            Must end in ``.png``, ``.pdf`` or ``.svg``. Written beside it first and renamed when
            complete.
        what : {"scores", "removal", "randomisation"}
            "scores": ROAD over the layers with the standard deviation of its repeats, what chance
            scores, and the best layer; below it the agreement with a mask after `localise`.
            "removal": what the target is worth after the removal of more and more pixels, for one
            layer. "randomisation": how much of each map is left, the more of the network is
            randomised.
        layer : int, optional
            Which of `layers`. Of "removal", by default the one that ROAD finds best, or the last where
            there is none; the others show all layers, and mark or single out this one.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        ScoreError
            Where what is to be plotted was not computed, or the layer has no score.
        RenderError
            For another suffix or an unknown plot, or when the file cannot be written.
        IndexError
            When there is no such layer.
        """
        from camanim.render import write_plot

        return write_plot(self, path, what, layer)
