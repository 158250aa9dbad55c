"""A figure with its caption, and the files it is written to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from camanim._version import __version__
from camanim.declarations import Range, checked
from camanim.errors import RenderError
from camanim.render.figures import file_content
from camanim.render.plots import checked_plot
from camanim.writing import cannot_write, checked_path, complete_or_absent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Dpi = Annotated[int, Range(50, 2400)]
#: Resolution of pictures within a figure, in dots per inch.
PICTURE_DPI = 300
#: Fonts are embedded in a PDF as TrueType, which all publishers accept; text of an SVG remains text, so
#: that it can be searched and edited. The salt makes the identifiers in an SVG reproducible.
_WRITING = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "camanim"}
#: Bytes at the end of a caption that name the program.
_TAIL = 60


@dataclass(frozen=True)
class PrintedFigure:
    """A figure for print, with its caption.

    Attributes
    ----------
    name : str
        Name of the figure, such as ``"strip"``.
    title : str
        Title for lists and metadata.
    figure : matplotlib.figure.Figure
        Not managed by pyplot; its parts can be changed before it is saved.
    caption : str
        One paragraph: what is shown, by which network and method, for which class.
    """

    name: str
    title: str
    figure: Figure
    caption: str

    @checked(RenderError)
    def save(self, path: str | Path, *, dpi: Dpi = 300) -> Path:
        """Write the figure, and its caption as a text file of the same name beside it.

        The caption is in the metadata of the file as well. Fonts are embedded in a PDF as TrueType (Type
        42). Text of an SVG remains text, in the font DejaVu Sans unless matplotlib is configured
        otherwise: an SVG embeds no font, so use PDF where the text must look the same everywhere.

        Parameters
        ----------
        path : path-like
            Must end in ``.pdf``, ``.svg`` or ``.png``.
        dpi : int
            Resolution of a PNG, and of the pictures in the other formats, in dots per inch.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        RenderError
            If the suffix differs, `dpi` is out of range, a text file of the name of a new figure is no
            caption, or a file cannot be written. Each file is complete then, or as it was before.
        """
        target = checked_plot(path)
        text = checked_path(target.with_suffix(".txt"), ".txt")
        _check_caption(text, target, self.caption)
        content = self.rendered(target.suffix[1:].lower(), dpi)
        try:
            # Neither replaces an older file before both are complete.
            with complete_or_absent(target) as picture, complete_or_absent(text) as caption:
                picture.write_bytes(content)
                caption.write_bytes(f"{self.caption}\n".encode())
        except OSError as error:
            raise cannot_write(target, error) from error
        return target

    def rendered(self, kind: str, dpi: int) -> bytes:
        """Return the content of a file.

        Parameters
        ----------
        kind : {"pdf", "svg", "png"}
        dpi : int
        """
        return file_content(
            self.figure, kind, configuration=_WRITING, dpi=dpi, metadata=self._metadata(kind)
        )

    def _metadata(self, kind: str) -> Mapping[str, Any]:
        program = f"napari-camanim {__version__}"
        # Without the date, the same figure is the same file.
        if kind == "pdf":
            about = {"Title": self.title, "Subject": self.caption}
            return {**about, "Creator": program, "CreationDate": None}
        # SVG and XML have no control characters.
        caption = "".join(c if c.isprintable() else " " for c in self.caption)
        if kind == "svg":
            return {"Title": self.title, "Description": caption, "Creator": program, "Date": None}
        return {"Title": self.title, "Description": caption, "Software": program}

    def _repr_png_(self) -> bytes:
        """Return the picture that notebooks show."""
        return self.rendered("png", 150)


def _check_caption(text: Path, target: Path, caption: str) -> None:
    """Raise `RenderError` if another text would be replaced by the caption of a new figure."""
    if target.exists() or not text.exists():
        return
    own = f"{caption}\n".encode()
    try:
        with text.open("rb") as file:
            file.seek(max(0, text.stat().st_size - max(len(own), _TAIL)))
            end = file.read()
    except OSError as error:
        raise cannot_write(text, error) from error
    if end == own or b"Made with napari-camanim" in end[-_TAIL:]:
        return
    raise RenderError(
        f"{text} exists, and is no caption of a figure: choose another name for the figure."
    )
