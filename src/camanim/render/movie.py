"""Frames into files: a movie (mp4, H.264) or one picture (PNG), complete or not there at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import imageio_ffmpeg
from PIL import Image

from camanim._version import __version__
from camanim.declarations import Range, checked
from camanim.errors import RenderError
from camanim.progress import Progress, silent
from camanim.render.frames import Frame, FrameRenderer, FrameSize, Opacity
from camanim.result import Result
from camanim.slicing import take_plane
from camanim.stack import Normalization
from camanim.writing import cannot_write, checked_path, complete_or_absent

Quality = Literal["standard", "high"]

#: What x264 is told. Measured: at 448 pixels, a lossless movie with colour at half resolution comes to
#: 39.7 dB, "high" to 39.2 dB at 1.5 times the size of "standard" and three times its encoding time.
#: "standard" is superfast with the one thing from veryfast that pays here, a weighing of blocks by how
#: long they last; the short lookahead holds few frames, which counts where these are large.
_X264: dict[str, list[str]] = {
    "standard": ["-preset", "superfast", "-crf", "23", "-x264-params", "mbtree=1:rc-lookahead=10"],
    "high": ["-preset", "medium", "-crf", "16", "-x264-params", "rc-lookahead=15"],
}


@checked(RenderError)
def write_movie(
    result: Result,
    path: str | Path,
    *,
    normalization: Normalization = "local",
    signed: bool = False,
    fps: Annotated[float, Range(0.01, 1000)] = 5,
    size: FrameSize = 448,
    colormap: str | None = None,
    opacity: Opacity = 0.5,
    quality: Quality = "standard",
    z: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Write the movie: one frame per layer, with its name, class, colour bar and score curve.

    The movie is written beside `path` and takes its place when complete. Whatever is raised before,
    also by `progress`, leaves no new file and an older one as it was.

    Parameters
    ----------
    result : Result
    path : path-like
        Must end in ``.mp4``.
    normalization : {"local", "global"}
        Scale of the maps: each layer on a scale of its own, or all layers on one.
    signed : bool
        Show negative evidence too, in diverging colours.
    fps : float
        Frames a second of the movie.
    size : int
        Longer side of the image within the frame, in pixels.
    colormap : str, optional
        Name of a colour map that ``cmap`` knows; by default turbo, or a diverging one with ``signed``.
    opacity : float
        Opacity of the map over the image, in [0, 1].
    quality : {"standard", "high"}
        Quality of the H.264 compression.
    z : int or None
        Plane of a volume that is shown; by default the middle of what the maps cover.
    progress : Progress
        Called after every frame.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        For a path or setting that cannot be used, or when writing fails.
    """
    target = checked_path(path, ".mp4")
    plane = take_plane(result, z)
    renderer = FrameRenderer(
        plane,
        normalization=normalization,
        signed=signed,
        size=size,
        colormap=colormap,
        opacity=opacity,
    )
    with complete_or_absent(target) as partial:
        options = _X264[quality] + _metadata(plane)
        with _encoder(partial, renderer.size, fps, options) as encode:
            for i in range(len(renderer)):
                try:
                    encode(renderer.frame(i))
                except OSError as error:
                    raise _failure(target) from error
                progress("movie", i + 1, len(renderer))
        if not _is_whole(partial):
            raise _failure(target)
    return target


@checked(RenderError)
def write_picture(
    result: Result,
    path: str | Path,
    layer: int | None = None,
    *,
    normalization: Normalization = "local",
    signed: bool = False,
    size: FrameSize = 448,
    colormap: str | None = None,
    opacity: Opacity = 0.5,
    z: int | None = None,
) -> Path:
    """Write one frame of the movie as a picture.

    Parameters
    ----------
    result : Result
    path : path-like
        Must end in ``.png``. Written beside it first and renamed when complete.
    layer : int, optional
        Which of `layers`; by default the one to show first, as ROAD's best.
    normalization, signed, size, colormap, opacity, z
        As for `write_movie`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        For a path or setting that cannot be used, or when writing fails.
    IndexError
        When there is no such layer.
    """
    target = checked_path(path, ".png")
    renderer = FrameRenderer(
        take_plane(result, z),
        normalization=normalization,
        signed=signed,
        size=size,
        colormap=colormap,
        opacity=opacity,
    )
    frame = renderer.frame(result.best_index if layer is None else layer)
    with complete_or_absent(target) as partial:
        try:
            Image.fromarray(frame).save(partial)
        except OSError as error:
            raise cannot_write(target, error) from error
    return target


def _metadata(result: Result) -> list[str]:
    """Say in the file what it shows."""
    model = str(result.provenance.get("model", ""))
    class_name = f"{result.target.name} ({result.probability:.2f})"
    tags = {
        "title": ", ".join(part for part in (class_name, result.method, model) if part),
        "comment": f"Class activation maps of {len(result)} layers in order of execution; "
        f"napari-camanim {__version__}",
    }
    return [word for k, v in tags.items() for word in ("-metadata", f"{k}={_argument(v)}")]


def _argument(text: str) -> str:
    """Make of a name, which may hold anything, what a program takes as an argument."""
    return text[:1000].replace("\0", "").encode("utf-8", "replace").decode()


@contextmanager
def _encoder(
    path: Path, size: tuple[int, int], fps: float, options: list[str]
) -> Iterator[Callable[[Frame], None]]:
    """Run ffmpeg as long as the context lasts; what it gives takes one frame."""
    # Players take small movies without these tags for BT.601, and large ones for BT.709.
    color = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    filters = ["-vf", f"scale=out_color_matrix=bt709:out_range=tv,{color}"]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        size,
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        quality=None,
        macro_block_size=1,
        ffmpeg_log_level="error",
        output_params=[*options, *filters, "-movflags", "+faststart"],
    )
    try:
        try:
            next(writer)
        # imageio-ffmpeg raises RuntimeError where it finds no ffmpeg.
        except (OSError, RuntimeError) as error:
            raise RenderError(
                "ffmpeg does not start: install imageio-ffmpeg, or correct IMAGEIO_FFMPEG_EXE."
            ) from error
        yield writer.send
    finally:
        writer.close()


def _is_whole(path: Path) -> bool:
    """Tell whether ffmpeg came to its end: its exit status is not to be had, the file's boxes are.

    An mp4 is a row of boxes, each with its length in front. ffmpeg writes the length of the frames' box
    and the table of contents last.
    """
    position, kinds, size = 0, set(), path.stat().st_size
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4]), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:16])
            if length < 8:
                return False
            kinds.add(kind)
            position += length
    return position == size and {b"moov", b"mdat"} <= kinds


def _failure(target: Path) -> RenderError:
    free = shutil.disk_usage(target.parent).free / 1e6
    return RenderError(
        f"Writing {target} failed with {free:.0f} MB free there: make room or choose another place; "
        "ffmpeg's own words are on the terminal."
    )
