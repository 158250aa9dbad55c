"""Writing of frames as a movie, as a folder of frames, or as a picture (PNG)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from camanim.declarations import Range, checked
from camanim.errors import RenderError
from camanim.layer_info import LayerInfo
from camanim.progress import Progress, silent
from camanim.render.folder import checked_folder, folder_writer
from camanim.render.formats import (
    Quality,
    Tags,
    check_rate,
    cleaned,
    format_of,
    is_folder,
    is_movie,
    tags_of,
)
from camanim.render.frames import Frame, FrameRenderer, FrameSize, Layout, Opacity, Resolution
from camanim.render.pen import Box
from camanim.render.timing import Timing, timings
from camanim.render.writer import FrameWriter, movie_writer, sampled
from camanim.result import Result
from camanim.slicing import plane_in_words, take_plane
from camanim.stack import Normalization
from camanim.table import cell_value
from camanim.writing import checked_path, write_file

Fps = Annotated[float, Range(0.01, 1000)]
Seconds = Annotated[float, Range(0, 3600)]
StageSeconds = Annotated[float, Range(0.001, 3600)]


class Renderer(Protocol):
    """What draws frames."""

    size: tuple[int, int]

    def __len__(self) -> int: ...

    def canvas(self, i: int) -> Image.Image:
        """Return frame `i`."""

    def changed(self, i: int) -> list[Box] | None:
        """Return the parts, with even edges, in which frame `i` differs from a common background.

        None for everything.
        """


@checked(RenderError)
def write_movie(
    result: Result,
    path: str | Path,
    *,
    normalization: Normalization = "local",
    signed: bool = False,
    fps: Fps = 5,
    size: FrameSize = 448,
    resolution: Resolution | None = None,
    layout: Layout = "overlay",
    stage_seconds: StageSeconds | None = None,
    fade: Seconds = 0.0,
    colormap: str | None = None,
    opacity: Opacity = 0.5,
    quality: Quality = "standard",
    title: str | None = None,
    z: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Write a movie: one frame per layer, with its name, class, colour bar and score curve.

    The movie is written to a temporary file, which replaces `path` when complete. If an error occurs,
    also in `progress`, an existing file is unchanged and no new file remains. Title, network, method,
    class and version are in the metadata of the file.

    Parameters
    ----------
    result : Result
    path : path-like
        Ends in ``.mp4`` (H.264), ``.webm`` (VP9), ``.gif`` or ``.apng``. Without a suffix, or ending in
        a slash, it is a folder of PNG files with a table, ``frames.csv``; see `movie_from_folder`.
    normalization : {"local", "global"}
        Scale of the maps: a separate scale for each layer, or a common scale for all layers.
    signed : bool
        Show negative evidence too, in diverging colours.
    fps : float
        Frames per second; at most 50 for ``.gif``.
    size : int
        Longer side of the image within the frame, in pixels.
    resolution : {480, 720, 1080, 1440, 2160}, optional
        Height of frames of 16:9 in pixels, in which the image is as large as fits, whatever `size` is.
    layout : {"overlay", "image | map", "local | global"}
        The map over the image; the image and the map side by side; or both scales side by side, whatever
        `normalization` is.
    stage_seconds : float, optional
        Seconds of each stage of the network, shared by its layers; by default each layer has one frame.
    fade : float
        Seconds of cross-fade from one layer to the next, in further frames; with `stage_seconds` within
        the time of the layer.
    colormap : str, optional
        Name of a colour map of ``cmap``; by default turbo, or a diverging one with ``signed``.
    opacity : float
        Opacity of the map over the image, in [0, 1]; without effect on "image | map".
    quality : {"standard", "high"}
        Quality of the compression; of ``.apng`` and folders, which lose nothing, its effort.
    title : str, optional
        Title in the metadata; by default class with its value, method and network.
    z : int or None
        Plane of a volume; by default the middle of the range that the maps cover.
    progress : Progress
        Called after every layer.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If the path or a setting is invalid, or writing fails.
    """
    target = checked_movie(path, fps)
    plane, words = take_plane(result, z), plane_in_words(result, z)
    renderer = FrameRenderer(
        plane,
        normalization=normalization,
        signed=signed,
        size=size,
        resolution=resolution,
        layout=layout,
        colormap=colormap,
        opacity=opacity,
        plane=words,
    )
    times = timings(plane.layers, fps, stage_seconds, fade)
    tags = tags_of(plane, len(renderer), title, words)
    rows = [_row(plane, i) for i in range(len(renderer))]
    write_frames(
        renderer, target, times, rows, fps=fps, quality=quality, tags=tags, progress=progress
    )
    return target


def checked_movie(path: str | Path, fps: float = 1.0) -> Path:
    """Return the absolute path of a movie or a folder of frames, checked before it is drawn.

    Raises
    ------
    RenderError
        If the suffix is unknown, the format cannot show so many frames per second, or the file or folder
        cannot be written there.
    """
    if is_folder(path):
        target = checked_folder(path)
        if is_movie(target):
            raise RenderError(f"{target.name} is the name of a movie: name the folder otherwise.")
        return target
    format_of(path)
    check_rate(path, fps)
    return checked_path(path, Path(path).suffix.lower())


def write_frames(
    renderer: Renderer,
    target: Path,
    times: Sequence[Timing],
    rows: Sequence[dict[str, Any]],
    *,
    fps: float,
    quality: Quality,
    tags: Tags,
    progress: Progress,
) -> None:
    """Draw all frames and write them to a movie or a folder.

    Parameters
    ----------
    renderer : Renderer
    target : Path
        See `checked_movie`.
    times : sequence of Timing
        One for each frame of the renderer.
    rows : sequence of dict
        A row of the table of a folder for each frame of the renderer.
    fps, quality, tags, progress
        See `write_movie`.
    """
    count = len(renderer)
    with _writer(renderer, target, times, rows, fps, quality, tags) as writer:
        canvas, changed = renderer.canvas(0), renderer.changed(0)
        for i, time in enumerate(times):
            writer.write(canvas, time.still, changed)
            if i + 1 < count:
                following, also = renderer.canvas(i + 1), renderer.changed(i + 1)
                for k in range(1, time.faded + 1):
                    blended = Image.blend(canvas, following, k / (time.faded + 1))
                    both = None if changed is None or also is None else [*changed, *also]
                    writer.write(blended, 1, both)
                canvas, changed = following, also
            progress("movie", i + 1, count)


@contextmanager
def _writer(
    renderer: Renderer,
    target: Path,
    times: Sequence[Timing],
    rows: Sequence[dict[str, Any]],
    fps: float,
    quality: Quality,
    tags: Tags,
) -> Iterator[FrameWriter]:
    if not is_movie(target):
        with folder_writer(target, fps, _rows_of_frames(times, rows), quality, tags) as writer:
            yield writer
        return
    samples: list[Image.Image] = []
    if target.suffix.lower() == ".gif":
        samples = [renderer.canvas(i) for i in sampled(len(renderer))]
    with movie_writer(target, renderer.size, fps, quality, tags, samples) as writer:
        yield writer


def write_sequence(
    frames: Iterable[Frame],
    target: Path,
    rows: Sequence[dict[str, Any]],
    *,
    fps: float,
    quality: Quality = "standard",
    tags: Tags | None = None,
    progress: Progress = silent,
) -> Path:
    """Write pictures, such as screenshots, as a movie or a folder.

    Parameters
    ----------
    frames : iterable of (H, W, 3) uint8 arrays
        One for each of `rows`. The first decides the size, rounded up to even numbers; others are
        reduced or enlarged to it, with their aspect ratio and black bars.
    target : Path
        See `checked_movie`.
    rows : sequence of dict
        A row of the table of a folder for each frame, with its "layer".
    fps, quality, tags, progress
        As for `write_movie`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If there is no frame, or writing fails.
    """
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise RenderError("There is no picture to write: record one layer at least.")
    size = (first.shape[1] + first.shape[1] % 2, first.shape[0] + first.shape[0] % 2)
    if not is_movie(target):
        opened = folder_writer(target, fps, rows, quality, tags)
    else:
        # The palette of a GIF is that of each frame, as the others are not known yet.
        opened = movie_writer(target, size, fps, quality, tags)
    with opened as writer:
        for i, frame in enumerate(chain([first], iterator)):
            writer.write(_fitted(frame, size))
            progress("movie", i + 1, len(rows))
    return target


def _fitted(frame: Frame, size: tuple[int, int]) -> Image.Image | Frame:
    """Return a picture in the size of a movie."""
    height, width = frame.shape[:2]
    if (width, height) == size:
        return frame
    if (width + width % 2, height + height % 2) == size:
        return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
    return ImageOps.pad(Image.fromarray(frame), size, Image.Resampling.LANCZOS)


def _rows_of_frames(
    times: Sequence[Timing], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a row for each frame of a movie; that of a blended one says how far it is."""
    if not any(time.faded for time in times):
        return [row for time, row in zip(times, rows, strict=True) for _ in range(time.still)]
    return [
        {**row, "fade": max(0, k + 1 - time.still) / (time.faded + 1)}
        for time, row in zip(times, rows, strict=True)
        for k in range(len(time))
    ]


def _row(result: Result, i: int) -> dict[str, Any]:
    """Return the row of a layer in the table of a folder: the layer, and the columns of the findings."""
    return {**layer_row(result.layers[i], i), **scores_of(result, i)}


def layer_row(layer: LayerInfo, i: int) -> dict[str, Any]:
    """Return the columns of a layer in the table of a folder."""
    shape = None if layer.shape is None else "x".join(map(str, layer.shape))
    return {"number": i + 1, "layer": layer.label, "kind": layer.kind, "output shape": shape}


def scores_of(result: Result, i: int) -> dict[str, Any]:
    """Return the values of all findings for a layer."""
    return {
        name: cell_value(values[i])
        for finding in result.findings.values()
        for name, values in finding.columns().items()
    }


@checked(RenderError)
def write_picture(
    result: Result,
    path: str | Path,
    layer: int | None = None,
    *,
    normalization: Normalization = "local",
    signed: bool = False,
    size: FrameSize = 448,
    resolution: Resolution | None = None,
    layout: Layout = "overlay",
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
    normalization, signed, size, resolution, layout, colormap, opacity, z
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
    plane, words = take_plane(result, z), plane_in_words(result, z)
    renderer = FrameRenderer(
        plane,
        normalization=normalization,
        signed=signed,
        size=size,
        resolution=resolution,
        layout=layout,
        colormap=colormap,
        opacity=opacity,
        plane=words,
    )
    canvas = renderer.canvas(result.initial_index if layer is None else layer)
    tags = tags_of(plane, len(renderer), plane=words)
    texts = PngImagePlugin.PngInfo()
    for key, text in cleaned(tags).items():
        texts.add_itxt(key, text)
    content = BytesIO()
    canvas.save(content, "PNG", pnginfo=texts)
    write_file(target, content.getvalue())
    return target
