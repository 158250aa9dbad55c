"""Plots of findings as SVG within a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from xml.etree import ElementTree

from markupsafe import Markup

from camanim.curves import with_stages
from camanim.plots import Panel
from camanim.render.figures import MOVIE, PRINT, draw, file_content, new_figure
from camanim.result import Result

#: Width of the figure and height of its parts, in inches.
_WIDTH, _HEAD, _PANEL = 7.6, 0.35, 1.75
_THEME = replace(PRINT, background="none", size=8.0, width=1.4)


@dataclass(frozen=True)
class Chart:
    """Curves over the layers, one panel for each finding.

    Attributes
    ----------
    svg : Markup
    width, height : float
        Of the drawing, in its units.
    first, step : float
        Position of the first layer along x, and the distance between layers.
    top, bottom : float
        Ends of the cursor.
    """

    svg: Markup
    width: float
    height: float
    first: float
    step: float
    top: float
    bottom: float


def chart(result: Result, prefix: str) -> Chart | None:
    """Return the curves of all findings over the layers; None without any.

    Parameters
    ----------
    result : Result
    prefix : str
        Start of the identifiers in the drawing, which are unique in a page.
    """
    panels = [finding.panel() for finding in result.findings.values()]
    shown = [p for p in panels if p is not None and p.by_layer and len(p.x) and not p.instead]
    if not shown:
        return None
    height = _HEAD + sum(_PANEL + 0.16 * _lines_above(panel) for panel in shown)
    figure, axes = new_figure(_WIDTH, height, len(shown), _THEME, share_x=True)
    for each, panel in zip(axes, shown, strict=True):
        draw(figure, each, with_stages(panel, result.layers), _THEME)
        if each is not axes[-1]:
            each.set_xlabel("")
    # No date, and no names of programs.
    content = file_content(figure, "svg", metadata={"Date": None, "Creator": None})
    # SVG has 72 units per inch.
    width, height = 72 * _WIDTH, 72 * height
    boxes = [each.get_position() for each in axes]
    (low, high), box = axes[0].get_xlim(), boxes[0]
    step = box.width * width / (high - low)
    return Chart(
        Markup(_inline(content, prefix)),
        width,
        height,
        first=box.x0 * width + (1 - low) * step,
        step=step,
        top=(1 - max(b.y1 for b in boxes)) * height,
        bottom=(1 - min(b.y0 for b in boxes)) * height,
    )


def dark_rules() -> Iterator[str]:
    """Yield rules of CSS that replace the colours of plots on a dark background."""
    pairs = {
        _THEME.text: "#e6e9ef",
        _THEME.quiet: MOVIE.text,
        _THEME.grid: MOVIE.grid,
        _THEME.mark: MOVIE.mark,
        **{_THEME.colors[name]: color for name, color in MOVIE.colors.items()},
    }
    for light, dark in pairs.items():
        for attribute in ("stroke", "fill"):
            yield f'.chart [{attribute}="{light.lower()}"] {{ {attribute}: {dark}; }}'


def _lines_above(panel: Panel) -> int:
    """Return the number of lines of text and legend above a panel."""
    names = [line.name for line in panel.lines] + [x.name for x in panel.levels]
    names += [line.band.name for line in panel.lines if line.band is not None]
    rows = -(-len([name for name in names if name]) // _THEME.columns)
    return rows + len(panel.marks) + len(panel.words)


def _inline(content: bytes, prefix: str) -> str:
    """Return an SVG for HTML, without styles, which the page's policy excludes.

    Styles become attributes, and identifiers get a prefix.
    """
    root = ElementTree.fromstring(content)
    _remove(root, ("metadata", "style"))
    for element in root.iter():
        element.tag = _local(element.tag)
        _set_attributes(element, prefix)
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    # The page describes the drawing in words.
    root.set("aria-hidden", "true")
    root.set("focusable", "false")
    return ElementTree.tostring(root, "unicode")


def _remove(parent: ElementTree.Element, names: Iterable[str]) -> None:
    for child in list(parent):
        if _local(child.tag) in names:
            parent.remove(child)
        else:
            _remove(child, names)


def _set_attributes(element: ElementTree.Element, prefix: str) -> None:
    attributes = {_local(name): value for name, value in element.attrib.items()}
    for declaration in attributes.pop("style", "").split(";"):
        name, colon, value = declaration.partition(":")
        if colon:
            attributes[name.strip()] = value.strip()
    for name, value in attributes.items():
        if name == "id":
            attributes[name] = f"{prefix}{value}"
        elif name == "href":
            attributes[name] = f"#{prefix}{value.removeprefix('#')}"
        elif value.startswith("url(#"):
            attributes[name] = f"url(#{prefix}{value[5:]}"
    element.attrib.clear()
    element.attrib.update(attributes)


def _local(name: str) -> str:
    return name.rpartition("}")[2]
