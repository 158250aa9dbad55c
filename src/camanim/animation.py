"""`Animation`: the result of a run, and the doors that lead outward from it.

Each door is a call of the room that does the work, imported when the door is opened; that keeps this
module at the bottom of the house, where every other may import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from camanim.errors import ScoreError
from camanim.progress import Progress, silent
from camanim.result import Result

if TYPE_CHECKING:
    from camanim.road import Imputer, Road
    from camanim.stack import Stack

Normalization = Literal["local", "global"]


class Animation(Result):
    """The maps of all shown layers of one network for one image and one target; see `Result`.

    What can be made of them are its methods: `stack`, `plane`, `score`, `table`, `write_movie`, ...
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
        from camanim.planes import plane_of

        return plane_of(self, z)

    def score(
        self,
        seed: int = 0,
        *,
        percentiles: Sequence[float] = (20, 40, 60, 80),
        noise: float = 0.01,
        batch_size: int = 16,
        imputer: Imputer | None = None,
        progress: Progress = silent,
    ) -> Road:
        """Score how well each layer's map explains the target with ROAD; the result stays in `road`.

        Parameters
        ----------
        seed : int
            Of the tie-break among equal pixels and of the noise on imputed pixels.
        percentiles : sequence of float
            Shares of the pixels, in percent, that are *kept*.
        noise : float
            Standard deviation of the noise on imputed pixels, in units of the network's input.
        batch_size : int
            Perturbed images per forward pass.
        imputer : Imputer, optional
            Fills removed pixels; by default noisy linear imputation by a direct solver.
        progress : Progress
            Called after every batch. When it raises `Cancelled`, the layers scored so far are kept
            and the others are NaN.

        Returns
        -------
        Road

        Raises
        ------
        ScoreError
            Where there is nothing to score, or a parameter is out of range.
        """
        from camanim.road import score

        if not self.maps:
            raise ScoreError("There is no map to score: no selected layer has one.")
        if self.extremes is not None:
            raise ScoreError("ROAD scores a volume as a whole: score that, not one of its planes.")
        self.road = score(
            self.model,
            self.tensor,
            self.maps,
            self.layers,
            self.target,
            seed=seed,
            percentiles=percentiles,
            noise=noise,
            batch_size=batch_size,
            imputer=imputer,
            progress=progress,
        )
        return self.road

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
            milliseconds, ROAD. What does not exist is None; the status says why.
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
