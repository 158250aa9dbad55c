"""Declarative descriptions of plots, independent of a plotting library.

Findings return them; `camanim.render.figures` draws them for files, the dock and movies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: Role of a colour; the theme of the renderer assigns the colour.
Color = Literal["first", "second", "third", "fourth", "reference", "best"]
Style = Literal["solid", "dashed", "dotted", "dashdot"]


@dataclass(frozen=True)
class Band:
    """A shaded range around a line.

    Attributes
    ----------
    name : str
        Label in the legend; not listed if empty.
    low, high : (N,) arrays
        NaN makes a gap.
    """

    name: str
    low: Floats
    high: Floats

    @classmethod
    def around(cls, name: str, center: Floats, half_width: Floats) -> Band | None:
        """Return the band ``center ± half_width``; None if all half-widths are NaN."""
        if np.isnan(half_width).all():
            return None
        return cls(name, center - half_width, center + half_width)


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes
    ----------
    name : str
        Label in the legend; not listed if empty.
    y : (N,) array
        NaN makes a gap.
    color : Color
    style : Style
    band : Band or None
    faint : bool
        Whether the line is thinner and its band paler.
    marker : {"", "o", "s", "|"}
        Marker at each value; with "|" no line is drawn.
    x : (N,) array, optional
        Positions of the values, in ascending order; by default those of the panel.
    """

    name: str
    y: Floats
    color: Color = "first"
    style: Style = "solid"
    band: Band | None = None
    faint: bool = False
    marker: Literal["", "o", "s", "|"] = ""
    x: Floats | None = None


@dataclass(frozen=True)
class Mark:
    """One highlighted value.

    Attributes
    ----------
    name : str
        Short label, for the legend of a small plot.
    at : int
        Index into the panel's `x`.
    y : float
    words : str
        Long label, for large plots.
    filled : bool
        Whether this is the most important mark.
    """

    name: str
    at: int
    y: float
    words: str = ""
    filled: bool = True


@dataclass(frozen=True)
class Level:
    """A horizontal line."""

    name: str
    y: float


@dataclass(frozen=True)
class Span:
    """A part of the x axis, such as a stage of a network.

    Attributes
    ----------
    name, label : str
        Long and short name; the longer one that fits is drawn.
    low, high : float
        Ends on the x axis.
    """

    name: str
    label: str
    low: float
    high: float


@dataclass(frozen=True)
class Twin:
    """Lines over the same x axis with another y axis.

    Attributes
    ----------
    lines : tuple of Line
    y_label : str
    log : bool
        Whether the axis is logarithmic.
    """

    lines: tuple[Line, ...]
    y_label: str = ""
    log: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves over one x axis.

    Attributes
    ----------
    x : (N,) array
        In ascending order.
    lines : tuple of Line
        The last line is drawn on top.
    marks : tuple of Mark
    levels : tuple of Level
    x_label, y_label : str
    x_limits, y_limits : (low, high) or None
        None for the range of the values.
    by_layer : bool
        Whether `x` numbers the shown layers from 1, so that a cursor can mark a layer.
    words : tuple of str
        Lines of text above the panel, after those of the marks.
    instead : str
        Message shown in place of a panel without values.
    tip : str
        Tooltip that explains the panel in one sentence.
    spans : tuple of Span
        Parts of the x axis; every second one is shaded.
    twins : tuple of Twin
        Lines with other y axes. The axis of the first is on the right; those of others are not drawn,
        and the legend states the ranges of their values.
    """

    x: Floats
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    levels: tuple[Level, ...] = ()
    x_label: str = ""
    y_label: str = ""
    x_limits: tuple[float, float] | None = None
    y_limits: tuple[float, float] | None = None
    by_layer: bool = False
    words: tuple[str, ...] = ()
    instead: str = ""
    tip: str = ""
    spans: tuple[Span, ...] = ()
    twins: tuple[Twin, ...] = ()

    @classmethod
    def over_layers(cls, count: int, **parts: Any) -> Panel:
        """Return a panel over the shown layers, numbered from 1 in order of execution."""
        x = np.arange(1, count + 1, dtype=np.float64)
        label = "layer, in order of execution"
        return cls(x, x_label=label, x_limits=(0.5, count + 0.5), by_layer=True, **parts)


@dataclass(frozen=True)
class HeatMap:
    """Values over two axes.

    Attributes
    ----------
    values : (rows, columns) array
        The first row is on top; NaN is grey.
    x_label, y_label, label : str
        Labels of the columns, the rows and the colour bar.
    limits : (low, high)
        Range of the colours.
    """

    values: Floats
    x_label: str
    y_label: str
    label: str
    limits: tuple[float, float] = (-1.0, 1.0)


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes
    ----------
    panels : tuple of (Panel or HeatMap)
        From top to bottom.
    title : str
        Second line of the title, below the target and the method.
    """

    panels: tuple[Panel | HeatMap, ...]
    title: str = ""


@dataclass(frozen=True)
class PlotOffer:
    """An additional plot of a finding, described on demand.

    Attributes
    ----------
    draw : callable
        From the index of a shown layer, or None for all layers, to a `Plot`.
    of_layer : bool
        Whether the plot is about a single layer.
    title : str
        Title of a tab, such as "Removal".
    tip : str
        Tooltip of the tab, in one sentence.
    """

    draw: Callable[[int | None], Plot]
    of_layer: bool
    title: str
    tip: str
