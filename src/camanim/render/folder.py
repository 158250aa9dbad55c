"""A folder of frames (PNG) with a table, and the movie of such a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from camanim.declarations import Range, checked
from camanim.errors import RenderError
from camanim.progress import Progress, silent
from camanim.render.formats import Quality, Tags, check_rate, cleaned, format_of
from camanim.render.pen import BACKGROUND, Box
from camanim.render.writer import FrameWriter, movie_writer, sampled, writing_to
from camanim.table import write_rows
from camanim.writing import cannot_write, checked_path, complete_or_absent_folder
from camanim.writing import checked_folder as existing_or_new_folder

Frame = npt.NDArray[np.uint8]

TABLE, ABOUT = "frames.csv", "movie.json"
_KIND = "camanim movie"
_FRAME = re.compile(r"\d{4,}(_.*)?\.png", re.IGNORECASE)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


@dataclass
class FolderSink:
    """Writes frames as PNG files.

    Attributes
    ----------
    folder : Path
    names : list of str
        Names of the files, in order.
    quality : Quality
    tags : Tags
    describe : callable
        Returns the text of the next file, such as the name of its layer.
    """

    folder: Path
    target: Path
    names: list[str]
    quality: Quality
    tags: Tags

    def write(
        self, frame: Image.Image | Frame, count: int = 1, changed: Sequence[Box] | None = None
    ) -> None:
        """Write a frame as `count` files."""
        texts = PngImagePlugin.PngInfo()
        for key, text in cleaned(self.tags).items():
            texts.add_itxt(key, text)
        content = BytesIO()
        level = 1 if self.quality == "standard" else 9
        picture = Image.fromarray(frame) if isinstance(frame, np.ndarray) else frame
        picture.save(content, "PNG", compress_level=level, pnginfo=texts)
        try:
            for _ in range(count):
                (self.folder / self.names.pop(0)).write_bytes(content.getbuffer())
        except OSError as error:
            raise cannot_write(self.target, error) from error


def checked_folder(path: str | Path) -> Path:
    """Return the absolute path of a folder of frames, checked before they are drawn.

    Raises
    ------
    RenderError
        If it cannot be written, or exists and holds anything else than a movie that `write_movie` wrote.
    """
    target = existing_or_new_folder(path)
    if target.is_dir():
        _check_content(target)
    return target


def _check_content(folder: Path) -> None:
    """Raise `RenderError` if a folder holds anything else than a movie that `write_movie` wrote."""
    files = list(folder.iterdir())
    strange = [p.name for p in files if not _is_ours(p)]
    # Numbered pictures alone may be those of another program.
    if not strange and files and not holds_frames(folder):
        strange = [p.name for p in files]
    if strange:
        raise RenderError(
            f"{folder} holds other files ({', '.join(sorted(strange)[:3])}): choose another folder."
        )


def _is_ours(path: Path) -> bool:
    return path.name in (TABLE, ABOUT) or (
        _FRAME.fullmatch(path.name) is not None and path.is_file()
    )


def frame_names(labels: Sequence[str]) -> list[str]:
    """Return the names of files of frames, such as ``0001_features.0.0.png``."""
    width = max(4, len(str(len(labels))))
    return [
        f"{i:0{width}}_{_UNSAFE.sub('-', label).strip('-.')[:_LONGEST] or 'network'}.png"
        for i, label in enumerate(labels, start=1)
    ]


@contextmanager
def folder_writer(
    target: Path,
    fps: float,
    rows: Sequence[dict[str, Any]],
    quality: Quality = "standard",
    tags: Tags | None = None,
) -> Iterator[FrameWriter]:
    """Yield a `FrameWriter` that fills a folder, which is complete after the context, or as it was.

    Parameters
    ----------
    target : Path
        See `checked_folder`.
    fps : float
    rows : sequence of dict
        One for each frame, with its layer; the column "file" is added.
    quality : Quality
    tags : Tags, optional
    """
    names = frame_names([str(row["layer"]) for row in rows])
    tags = tags or {}
    with complete_or_absent_folder(target, _check_content) as part:
        try:
            write_rows(
                [{"file": n, **row} for n, row in zip(names, rows, strict=True)], part / TABLE
            )
            about = {"kind": _KIND, "fps": fps, "tags": cleaned(tags)}
            text = json.dumps(about, indent=1, ensure_ascii=False)
            (part / ABOUT).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise cannot_write(target, error) from error
        with writing_to(FolderSink(part, target, list(names), quality, tags)) as writer:
            yield writer


@checked(RenderError)
def movie_from_folder(
    folder: str | Path,
    path: str | Path,
    *,
    fps: Annotated[float, Range(0.01, 1000)] | None = None,
    quality: Quality = "standard",
    progress: Progress = silent,
) -> Path:
    """Write a movie of all PNG files of a folder, in the order of their names.

    Files may have been removed, added or edited since `write_movie` wrote them. All must have the same
    size; one pixel is repeated at the right or below where a side is odd.

    Parameters
    ----------
    folder, path : path-like
        The movie ends in ``.mp4``, ``.webm``, ``.gif`` or ``.apng``.
    fps : float, optional
        Frames per second; by default as in the folder's ``movie.json``, and 5 without it.
    quality : {"standard", "high"}
        Quality of the compression.
    progress : Progress
        Called after every frame.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If there is no frame, one cannot be read or has another size, or writing fails.
    """
    source = Path(folder)
    format_of(path)
    target = checked_path(path, Path(path).suffix.lower())
    if not source.is_dir():
        raise RenderError(f"{source} is not a folder of frames: give the folder of write_movie.")
    files = sorted(p for p in source.iterdir() if p.suffix.lower() == ".png" and p.is_file())
    if not files:
        raise RenderError(f"{source} holds no PNG file: give the folder of write_movie.")
    about = _about(source)
    rate = float(about.get("fps", 5.0)) if fps is None else fps
    check_rate(path, rate)
    first = _read(files[0])
    size = first.size

    def even(frame: Image.Image, file: Path) -> Image.Image:
        if frame.size != size:
            raise RenderError(
                f"{file} has {frame.width} x {frame.height} pixels, {files[0].name} has "
                f"{size[0]} x {size[1]}: give all frames the same size."
            )
        if size[0] % 2 == size[1] % 2 == 0:
            return frame
        pad = ((0, size[1] % 2), (0, size[0] % 2), (0, 0))
        return Image.fromarray(np.pad(np.asarray(frame), pad, "edge"))

    load: Callable[[Path], Image.Image] = lambda file: even(_read(file), file)  # noqa: E731
    samples = []
    if target.suffix.lower() == ".gif":
        samples = [load(files[i]) for i in sampled(len(files))]
    even_size = even(first, files[0]).size
    with movie_writer(target, even_size, rate, quality, about["tags"], samples) as writer:
        for i, file in enumerate(files):
            writer.write(load(file))
            progress("movie", i + 1, len(files))
    return target


def holds_frames(path: str | Path) -> bool:
    """Return whether a path is a folder that `write_movie` has written."""
    try:
        about = json.loads((Path(path) / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("kind") == _KIND


def _about(folder: Path) -> dict[str, Any]:
    """Return the contents of ``movie.json``; that of another program, or none, says nothing."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"tags": {}}
    except (OSError, ValueError) as error:
        raise RenderError(f"{folder / ABOUT} cannot be read: remove it, or pass fps=.") from error
    if not isinstance(about, dict) or about.get("kind") != _KIND:
        return {"tags": {}}
    tags = about.get("tags")
    tags = {str(k): str(v) for k, v in tags.items()} if isinstance(tags, dict) else {}
    fps = about.get("fps")
    valid = isinstance(fps, int | float) and not isinstance(fps, bool) and 0.01 <= fps <= 1000
    return {"tags": tags, **({"fps": fps} if valid else {})}


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            if "transparency" not in picture.info and picture.mode in ("RGB", "L", "1", "P"):
                return picture.convert("RGB")
            layer = picture.convert("RGBA")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise RenderError(f"{file} cannot be read as a PNG file: remove or repair it.") from error
    canvas = Image.new("RGB", layer.size, BACKGROUND)
    canvas.paste(layer, mask=layer)
    return canvas
