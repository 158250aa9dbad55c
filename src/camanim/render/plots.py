"""Plots of a result for papers and reports, as files or figures of matplotlib."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from camanim.errors import RenderError, ScoreError
from camanim.findings import FindingKind, finding_kinds
from camanim.plots import Panel, Plot, PlotOffer
from camanim.render.figures import PRINT, draw, new_figure, shortened
from camanim.render.pen import plain
from camanim.result import Result
from camanim.writing import cannot_write, checked_path, complete_or_absent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
#: Inches, and dots per inch: 1200 pixels wide, and legible at half of that.
WIDTH, DPI = 6.0, 200
#: The plot of all findings over the layers.
SCORES = "scores"


def write_plot(
    result: Result, path: str | Path, what: str = SCORES, layer: int | None = None
) -> Path:
    """Write a plot of what was found about the layers.

    Parameters
    ----------
    result : Result
    path : path-like
        Must end in ``.png``, ``.pdf`` or ``.svg``. Written beside it first and renamed when complete.
    what : str
        ``"scores"``: every finding over the layers, one below the other, such as the ROAD scores with
        the standard deviation of their repeats, the scores of random maps and the best layer. Or a plot
        of one of the findings: ``"removal"`` (ROAD), the target's probability after the removal of more
        and more pixels, for one layer; ``"randomisation"``, how much of each map is left, the more of
        the network is randomised.
    layer : int, optional
        Which of `layers`. Of a plot of a single layer, by default the one to show first; others show all
        layers, and mark or single out this one.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ScoreError
        When what is to be plotted was not computed, or the layer has no score.
    RenderError
        For another suffix, or when the file cannot be written.
    IndexError
        When there is no such layer.
    """
    target = checked_plot(path)
    figure = plot(result, what, layer)
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


def plot(result: Result, what: str = SCORES, layer: int | None = None) -> Figure:
    """Draw a plot as a figure of matplotlib, to be changed further.

    Parameters and errors are those of `write_plot`.

    Returns
    -------
    matplotlib.figure.Figure
        Without a canvas of any window; ``savefig`` works.
    """
    if layer is not None and not 0 <= layer < len(result):
        raise IndexError(f"The layers are 0 to {len(result) - 1}, there is no {layer}.")
    described = over_layers(result) if what == SCORES else _of_finding(result, what, layer)
    panels = described.panels
    empty = next((p.instead for p in panels if isinstance(p, Panel) and p.instead), "")
    if empty:
        raise ScoreError(empty)
    height = 2.2 + 1.6 * len(panels)
    figure, axes = new_figure(WIDTH, height, len(panels), PRINT, share_x=what == SCORES)
    words = (result.target.name, result.method, str(result.provenance.get("model", "")))
    lines = [", ".join(shortened(part) for part in words if part)]
    # What speaks against a method stands beside its results.
    for sentence in dict.fromkeys((described.title, *result.warnings)):
        lines += wrap(plain(sentence), 80)
    # Names may hold dollars, which are no formulas here.
    figure.suptitle("\n".join(lines), fontsize=10, parse_math=False)
    for each, panel in zip(axes, panels, strict=True):
        draw(figure, each, panel, PRINT)
        if layer is not None and isinstance(panel, Panel) and panel.by_layer:
            each.axvline(layer + 1, color=PRINT.quiet, linewidth=0.8, linestyle=":")
        if what == SCORES and each is not axes[-1]:
            each.set_xlabel("")
    return figure


def over_layers(result: Result) -> Plot:
    """Describe all findings over the layers, one panel each."""
    panels = [finding.panel() for finding in result.findings.values()]
    known = tuple(panel for panel in panels if panel is not None)
    if not known:
        raise ScoreError("There is nothing to plot: compute some finding first, as with score().")
    return Plot(known)


def kind_of_plot(what: str) -> FindingKind:
    """Return the kind of finding that makes a plot.

    Raises
    ------
    RenderError
        When none does.
    """
    kinds = finding_kinds().values()
    by_name = {name: kind for kind in kinds for name in kind.finding.plot_names}
    if what not in by_name:
        names = ", ".join(f'"{name}"' for name in (SCORES, *by_name))
        raise RenderError(f"There is no plot {what!r}: there are {names}.")
    return by_name[what]


def offers(result: Result) -> dict[str, PlotOffer]:
    """Return the further plots that findings of a result make, by name."""
    return {name: o for f in result.findings.values() for name, o in f.plots().items()}


def _of_finding(result: Result, what: str, layer: int | None) -> Plot:
    known = offers(result)
    if what not in known:
        kind = kind_of_plot(what)
        raise ScoreError(f"There is nothing to plot: compute it first, with find({kind.name!r}).")
    offer = known[what]
    return offer.draw(result.best_index if offer.of_layer and layer is None else layer)
