"""Writing of frames as a movie (mp4, H.264) or as a picture (PNG)."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal

from PIL import Image

from camanim._version import __version__
from camanim.declarations import Range, checked
from camanim.errors import RenderError
from camanim.progress import Progress, silent
from camanim.render.encoder import encoder
from camanim.render.frames import FrameRenderer, FrameSize, Opacity
from camanim.result import Result
from camanim.slicing import take_plane
from camanim.stack import Normalization
from camanim.writing import checked_path, complete_or_absent, write_file

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
        with encoder(partial, target, renderer.size, fps, options) as encoding:
            for i in range(len(renderer)):
                encoding.write(renderer.frame(i))
                progress("movie", i + 1, len(renderer))
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
    LayerIndexError
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
    content = BytesIO()
    Image.fromarray(frame).save(content, "PNG")
    write_file(target, content.getvalue())
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
