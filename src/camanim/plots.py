"""Plots as plain descriptions: what is plotted, without a library that draws it.

A finding describes its plots with these; `camanim.render.figures` draws them for files, the dock and
movies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: What a colour stands for; a theme of the renderer says which it is.
Color = Literal["first", "second", "third", "fourth", "reference", "best"]
Style = Literal["solid", "dashed", "dotted", "dashdot"]


@dataclass(frozen=True)
class Band:
    """A shaded range around a line.

    Attributes
    ----------
    name : str
        In the legend; not listed if empty.
    low, high : (N,) arrays
        NaN where there is none.
    """

    name: str
    low: Floats
    high: Floats

    @classmethod
    def around(cls, name: str, middle: Floats, reach: Floats) -> Band | None:
        """Return the band ``middle ± reach``; None where no reach is known."""
        return None if np.isnan(reach).all() else cls(name, middle - reach, middle + reach)


@dataclass(frozen=True)
class Line:
    """One curve; NaN makes a gap.

    Attributes
    ----------
    name : str
        In the legend; not listed if empty.
    y : (N,) array
    color : Color
    style : Style
    band : Band or None
    faint : bool
        Whether it is in the background.
    marker : {"", "o", "s", "|"}
        At each value; "|" draws no line.
    """

    name: str
    y: Floats
    color: Color = "first"
    style: Style = "solid"
    band: Band | None = None
    faint: bool = False
    marker: Literal["", "o", "s", "|"] = ""


@dataclass(frozen=True)
class Mark:
    """One value that stands out.

    Attributes
    ----------
    name : str
        A word or two, for the legend of a small plot.
    at : int
        Index into the panel's `x`.
    y : float
    words : str
        What is written about it where there is room.
    filled : bool
        Whether it is the most important one.
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
class Panel:
    """Curves over one x axis.

    Attributes
    ----------
    x : (N,) array
        In ascending order.
    lines : tuple of Line
        The last one is drawn on top.
    marks : tuple of Mark
    levels : tuple of Level
    x_label, y_label : str
    x_limits, y_limits : (low, high) or None
        None for what the values need.
    by_layer : bool
        Whether `x` numbers the shown layers from 1: a cursor can stand on one.
    words : tuple of str
        Lines above the panel, beside those of the marks.
    instead : str
        One sentence, where there is nothing to plot.
    tip : str
        One sentence: how the panel is read.
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
        Of the columns, the rows and the colour bar.
    limits : (low, high)
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
        The second line of the title, below what was explained.
    """

    panels: tuple[Panel | HeatMap, ...]
    title: str = ""


@dataclass(frozen=True)
class PlotOffer:
    """A plot that a finding can make.

    Attributes
    ----------
    draw : callable
        From the index of a shown layer, or None for all, to a `Plot`.
    of_layer : bool
        Whether it is of a single layer.
    title : str
        Of a tab, such as "Removal".
    tip : str
        One sentence: what it shows.
    """

    draw: Callable[[int | None], Plot]
    of_layer: bool
    title: str
    tip: str
