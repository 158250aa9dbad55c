"""Plots for papers and reports: scores over layers, what removal does, what randomisation leaves.

Drawn with matplotlib's figures and no pyplot, so that nothing of a user's own session changes and any
thread may draw. Colours are Okabe and Ito's, which the colour-blind can tell apart; lines differ in
their strokes, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from camanim.errors import RenderError, ScoreError
from camanim.render.pen import plain
from camanim.writing import cannot_write, checked_path, complete_or_absent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from camanim.animation import Animation
    from camanim.road import Road

Plot = Literal["scores", "removal", "randomisation"]
Floats = npt.NDArray[np.float64]

SUFFIXES = (".png", ".pdf", ".svg")
#: Inches, and dots per inch: 1200 pixels wide, and legible at half of that.
WIDTH, DPI = 6.0, 200
BLUE, ORANGE, GREEN, RED, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
GREY, LIGHT = "#555555", "#BBBBBB"
#: As `Localisation` calls them, with a name, a colour and a stroke for each.
LOCALISATION = {
    "average_precision": ("average precision", BLUE, "-"),
    "energy": ("energy inside", ORANGE, "--"),
    "iou": ("IoU", GREEN, "-."),
}
LONGEST = 60
#: Of a legend, whose entries are short.
COLUMNS = 3


def write_plot(
    animation: Animation, path: str | Path, what: Plot = "scores", layer: int | None = None
) -> Path:
    """Write a plot; see `Animation.write_plot`."""
    target = checked_plot(path)
    figure = plot(animation, what, layer)
    with complete_or_absent(target) as partial:
        try:
            figure.savefig(partial, dpi=DPI)
        except OSError as error:
            raise cannot_write(target, error) from error
    return target


def checked_plot(path: str | Path) -> Path:
    """Check a plot's path before any work is done for it; see `camanim.writing.checked_path`."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise RenderError(f"{Path(path).name} must end in {', '.join(SUFFIXES[:-1])} or .svg.")
    return checked_path(path, suffix)


def plot(animation: Animation, what: Plot = "scores", layer: int | None = None) -> Figure:
    """Draw a plot as a figure of matplotlib, for those who wish to go on from there.

    Parameters and errors are those of `Animation.write_plot`.

    Returns
    -------
    matplotlib.figure.Figure
        Without a canvas of any window; ``savefig`` works.
    """
    if what not in get_args(Plot):
        kinds = ", ".join(f'"{kind}"' for kind in get_args(Plot))
        raise RenderError(f"There is no plot {what!r}: there are {kinds}.")
    draw = {"scores": _scores, "removal": _removal, "randomisation": _randomisation}[what]
    return draw(animation, layer)


# -- Scores over the layers ------------------------------------------------------------------------


def _scores(animation: Animation, layer: int | None) -> Figure:
    road, localisation = animation.road, animation.localisation
    if road is None and localisation is None:
        raise ScoreError("There are no scores to plot: call score() or localise() first.")
    parts = [part for part in (road, localisation) if part is not None]
    figure, axes = _figure(2.2 + 1.6 * len(parts), len(parts))
    _title(figure, animation)
    if road is not None:
        _road_curves(axes[0], road)
    if localisation is not None:
        _localisation_curves(axes[-1], localisation)
    if layer is not None:
        place = _checked_layer(animation, layer) + 1
        for each in axes:
            each.axvline(place, color=GREY, linewidth=0.8, linestyle=":")
    axes[-1].set_xlabel("layer, in order of execution")
    axes[-1].set_xlim(0.5, len(animation) + 0.5)
    _whole_numbers(axes[-1].xaxis)
    return figure


def _road_curves(axes: Axes, road: Road) -> None:
    x = np.arange(1, len(road.layers) + 1)
    if np.isfinite(road.baseline).any():
        axes.plot(x, road.baseline, color=GREY, linewidth=1, linestyle="--", label="chance")
        # What lies above this band is what `best` chooses from.
        _band(axes, road.baseline, road.margin, LIGHT, 0.5, "95 % of chance")
    if np.isfinite(road.spread).any():
        repeats = f"± SD of {len(road.repeated)} repeats"
        _band(axes, road.scores, road.spread, BLUE, 0.25, repeats)
    axes.plot(x, road.scores, color=BLUE, linewidth=1.6, label="ROAD")
    single = np.isfinite(road.scores) & ~_has_neighbour(road.scores)
    axes.plot(x[single], road.scores[single], ".", color=BLUE)
    words = _mark_best(axes, road)
    axes.set_ylabel("ROAD")
    _legend(axes, words)


def _band(axes: Axes, middle: Floats, width: Floats, color: str, alpha: float, label: str) -> None:
    """Draw a band around values, and a bar around one that stands alone."""
    x = np.arange(1, len(middle) + 1)
    low, high = middle - width, middle + width
    axes.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0, label=label)
    single = np.isfinite(low) & ~_has_neighbour(low)
    axes.vlines(x[single], low[single], high[single], color=color, alpha=alpha, linewidth=4)


def _mark_best(axes: Axes, road: Road) -> list[str]:
    """Mark the layer that is furthest above chance, and the one of the highest score if another."""
    if road.best_plain is None:
        return ["no layer has a score"]
    marks = [(road.best_plain, "D", PURPLE, 6, "◆ highest score")]
    if road.best is not None:
        best = (road.best, "*", RED, 13, "★ best")
        marks = [best] if road.best is road.best_plain else [best, *marks]
    words = [] if road.best is not None else ["no layer is above chance"]
    for layer, marker, color, size, name in marks:
        i = road.layers.index(layer)
        words.append(f"{name}: {_short(layer.label)} ({road.scores[i]:.2f})")
        _mark(axes, i, road.scores[i], marker, color, size, words[-1])
    return words


def _mark(
    axes: Axes, i: int, value: float, marker: str, color: str, size: float, label: str
) -> None:
    axes.plot(
        [i + 1], [value], marker, color=color, markersize=size, markeredgecolor="white", zorder=5,
        label=label,
    )  # fmt: skip


def _localisation_curves(axes: Axes, localisation: Any) -> None:
    x = np.arange(1, len(localisation.layers) + 1)
    for key, (name, color, stroke) in LOCALISATION.items():
        values = np.asarray(getattr(localisation, key))
        axes.plot(x, values, color=color, linestyle=stroke, linewidth=1.4, label=name)
        single = np.isfinite(values) & ~_has_neighbour(values)
        axes.plot(x[single], values[single], ".", color=color)
    # Yes or no: a mark where the highest value lies in the mask.
    hits = np.nan_to_num(localisation.pointing) >= 0.5
    axes.plot(x[hits], np.full(hits.sum(), 1.04), "|", color=RED, label="peak inside")
    share = localisation.share
    axes.axhline(share, color=GREY, linewidth=1, linestyle=":", label=f"chance ({share:.2f})")
    words = []
    if localisation.best is not None:
        i = localisation.layers.index(localisation.best)
        value = localisation.average_precision[i]
        words = [f"★ best: {_short(localisation.best.label)} ({value:.2f})"]
        _mark(axes, i, value, "*", BLUE, 13, words[0])
    axes.set_ylim(-0.03, 1.1)
    axes.set_ylabel("agreement with the mask")
    _legend(axes, words)


# -- What removal does -----------------------------------------------------------------------------


def _removal(animation: Animation, layer: int | None) -> Figure:
    road = animation.road
    if road is None:
        raise ScoreError("There are no ROAD scores to plot: call score() first.")
    i = animation.best_index if layer is None else _checked_layer(animation, layer)
    name = animation.layers[i].label
    if road.undefined[i] is not None:
        raise ScoreError(f"{name} has no ROAD score ({road.undefined[i]}): choose another layer.")
    figure, [axes] = _figure(3.8, 1)
    _title(figure, animation, f"{_short(name)}: ROAD {road.scores[i]:.2f}")
    order = np.argsort(road.percentiles)[::-1]
    removed = np.append(0, 100 - np.asarray(road.percentiles)[order])
    curves = (
        (road.lerfs, BLUE, "-", "o", "least relevant first (LeRF)"),
        (road.morfs, RED, "--", "s", "most relevant first (MoRF)"),
    )
    for values, color, stroke, marker, label in curves:
        repeats = np.insert(values[:, i, order], 0, road.probability, axis=1)
        axes.plot(removed, repeats.mean(axis=0), stroke, color=color, marker=marker, label=label)
        if len(repeats) > 1:
            low, high = repeats.min(axis=0), repeats.max(axis=0)
            axes.fill_between(removed, low, high, color=color, alpha=0.25, linewidth=0)
    axes.set_xlim(-1.5, 100)
    axes.set_xlabel("removed pixels (%)")
    unit = animation.target.unit
    axes.set_ylabel(f"{unit} after removal")
    if unit == "probability":
        axes.set_ylim(-0.02, 1.02)
    _legend(axes, ["bands: range of the repeats"] if len(road.morfs) > 1 else [])
    return figure


# -- What randomisation leaves ---------------------------------------------------------------------


def _randomisation(animation: Animation, layer: int | None) -> Figure:
    found = animation.randomisation
    if found is None:
        raise ScoreError("There is no check to plot: call check_randomisation() first.")
    figure, (above, below) = _figure(6.0, 2, share=False)
    _title(figure, animation, found.verdict)
    steps = np.arange(len(found.steps) + 1)
    spearman, ssim = (np.asarray(values, np.float64) for values in (found.spearman, found.ssim))
    if layer is None:
        of = "median of the layers, and quartiles"
        curves = [_quantiles(values) for values in (spearman, ssim)]
    else:
        i = _checked_layer(animation, layer)
        of = _short(animation.layers[i].label)
        curves = [np.tile(values[:, i], (3, 1)) for values in (spearman, ssim)]
    styles = ((BLUE, "-", "o", "Spearman"), (ORANGE, "--", "s", "SSIM"))
    for (low, middle, high), (color, stroke, marker, name) in zip(curves, styles, strict=True):
        # Before the first step every map is itself.
        low, middle, high = (np.append(1.0, values) for values in (low, middle, high))
        above.plot(steps, middle, stroke, color=color, marker=marker, markersize=3, label=name)
        above.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    above.axhline(found.threshold, color=GREY, linewidth=1, linestyle=":", label="passes below")
    above.set_xlim(0, len(found.steps))
    above.set_ylim(-0.55, 1.05)
    above.set_xlabel("randomisation steps, from the output backwards")
    above.set_ylabel("likeness to the map\nof the trained network")
    _whole_numbers(above.xaxis)
    _legend(above, [of])
    _matrix(figure, below, spearman)
    return figure


def _matrix(figure: Figure, axes: Axes, spearman: Floats) -> None:
    """Draw (steps, layers), the first step on top; grey where a map has no rank correlation."""
    from matplotlib import colormaps

    colors = colormaps["PuOr_r"].with_extremes(bad="#999999")
    steps, layers = spearman.shape
    extent = (0.5, layers + 0.5, steps + 0.5, 0.5)
    drawn = axes.imshow(
        np.ma.masked_invalid(spearman), cmap=colors, vmin=-1, vmax=1, aspect="auto",
        interpolation="nearest", extent=extent,
    )  # fmt: skip
    axes.set_xlabel("layer, in order of execution")
    axes.set_ylabel("steps")
    axes.grid(visible=False)
    _whole_numbers(axes.xaxis)
    _whole_numbers(axes.yaxis)
    figure.colorbar(drawn, ax=axes, label="Spearman", fraction=0.05, pad=0.02)


def _quantiles(values: Floats) -> Floats:
    """Quartiles over the layers of each step, (3, S); NaN where no layer has a value."""
    found = np.full((3, len(values)), np.nan)
    for k, row in enumerate(values):
        known = row[np.isfinite(row)]
        if known.size:
            found[:, k] = np.percentile(known, (25, 50, 75))
    return found


# -- What all of them share ------------------------------------------------------------------------


def _figure(height: float, rows: int, *, share: bool = True) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, height), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, squeeze=False, sharex=share)[:, 0].tolist()
    for each in axes:
        each.tick_params(labelsize=9)
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#E5E5E5", linewidth=0.6)
        each.set_axisbelow(True)
    return figure, axes


def _title(figure: Figure, animation: Animation, second: str = "") -> None:
    parts = (animation.target.name, animation.method, str(animation.provenance.get("model", "")))
    words = ", ".join(_short(part) for part in parts if part)
    lines = [words, *_wrapped(second), *_warnings(animation, second)]
    # Names may hold dollars, which are no formulas here.
    figure.suptitle("\n".join(lines), fontsize=10, parse_math=False)


def _warnings(animation: Animation, said: str) -> list[str]:
    """What a method that failed a check must carry beside its results."""
    checks = (animation.randomisation, animation.labels)
    failed = [check for check in checks if check is not None and check.passed is False]
    return [line for check in failed if check.verdict != said for line in _wrapped(check.verdict)]


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(plain(text), 80)


def _short(text: str) -> str:
    """Leave out the middle of a long name, and what the font cannot draw."""
    text = plain(text)
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2 - 1]}…{text[-LONGEST // 2 :]}"


def _legend(axes: Axes, words: list[str]) -> None:
    """Put the legend above the axes, where it hides nothing, and above it lines of words.

    A legend as wide as names of layers would squeeze the axes; a title does not.
    """
    handles = [
        handle for handle in axes.get_legend_handles_labels()[0] if handle.get_label() not in words
    ]
    legend = axes.legend(
        handles=handles, fontsize=8, ncols=COLUMNS, loc="lower left", bbox_to_anchor=(0, 1),
        frameon=False, borderaxespad=0.2, alignment="left", handlelength=2.2, columnspacing=1.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    rows = -(-len(handles) // COLUMNS)
    axes.set_title("\n".join(words), loc="left", fontsize=8, pad=8 + 12.5 * rows, parse_math=False)


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))


def _has_neighbour(values: Floats) -> npt.NDArray[np.bool_]:
    """(L,) whether a line leads to the value; one that stands alone needs a dot."""
    finite = np.pad(np.isfinite(values), 1)
    beside: npt.NDArray[np.bool_] = finite[:-2] | finite[2:]
    return beside


def _checked_layer(animation: Animation, layer: int) -> int:
    if not 0 <= layer < len(animation):
        raise IndexError(f"The layers are 0 to {len(animation) - 1}, there is no {layer}.")
    return layer
