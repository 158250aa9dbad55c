"""Writing of frames as a movie (mp4, H.264) or as a picture (PNG)."""

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

#: Options of x264. Measured at 448 pixels: a lossless movie with chroma at half resolution has 39.7 dB,
#: "high" has 39.2 dB at 1.5 times the size and three times the encoding time of "standard". "standard"
#: is the preset superfast with mbtree, which reduces the size most; a short lookahead saves memory.
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
    """Write a movie: one frame per layer, with its name, class, colour bar and score curve.

    The movie is written to a temporary file, which replaces `path` when complete. If an error occurs,
    also in `progress`, an existing file is unchanged and no new file remains.

    Parameters
    ----------
    result : Result
    path : path-like
        Must end in ``.mp4``.
    normalization : {"local", "global"}
        Scale of the maps: a separate scale for each layer, or a common scale for all layers.
    signed : bool
        Show negative evidence too, in diverging colours.
    fps : float
        Frames per second.
    size : int
        Longer side of the image within the frame, in pixels.
    colormap : str, optional
        Name of a colour map of ``cmap``; by default turbo, or a diverging one with ``signed``.
    opacity : float
        Opacity of the map over the image, in [0, 1].
    quality : {"standard", "high"}
        Quality of the H.264 compression.
    z : int or None
        Plane of a volume; by default the middle of the range that the maps cover.
    progress : Progress
        Called after every frame.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If the path or a setting is invalid, or writing fails.
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
                    raise _write_error(target) from error
                progress("movie", i + 1, len(renderer))
        if not _is_complete(partial):
            raise _write_error(target)
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
        Must end in ``.png``.
    layer : int, optional
        Index into `layers`; by default the layer to show first, such as that of the highest ROAD score.
    normalization, signed, size, colormap, opacity, z
        As for `write_movie`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If the path or a setting is invalid, or writing fails.
    IndexError
        If `layer` is out of range.
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
    frame = renderer.frame(result.initial_index if layer is None else layer)
    with complete_or_absent(target) as partial:
        try:
            Image.fromarray(frame).save(partial)
        except OSError as error:
            raise cannot_write(target, error) from error
    return target


def _metadata(result: Result) -> list[str]:
    """Return options of ffmpeg that store title and comment in the file."""
    model = str(result.provenance.get("model", ""))
    class_name = f"{result.target.name} ({result.probability:.2f})"
    tags = {
        "title": ", ".join(part for part in (class_name, result.method, model) if part),
        "comment": f"Class activation maps of {len(result)} layers in order of execution; "
        f"napari-camanim {__version__}",
    }
    return [word for k, v in tags.items() for word in ("-metadata", f"{k}={_argument(v)}")]


def _argument(text: str) -> str:
    """Return a text without characters that are invalid in arguments of a program."""
    return text[:1000].replace("\0", "").encode("utf-8", "replace").decode()


@contextmanager
def _encoder(
    path: Path, size: tuple[int, int], fps: float, options: list[str]
) -> Iterator[Callable[[Frame], None]]:
    """Run ffmpeg within a context; yield a function that encodes one frame."""
    # Without these tags, players assume BT.601 for small movies and BT.709 for large ones.
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
        # imageio-ffmpeg raises RuntimeError if ffmpeg is missing.
        except (OSError, RuntimeError) as error:
            raise RenderError(
                "ffmpeg does not start: install imageio-ffmpeg, or correct IMAGEIO_FFMPEG_EXE."
            ) from error
        yield writer.send
    finally:
        writer.close()


def _is_complete(path: Path) -> bool:
    """Return whether an mp4 file is complete, as imageio-ffmpeg does not report ffmpeg's exit status.

    An mp4 file is a sequence of boxes, each preceded by its length. ffmpeg writes the length of the box
    with the frames (mdat) and the index (moov) last.
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


def _write_error(target: Path) -> RenderError:
    free = shutil.disk_usage(target.parent).free / 1e6
    return RenderError(
        f"Writing {target} failed; the disk has {free:.0f} MB free: free disk space or choose another "
        "path. The message of ffmpeg is in the terminal."
    )
