"""Formats of movies, and the metadata of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from camanim._version import __version__
from camanim.errors import RenderError
from camanim.words import value_in_words

if TYPE_CHECKING:
    from camanim.result import Result

Quality = Literal["standard", "high"]
#: Tags of a file by name: Title, Comment and Software as in PNG, and Model, Method, Class.
Tags = Mapping[str, str]

# Without these tags, players assume BT.601 for small movies and BT.709 for large ones.
_BT709 = (
    "-vf",
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv",
)
#: Settings of libx264. Measured at 448 pixels: a lossless movie with chroma at half resolution has
#: 39.7 dB, "high" has 39.2 dB at 1.5 times the size and three times the encoding time of "standard".
#: "standard" is the preset superfast with mbtree, which reduces the size most; a short lookahead saves
#: memory. Nothing moves in these movies: without a search for motion, and with one B-frame at most, a
#: sixth of the time is saved at the same quality and 2 % more size.
_FAST = "mbtree=1:rc-lookahead=10:me=dia:subme=0:bframes=1:b-adapt=0"
_X264 = {
    "standard": ("-preset", "superfast", "-crf", "23", "-x264-params", _FAST),
    "high": ("-preset", "medium", "-crf", "16", "-x264-params", "rc-lookahead=15"),
}
#: Settings of libvpx-vp9. A short lookahead saves memory.
_VP9 = {
    "standard": ("-crf", "31", "-deadline", "realtime", "-cpu-used", "8"),
    "high": ("-crf", "22", "-deadline", "good", "-cpu-used", "4", "-lag-in-frames", "10"),
}
#: Compression of PNG: the filter that suits maps, or the best of all filters for each row.
_PNG = {
    "standard": ("-compression_level", "3", "-pred", "up"),
    "high": ("-compression_level", "9", "-pred", "mixed"),
}
#: Dithering hides the steps between the 256 colours, and enlarges the file.
_GIF = {
    "standard": "paletteuse=dither=none:diff_mode=rectangle",
    "high": "paletteuse=dither=sierra2_4a:diff_mode=rectangle",
}


@dataclass(frozen=True)
class MovieFormat:
    """A format of movies that ffmpeg writes.

    Attributes
    ----------
    name : str
    chroma_halved : bool
        Whether frames are passed as YUV with chroma at half resolution (BT.709, limited range) and not
        as RGB.
    options : mapping of Quality to tuple of str
        Options of ffmpeg.
    fastest : float
        Highest number of frames per second.
    """

    name: str
    chroma_halved: bool
    options: Mapping[str, tuple[str, ...]]
    fastest: float = 1000.0
    last: tuple[str, ...] = field(default=())


FORMATS = {
    ".mp4": MovieFormat(
        "H.264",
        True,
        {
            q: ("-c:v", "libx264", "-pix_fmt", "yuv420p", *words, *_BT709)
            for q, words in _X264.items()
        },
        last=("-movflags", "+faststart"),
    ),
    ".webm": MovieFormat(
        "VP9",
        True,
        {
            q: ("-c:v", "libvpx-vp9", "-pix_fmt", "yuv420p", "-b:v", "0", *words, *_BT709)
            for q, words in _VP9.items()
        },
    ),
    # Browsers show a GIF slowly whose frames take less than 0.02 s.
    ".gif": MovieFormat("GIF", False, dict.fromkeys(_GIF, ("-loop", "0")), fastest=50.0),
    ".apng": MovieFormat(
        "APNG", False, {q: ("-f", "apng", "-plays", "0", *words) for q, words in _PNG.items()}
    ),
}  # fmt: skip


def is_folder(path: str | Path) -> bool:
    """Return whether a path is that of a folder of frames: without a suffix, or ending in a slash."""
    return str(path).endswith(("/", "\\")) or not Path(path).suffix


def is_movie(target: Path) -> bool:
    """Return whether a path that was checked is that of a movie, and not of a folder of frames."""
    return target.suffix.lower() in FORMATS


def format_of(path: str | Path) -> MovieFormat:
    """Return the format of a movie by its suffix.

    Raises
    ------
    RenderError
        If the suffix is unknown.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise RenderError(
            f"{Path(path).name} must end in {', '.join(FORMATS)}, or be a folder without a suffix."
        )
    return FORMATS[suffix]


def check_rate(path: str | Path, fps: float) -> None:
    """Raise `RenderError` if a format cannot show this number of frames per second."""
    if not is_folder(path) and fps > format_of(path).fastest:
        raise RenderError(
            f"fps must be at most {format_of(path).fastest:g} for {Path(path).suffix}: players show "
            "faster ones slowly."
        )


def palette_filter(quality: Quality, *, known: bool) -> tuple[str, ...]:
    """Return options of ffmpeg for a GIF.

    Parameters
    ----------
    quality : Quality
    known : bool
        Whether the second input is a palette for all frames; otherwise each frame gets its own.
    """
    if known:
        return ("-lavfi", _GIF[quality])
    return (
        "-lavfi",
        f"split[a][b];[a]palettegen=stats_mode=single[p];[b][p]{_GIF[quality]}:new=1",
    )


def tags_of(
    result: Result, count: int, title: str | None = None, plane: str = ""
) -> dict[str, str]:
    """Return the tags of a movie of a result with `count` layers, or of a plane of it, in words."""
    model = str(result.provenance.get("model", ""))
    class_name = f"{result.target.name} ({value_in_words(result.probability, result.target.unit)})"
    comment = f"Class activation maps of {count} layers in order of execution"
    if plane:
        comment += f", {plane} of the volume"
    if result.image_note:
        comment += f". {result.image_note}"
    parts = (class_name, result.method, model)
    return {
        "Title": title or ", ".join(part for part in parts if part),
        "Model": model,
        "Method": result.method,
        "Class": class_name,
        **common_tags(comment),
    }


def common_tags(comment: str) -> dict[str, str]:
    """Return the tags that do not depend on a result."""
    return {"Comment": comment, "Software": f"napari-camanim {__version__}"}


def cleaned(tags: Tags) -> dict[str, str]:
    """Return tags without empty values, line breaks, and characters that are invalid in arguments."""
    texts = {
        key: " ".join(value[:1000].replace("\0", "").split()).encode("utf-8", "replace").decode()
        for key, value in tags.items()
    }
    return {key: text for key, text in texts.items() if text}


def as_text(tags: Tags) -> str:
    """Return all tags but the title as lines of text, for formats with a single comment."""
    return "\n".join(f"{key}: {text}" for key, text in tags.items() if key != "Title")


def metadata_options(suffix: str, tags: Tags) -> list[str]:
    """Return the options of ffmpeg that write tags; none for formats whose tags are added later."""
    tags = cleaned(tags)
    if suffix == ".mp4":
        # The names that players show. Others would need another kind of table, which few read.
        tags = {"title": tags.get("Title", ""), "comment": as_text(tags)}
    elif suffix != ".webm":
        tags = {}
    return [word for k, v in tags.items() if v for word in ("-metadata", f"{k}={v}")]
