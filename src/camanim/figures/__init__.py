"""Figures of results for print: PDF, SVG or PNG, with a caption; see `figure_kinds`."""

from camanim.figures.making import draw_figure, make_figure, write_figure
from camanim.figures.maps import (
    classes,
    counterfactual,
    guided,
    local_global,
    matrix,
    sheet,
    stages,
    strip,
)
from camanim.figures.plots import curve, panel, parameters, removal
from camanim.figures.printed import PrintedFigure
from camanim.figures.registry import FigureKind, figure_kinds, find_figure
from camanim.figures.style import DOUBLE, SINGLE, MapStyle, PlotStyle
from camanim.figures.units import one_d

__all__ = [
    "DOUBLE",
    "SINGLE",
    "FigureKind",
    "MapStyle",
    "PlotStyle",
    "PrintedFigure",
    "classes",
    "counterfactual",
    "curve",
    "draw_figure",
    "figure_kinds",
    "find_figure",
    "guided",
    "local_global",
    "make_figure",
    "matrix",
    "one_d",
    "panel",
    "parameters",
    "removal",
    "sheet",
    "stages",
    "strip",
    "write_figure",
]
