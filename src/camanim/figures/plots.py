"""Figures of values over the layers: scores, removal curves, parameters and time, picked layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.comparison import marked, overlaid
from camanim.curves import find_curve, layer_curves, relative_depth, with_curve, with_stages
from camanim.errors import RenderError, ScoreError
from camanim.figures.captions import caption, listing
from camanim.figures.maps import as_list
from camanim.figures.page import INCH, SMALL, Page, fitted, width_of, wrapped
from camanim.figures.picking import names_of, pick
from camanim.figures.printed import PrintedFigure
from camanim.figures.registry import find_figure, register_figure
from camanim.figures.scales import bar_of, scale_in_words
from camanim.figures.style import MapStyle, PickedLayers, PlotStyle
from camanim.figures.tiles import MapTiles, TileGrid, lettered
from camanim.findings import Finding
from camanim.plots import Floats, Line, Panel
from camanim.render.figures import PRINT, draw, dress, legend_in_a_row
from camanim.result import Result
from camanim.road import Road

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Tick labels of 7 points, legends of 6: publishers ask for at least 6.
THEME = replace(PRINT, size=7.0, width=1.1, words=False)
#: Height of a panel in millimetres.
PANEL = 52.0
COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vPX*"


def _columns(names: Sequence[str], width: float) -> int:
    """Return the number of columns of a legend that fits a width in millimetres."""
    # Samples of lines and gaps have about 9 mm.
    widest = max((width_of(name, SMALL) for name in names), default=0.0) + 9.0
    return max(1, min(4, len(names), int((width - 4) / widest)))


def _new(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    size = (width / INCH, height / INCH)
    return Figure(size, layout="constrained", facecolor=PRINT.background)


def _entries(panel: Panel) -> list[str]:
    """Return the names in the legend of a panel."""
    bands = [line.band.name for line in panel.lines if line.band is not None]
    twins = [line.name for twin in panel.twins for line in twin.lines]
    names = [line.name for line in panel.lines] + [mark.name for mark in panel.marks]
    return [name for name in (*names, *bands, *twins) if name]


def _finding(result: Result, key: str) -> Finding:
    if key not in result.findings:
        computed = listing(f'"{name}"' for name in result.findings) or "none"
        raise ScoreError(
            f"The result has no finding {key!r} (it has {computed}): compute it first, as with find()."
        )
    return result.findings[key]


@register_figure(
    "Score curve", PlotStyle, takes="several", varies=("network", "method", "class"), finding="road"
)
def curve(
    results: Result | Sequence[Result],
    *,
    finding: str = "road",
    second: str | None = None,
    **style: Any,
) -> PrintedFigure:
    """Draw a finding over the layers, with its null such as random maps, and the network's stages.

    Several results are lines in one plot, without their nulls.

    Parameters
    ----------
    results : Result or sequence of Result
    finding : str
        Key in `Result.findings`, such as ``"road"`` or ``"localisation"``.
    second : str, optional
        A second curve of one result with its axis on the right, such as ``"parameters"``; see
        `camanim.curves.layer_curves`.
    **style
        Fields of `PlotStyle`, such as ``width=174``.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, or the finding was not computed or has no values.
    """
    given, look = as_list(results), PlotStyle(**style)
    more = []
    if len(given) == 1:
        [result] = given
        found = _finding(result, finding)
        panel = found.panel()
        if panel is None or panel.instead or not np.isfinite(found.main_values()).any():
            raise ScoreError(f"{found.title} has no value for any layer.")
        panel = with_stages(panel, result.layers)
        if second is not None:
            panel = with_curve(panel, find_curve(result, second))
            more.append(f"Dashed, right axis: {find_curve(result, second).tip}")
        more = [panel.tip, found.summary(), *more]
        if panel.spans:
            more.append(f"Stages: {listing(span.name for span in panel.spans)}.")
    else:
        if second is not None:
            raise RenderError("A second curve is drawn for one result: leave second out.")
        for result in given:
            _finding(result, finding)
        named = dict(zip(names_of(given), given, strict=True))
        [drawn] = overlaid(named, finding).panels
        assert isinstance(drawn, Panel)
        panel = drawn
        more += [f"{name}: {_finding(r, finding).summary()}" for name, r in named.items()]
        if panel.marks:
            findings = {name: _finding(r, finding) for name, r in named.items()}
            side, extreme = marked(findings)
            which = f"the {side} value" if extreme else "the layer to show first"
            more.append(f"Marks: {which} of each curve, a star the {side} of them.")
        # One entry for all marks would say less than the caption.
        panel = replace(
            panel,
            marks=tuple(replace(mark, name="") for mark in panel.marks),
            lines=tuple(
                replace(line, name=fitted(line.name, look.width - 15)) for line in panel.lines
            ),
        )
    figure = _new(look.width, PANEL if look.width < 120 else PANEL + 8)
    axes = figure.add_subplot()
    # Space for the axis beside it.
    theme = replace(THEME, columns=_columns(_entries(panel), look.width - 14))
    dress(axes, theme)
    draw(figure, axes, panel, theme)
    title = _finding(given[0], finding).title
    opening = f"{title} over the layers, in order of execution."
    if len(given) > 1 and panel.x_label == "relative depth":
        opening = f"{title} over the relative depth, from the first layer (0) to the last (1)."
    return PrintedFigure(
        "curve", find_figure("curve").title, figure, caption(opening, given, *more)
    )


@register_figure("Removal curves", PlotStyle, finding="road")
def removal(result: Result, *, layers: PickedLayers = "", **style: Any) -> PrintedFigure:
    """Draw the probability as pixels are removed, most (MoRF) or least relevant first (LeRF).

    Parameters
    ----------
    result : Result
        With ROAD scores.
    layers : str, int or sequence of them
        A panel each; by default the layer with the highest score, and the last.
    **style
        Fields of `PlotStyle`.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, a layer does not exist, or ROAD scores were not computed.
    """
    from matplotlib.ticker import MaxNLocator

    look = PlotStyle(**style)
    road = _finding(result, "road")
    if not isinstance(road, Road):
        raise ScoreError("The finding 'road' of the result has no removal curves.")
    if layers:
        chosen = pick(result.layers, layers)
    else:
        best = None if road.highest is None else road.layers.index(road.highest)
        chosen = list(dict.fromkeys(i for i in (best, len(result) - 1) if i is not None))
    columns = max(1, min(len(chosen), int(look.width / 40)))
    rows = -(-len(chosen) // columns)
    if rows * 50 > 230:
        raise RenderError(f"{len(chosen)} panels do not fit a page: choose fewer layers.")
    theme = replace(THEME, legend=False)
    figure = _new(look.width, 50.0 * rows + 10)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    legend: tuple[list[Any], list[str]] = ([], [])
    for k, (axes, i) in enumerate(zip(grid, chosen, strict=False)):
        [panel] = road.plots()["removal"].draw(i).panels
        assert isinstance(panel, Panel)
        dress(axes, theme)
        if panel.instead:
            panel = replace(panel, instead="")
            axes.text(
                0.5, 0.5, "no score:\n" + str(road.undefined[i]), ha="center", va="center",
                fontsize=SMALL, transform=axes.transAxes, parse_math=False,
            )  # fmt: skip
            axes.set_axis_off()
        else:
            if k % columns:
                panel = replace(panel, y_label="")
            draw(figure, axes, panel, theme)
            legend = axes.get_legend_handles_labels()
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        score = "" if np.isnan(road.scores[i]) else f"ROAD {road.scores[i]:.2f}"
        lines = wrapped(result.layers[i].label, look.width / columns - 14, SMALL, 3)
        axes.set_title(
            "\n".join([*lines, score]).strip(), fontsize=SMALL, parse_math=False, loc="right"
        )
    for axes in grid[len(chosen) :]:
        axes.set_axis_off()
    figure.legend(
        *legend,
        loc="outside upper center",
        ncols=1 if look.width < 75 else 2,
        fontsize=SMALL,
        frameon=False,
    )
    opening = (
        f"The target's {road.unit} as pixels are removed (ROAD), the most relevant first (MoRF) or the "
        "least relevant first (LeRF)."
    )
    more = [f"Layers: {listing(result.layers[i].label for i in chosen)}."]
    if len(road.morfs) > 1:
        more.append(f"Bands: range of {len(road.morfs)} repeats.")
    more += [f"Seed of the removal: {road.seed}.", road.summary()]
    return PrintedFigure(
        "removal", find_figure("removal").title, figure, caption(opening, [result], *more)
    )


@register_figure("Parameters and time", PlotStyle, takes="several", varies=("network", "method"))
def parameters(
    results: Result | Sequence[Result], *, scatter: bool = False, **style: Any
) -> PrintedFigure:
    """Draw the parameters of each layer, and the time for its map.

    Parameters
    ----------
    results : Result or sequence of Result
    scatter : bool
        Draw time against parameters on two logarithmic axes, a dot for each layer, instead of both over
        the layers.
    **style
        Fields of `PlotStyle`.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, or the result has neither parameters nor times.
    """
    given, look = as_list(results), PlotStyle(**style)
    if len(given) > len(COLORS):
        raise RenderError(
            f"{len(given)} results cannot be told apart in one plot: pass at most {len(COLORS)}."
        )
    names = [fitted(n, look.width - 15) for n in names_of(given)] if len(given) > 1 else [""]
    draw_them = _scatter if scatter else _over_layers
    figure, opening, more = draw_them(given, names, look.width)
    more.append("Parameters of a module include those of its submodules.")
    more.append(
        "Time is that of the map alone, without the network's forward and backward pass, in one run."
    )
    return PrintedFigure(
        "parameters", find_figure("parameters").title, figure, caption(opening, given, *more)
    )


def _values(result: Result) -> tuple[Floats, Floats]:
    """Return parameters and milliseconds of each layer, NaN where there are none."""
    counts = [layer.parameters or np.nan for layer in result.layers]
    times = [layer.milliseconds or np.nan for layer in result.layers]
    return np.asarray(counts, np.float64), np.asarray(times, np.float64)


def _over_layers(
    results: Sequence[Result], names: Sequence[str], width: float
) -> tuple[Figure, str, list[str]]:
    theme = THEME
    values = [_values(result) for result in results]
    parts = [("parameters", 0), ("time (ms)", 1)]
    parts = [part for part in parts if any(np.isfinite(v[part[1]]).any() for v in values)]
    if not parts:
        raise RenderError("No layer of the result has parameters or a time.")
    figure = _new(width, 44.0 * len(parts) + 6)
    one = len(results) == 1
    panels = figure.subplots(len(parts), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (label, part) in zip(panels, parts, strict=True):
        dress(axes, theme)
        last = axes is panels[-1]
        if one:
            panel = Panel.over_layers(len(results[0]), y_label=label)
            panel = with_stages(panel, results[0].layers)
            x = [panel.x]
        else:
            x = [relative_depth(len(result)) for result in results]
            # The limits of a panel are on the axes before anything is drawn.
            panel = Panel(x[0], x_label="relative depth", y_label=label, x_limits=(-0.02, 1.02))
        draw(
            figure,
            axes,
            replace(panel, y_limits=None, x_label=panel.x_label if last else ""),
            theme,
        )
        for k, each in enumerate(values):
            axes.plot(
                x[k], each[part], MARKERS[k], color=COLORS[k], markersize=2.4, label=names[k],
                markeredgewidth=0,
            )  # fmt: skip
        shown = np.concatenate([each[part] for each in values])
        _set_y_axis(axes, shown, above=0.14 if panel.spans else 0.03)
    if not one:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=_columns(names, width), fontsize=SMALL,
            frameon=False, markerscale=1.8,
        )  # fmt: skip
    over = "the layers, in order of execution" if one else "the relative depth of the layers"
    opening = f"{' and '.join(label for label, _ in parts).capitalize()} over {over}."
    return figure, opening, []


def _set_y_axis(axes: Axes, values: Floats, *, above: float) -> None:
    """Set a logarithmic axis for positive values, with space above them for the names of stages."""
    known = values[np.isfinite(values)]
    low, high = float(known.min()), float(known.max())
    axes.set_yscale("log")
    # At least a decade, so that one tick is labelled.
    decades = max(float(np.log10(high / low)), 1.0)
    axes.set_ylim(low * 10 ** (-0.06 * decades), low * 10 ** (decades * (1 + above)))
    axes.yaxis.set_major_formatter(_short_number)
    axes.minorticks_off()


def _short_number(value: float, position: float | None = None) -> str:
    """Format the label of a tick: ``0.1``, ``100``, ``10k``, ``1M``."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")(value) if value >= 1000 else f"{value:g}"


def _scatter(
    results: Sequence[Result], names: Sequence[str], width: float
) -> tuple[Figure, str, list[str]]:
    from scipy.stats import spearmanr

    figure = _new(width, min(0.85 * width, 90.0) + (8 if len(results) > 2 else 4))
    axes = figure.add_subplot()
    dress(axes, THEME)
    axes.grid(axis="x", color=PRINT.grid, linewidth=0.6)
    correlations = []
    for k, (result, name) in enumerate(zip(results, names, strict=True)):
        counts, times = _values(result)
        both = np.isfinite(counts) & np.isfinite(times)
        if not both.any():
            raise RenderError(
                f"No layer of {name or 'the result'} has both parameters and a time: draw them over the "
                "layers, without scatter."
            )
        axes.plot(
            counts[both], times[both], MARKERS[k], color=COLORS[k], markersize=3, alpha=0.75, label=name,
            markeredgewidth=0,
        )  # fmt: skip
        # Undefined for equal values.
        varied = both.sum() > 2 and np.ptp(counts[both]) > 0 and np.ptp(times[both]) > 0
        if varied:
            rho = float(spearmanr(counts[both], times[both]).statistic)
            correlations.append(f"{name + ' ' if name else ''}{rho:.2f} ({both.sum()} layers)")
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_formatter(_short_number)
    axes.yaxis.set_major_formatter(_short_number)
    axes.set_xlabel("parameters", fontsize=8)
    axes.set_ylabel("time (ms)", fontsize=8)
    axes.minorticks_off()
    if len(results) > 1:
        figure.legend(
            loc="outside upper center", ncols=_columns(names, width), fontsize=SMALL, frameon=False,
            markerscale=1.4,
        )  # fmt: skip
    more = []
    if correlations:
        more.append(f"Spearman's rank correlation: {listing(correlations)}.")
    return figure, "Time for the map of each layer against its parameters.", more


@register_figure("Picked layers on the curve", MapStyle, finding="road")
def panel(
    result: Result,
    *,
    layers: PickedLayers = "",
    curve: str = "",
    **style: Any,
) -> PrintedFigure:
    """Draw a curve over the layers with picked layers marked by letters, and their maps below.

    Parameters
    ----------
    result : Result
    layers : str, int or sequence of them
        Layers to show, by name, index or percentile; by default at 0, 25, 50, 75 and 100 % of the depth.
    curve : str
        Title of a finding, such as ``"ROAD"``, or another curve of `camanim.curves.layer_curves`; by
        default the first there is.
    **style
        Fields of `MapStyle`.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, or a layer or the curve does not exist.
    """
    look = MapStyle(**style)
    chosen = pick(result.layers, layers, ("0%", "25%", "50%", "75%", "100%"))
    if len(chosen) > len(ascii_uppercase):
        raise RenderError(f"At most {len(ascii_uppercase)} layers have a letter: pick fewer.")
    known = layer_curves(result)
    if not known:
        raise RenderError("The result has no curve over its layers: compute a finding first.")
    shown = find_curve(result, curve) if curve else next(iter(known.values()))
    described = _panel_of(result, shown.name)
    described = with_stages(described, result.layers)
    tiles = MapTiles(result, look)
    letters = dict(zip(chosen, ascii_uppercase, strict=False))
    cells = [
        lettered(tiles.map(i, result.layers[i].label), letter) for i, letter in letters.items()
    ]
    grid = TileGrid([cells], look.width, bar=bar_of([tiles.drawn], look))
    height, above, left = 36.0 if look.width < 120 else 44.0, 6.5, 15.0
    top = above + height + 11.0
    page = Page(look.width, top + grid.height)
    wide = look.width - left - 3.0
    axes = page.axes(left, above, wide, height)
    theme = replace(THEME, legend=False)
    dress(axes, theme)
    draw(page.figure, axes, described, theme)
    if shown.log:
        _set_y_axis(axes, shown.values, above=0.3)
    else:
        # Space for the letters.
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.12 * (high - low))
    axes.yaxis.labelpad = 1.0
    legend_in_a_row(axes, wide / INCH * 100, theme)
    _mark(axes, shown.values, letters)
    grid.draw(page, top)
    marked = listing(f"{letter}: {result.layers[i].label}" for i, letter in letters.items())
    title = shown.name[:1].upper() + shown.name[1:]
    opening = f"{title} over the layers in order of execution, and the maps of picked layers."
    scale = scale_in_words([tiles.drawn])
    text = caption(opening, [result], f"{marked}.", shown.tip, scale=scale)
    return PrintedFigure("panel", find_figure("panel").title, page.figure, text)


def _panel_of(result: Result, name: str) -> Panel:
    """Return the panel of a finding with its null, or that of another curve."""
    curve = find_curve(result, name)
    for finding in result.findings.values():
        described = finding.panel()
        if described is not None and name in (finding.title, finding.key):
            return described
    line = Line(curve.name, curve.values, marker="" if not curve.log else "o")
    return Panel.over_layers(len(result), lines=(line,), y_label=curve.label)


def _mark(axes: Axes, values: Floats, letters: dict[int, str]) -> None:
    """Mark picked layers by letters above their values, which do not overlap."""
    bottom = axes.get_ylim()[0]
    count, last = len(values), -np.inf
    raised = False
    for i in sorted(letters):
        y = values[i]
        defined = bool(np.isfinite(y))
        # Letters of neighbours are at two heights.
        raised = not raised if i - last < 0.025 * count else False
        last = i
        axes.plot(
            [i + 1], [y if defined else bottom], "o", color="white", markersize=4.5,
            markeredgecolor="black", markeredgewidth=0.9, zorder=6, clip_on=False, label="_picked",
        )  # fmt: skip
        axes.annotate(
            letters[i], (i + 1, y if defined else bottom), (0, 13 if raised else 5),
            textcoords="offset points", ha="center", va="bottom", fontsize=7, fontweight="bold",
            zorder=7,
        )  # fmt: skip
