"""Plots of findings, as files or figures of matplotlib."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from camanim.curves import find_curve, with_curve, with_stages
from camanim.errors import LayerIndexError, RenderError, ScoreError
from camanim.findings import FindingKind, finding_kinds
from camanim.plots import HeatMap, Panel, Plot, PlotOffer
from camanim.render.figures import PRINT, draw, file_content, new_figure, shortened
from camanim.render.pen import plain
from camanim.result import Result
from camanim.writing import checked_path, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
#: Width in inches and resolution in dots per inch; legible at half of the 1200 pixels.
WIDTH, DPI = 6.0, 200
#: The plot of all findings over the layers.
SCORES = "scores"


def write_plot(
    result: Result,
    path: str | Path,
    what: str = SCORES,
    layer: int | None = None,
    *,
    second: str | None = None,
) -> Path:
    """Write a plot of findings.

    Parameters
    ----------
    result : Result
    path : path-like
        Must end in ``.png``, ``.pdf`` or ``.svg``.
    what : str
        ``"scores"``: all findings over the layers, one panel each, such as the ROAD scores with the
        standard deviation of their repeats, the scores of random maps and the highest score. Otherwise a
        plot of one finding: ``"removal"`` (ROAD), the target's probability against the share of removed
        pixels, for one layer; ``"randomisation"``, the similarity of each map to the original against
        the randomised part of the network.
    layer : int, optional
        Index into `layers`. Plots of a single layer show this layer, by default the one to show first;
        other plots show all layers and mark this one.
    second : str, optional
        A second curve over the layers, dashed, with its axis on the right: ``"parameters"``,
        ``"output size"``, ``"time"`` or a finding by its title; see `camanim.curves.layer_curves`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ScoreError
        If the finding was not computed, or the layer has no score.
    RenderError
        If the suffix differs, the plot or curve is unknown, or the file cannot be written.
    LayerIndexError
        If `layer` is out of range.
    """
    target = checked_plot(path)
    return _write(plot(result, what, layer, second=second), target)


def write_described(described: Plot, path: str | Path) -> Path:
    """Write a plot that is not of one result, such as that of `camanim.comparison.overlaid`.

    Raises
    ------
    ScoreError
        If a panel has no values.
    RenderError
        If the suffix is not ``.png``, ``.pdf`` or ``.svg``, or the file cannot be written.
    """
    target = checked_plot(path)
    return _write(
        _figure(described.panels, wrap(plain(described.title), 80), None, share_x=False), target
    )


def _write(figure: Figure, target: Path) -> Path:
    write_file(target, file_content(figure, target.suffix[1:].lower(), dpi=DPI))
    return target


def checked_plot(path: str | Path) -> Path:
    """Return the checked path of a plot; see `camanim.writing.checked_path`."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise RenderError(f"{Path(path).name} must end in {', '.join(SUFFIXES[:-1])} or .svg.")
    return checked_path(path, suffix)


def plot(
    result: Result, what: str = SCORES, layer: int | None = None, *, second: str | None = None
) -> Figure:
    """Return a plot as a figure of matplotlib.

    Parameters and errors are those of `write_plot`.

    Returns
    -------
    matplotlib.figure.Figure
        Not managed by pyplot; ``savefig`` works.
    """
    if layer is not None and not 0 <= layer < len(result):
        raise LayerIndexError(
            f"Layer {layer} is out of range: the layers are 0 to {len(result) - 1}."
        )
    described = over_layers(result) if what == SCORES else _of_finding(result, what, layer)
    names = (result.target.name, result.method, str(result.provenance.get("model", "")))
    lines = [", ".join(shortened(name) for name in names if name)]
    for sentence in dict.fromkeys((described.title, *result.warnings)):
        lines += wrap(plain(sentence), 80)
    if second is not None and not any(
        isinstance(p, Panel) and p.by_layer for p in described.panels
    ):
        raise RenderError(f"The plot {what!r} is not over the layers: leave second out.")
    panels = tuple(_completed(panel, result, second) for panel in described.panels)
    return _figure(panels, lines, layer, share_x=what == SCORES)


def _figure(
    panels: tuple[Panel | HeatMap, ...], lines: list[str], layer: int | None, *, share_x: bool
) -> Figure:
    empty = next((p.instead for p in panels if isinstance(p, Panel) and p.instead), "")
    if empty:
        raise ScoreError(empty)
    height = 2.2 + 1.6 * len(panels)
    figure, axes = new_figure(WIDTH, height, len(panels), PRINT, share_x=share_x)
    # A dollar in a name does not start a formula.
    figure.suptitle("\n".join(lines), fontsize=10, parse_math=False)
    for each, panel in zip(axes, panels, strict=True):
        draw(figure, each, panel, PRINT)
        if layer is not None and isinstance(panel, Panel) and panel.by_layer:
            each.axvline(layer + 1, color=PRINT.quiet, linewidth=0.8, linestyle=":")
        if share_x and each is not axes[-1]:
            each.set_xlabel("")
    return figure


def _completed(panel: Panel | HeatMap, result: Result, second: str | None) -> Panel | HeatMap:
    """Return a panel over the layers with the stages of the network and a second curve."""
    if not isinstance(panel, Panel) or not panel.by_layer:
        return panel
    panel = with_stages(panel, result.layers)
    return panel if second is None else with_curve(panel, find_curve(result, second))


def over_layers(result: Result) -> Plot:
    """Return the plot of all findings over the layers, one panel each."""
    panels = [finding.panel() for finding in result.findings.values()]
    panels_with_values = tuple(panel for panel in panels if panel is not None)
    if not panels_with_values:
        raise ScoreError("The result has no findings to plot: compute one first, as with score().")
    return Plot(panels_with_values)


def kind_of_plot(what: str) -> FindingKind:
    """Return the kind of finding that provides a plot.

    Raises
    ------
    RenderError
        If no kind provides it.
    """
    kinds = finding_kinds().values()
    by_name = {name: kind for kind in kinds for name in kind.finding.plot_names}
    if what not in by_name:
        names = ", ".join(f'"{name}"' for name in (SCORES, *by_name))
        raise RenderError(f"Unknown plot {what!r}: choose one of {names}.")
    return by_name[what]


def offers(result: Result) -> dict[str, PlotOffer]:
    """Return the additional plots of all findings, by name."""
    return {name: o for f in result.findings.values() for name, o in f.plots().items()}


def _of_finding(result: Result, what: str, layer: int | None) -> Plot:
    plots = offers(result)
    if what not in plots:
        kind = kind_of_plot(what)
        raise ScoreError(f"The finding was not computed: call find({kind.name!r}) first.")
    offer = plots[what]
    return offer.draw(result.initial_index if offer.of_layer and layer is None else layer)
