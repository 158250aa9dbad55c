"""Drawing of curves into pixels, without Qt, so that any thread can draw.

A `Request` holds what is to be drawn; `draw` describes it with the classes of `camanim.plots` and draws
it with `camanim.render.figures`. Neither is done in the thread of the window: descriptions import SciPy
and drawings matplotlib, which takes longer than the window may be blocked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from camanim.curves import LayerCurve, layer_curves, overlaid, title_of, with_curve, with_stages
from camanim.findings import Finding, short
from camanim.plots import Floats, Panel
from camanim.render.figures import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from camanim import Animation

#: Space for tick labels beside the axes, above and below them, in pixels.
LEFT, RIGHT, TWIN_RIGHT, ABOVE, BELOW, X_LABEL = 42, 14, 42, 15, 15, 20
#: Space between the axes' ends and the first and last layer, in pixels.
PADDING = 6
#: Pixels per layer below which lines are thinner.
DENSE = 2
#: Lowest height with a legend, and distance of ticks along the y axis, in pixels.
WITH_LEGEND, TICK = 70, 20


@dataclass(frozen=True)
class Request:
    """What to draw, and at which size.

    Attributes
    ----------
    animation : Animation
        Result of the current stack.
    index : int or None
        Index of the shown layer, for plots of a single layer.
    first : str
        Title of the first curve or plot; the first of all if the result has none of that title.
    second : str
        Name of the second curve; empty for none.
    runs : mapping of str to Animation
        Other results whose first curve is drawn too, by the names for the legend; the current one first.
    extras : mapping of str to (L,) array
        Additional lines.
    size : (width, height)
        In pixels of the window.
    ratio : float
        Pixels of the screen per pixel of the window.
    theme : Theme
    track : (float, float) or None
        Positions of the first and the last layer in pixels of the window; None for the whole width.
    """

    animation: Animation
    index: int | None
    first: str
    second: str
    runs: Mapping[str, Animation]
    extras: Mapping[str, Floats]
    size: tuple[int, int]
    ratio: float
    theme: Theme
    track: tuple[float, float] | None = None


@dataclass(frozen=True)
class Choice:
    """A curve or plot that can be chosen."""

    title: str
    tip: str


@dataclass(frozen=True)
class Drawing:
    """A drawn plot, and where its layers are.

    Attributes
    ----------
    pixels : (H, W, 4) uint8 array or None
        None if there is nothing to draw.
    panel : Panel or None
    title : str
        Title of the drawn curve or plot; empty without one.
    of_layer : bool
        Whether the plot is about the shown layer only.
    x, y : (L,) arrays
        Position of each layer's value in pixels of the window, y is NaN without a value; empty if the
        plot is not over the layers.
    top, bottom : float
        Ends of the axes in pixels of the window.
    summary : str
        Sentences about the finding.
    firsts, seconds : list of Choice
        What can be chosen.
    texts : list of str
        Value of each layer in words.
    """

    pixels: npt.NDArray[np.uint8] | None = None
    panel: Panel | None = None
    title: str = ""
    of_layer: bool = False
    x: Floats = field(default_factory=lambda: np.empty(0))
    y: Floats = field(default_factory=lambda: np.empty(0))
    top: float = 0.0
    bottom: float = 0.0
    summary: str = ""
    firsts: Sequence[Choice] = ()
    seconds: Sequence[Choice] = ()
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class _Plot:
    """One entry of the list of curves and plots."""

    choice: Choice
    finding: Finding
    panel: Panel
    of_layer: bool = False


def draw(request: Request) -> Drawing:
    """Describe and draw a plot."""
    animation = request.animation
    curves = layer_curves(animation)
    plots = _plots(animation.findings.values(), request.index)
    plot = next((p for p in plots if p.choice.title == request.first), next(iter(plots), None))
    second = curves.get(request.second)
    if plot is not None and second is not None and second.name == plot.choice.title:
        second = None
    panel = _panel(request, plot, second)
    own = "" if plot is None else plot.choice.title
    drawing = Drawing(
        panel=panel,
        title=own,
        of_layer=plot is not None and plot.of_layer,
        summary="" if plot is None else _summary(plot, animation),
        firsts=[p.choice for p in plots],
        seconds=[Choice(c.name, c.tip) for c in curves.values() if c.name != own],
        texts=_texts(animation, plot, second, request.extras),
    )
    if panel is None or min(request.size) < 20:
        return drawing
    return _drawn(drawing, request, panel)


def _plots(findings: Iterable[Finding], index: int | None) -> list[_Plot]:
    """Return the curves over the layers and the additional plots of findings."""
    plots = []
    for finding in findings:
        panel = finding.panel()
        if panel is not None:
            plots.append(_Plot(Choice(title_of(finding), panel.tip), finding, panel))
        for offer in finding.plots().values():
            described = offer.draw(index if offer.of_layer else None)
            shown = next((p for p in described.panels if isinstance(p, Panel)), None)
            if shown is not None:
                choice = Choice(offer.title, offer.tip)
                plots.append(_Plot(choice, finding, shown, offer.of_layer))
    return plots


def _panel(request: Request, plot: _Plot | None, second: LayerCurve | None) -> Panel | None:
    """Return the panel with stages, second curve, extra lines and the curves of other results."""
    layers = request.animation.layers
    if plot is None:
        if second is None and not request.extras:
            return None
        panel = Panel.over_layers(len(layers))
    elif plot.panel.by_layer and request.runs:
        panel = overlaid(_same_findings(request, plot.finding))
    else:
        panel = plot.panel
    if panel.instead:
        return panel
    panel = with_stages(panel, layers)
    over_layers = panel.by_layer or (
        bool(request.runs) and plot is not None and plot.panel.by_layer
    )
    if over_layers and len(panel.x) == len(layers):
        if second is not None:
            # Other runs have dashed lines already.
            panel = (
                with_curve(panel, second, "reference", "dotted")
                if request.runs
                else with_curve(panel, second)
            )
        for name, values in request.extras.items():
            extra = LayerCurve(name, np.asarray(values, np.float64), name, "")
            panel = with_curve(panel, extra, "fourth", "dashdot")
    return panel


def _same_findings(request: Request, finding: Finding) -> dict[str, Finding]:
    """Return the findings of a kind of all results that have one."""
    return {
        name: animation.findings[finding.key]
        for name, animation in request.runs.items()
        if finding.key in animation.findings
    }


def _summary(plot: _Plot, animation: Animation) -> str:
    if plot.of_layer and plot.panel.instead:
        return ""
    return " ".join(filter(None, (plot.finding.summary(), *plot.finding.warnings())))


def _texts(
    animation: Animation,
    plot: _Plot | None,
    second: LayerCurve | None,
    extras: Mapping[str, Floats],
) -> list[str]:
    """Return the value of each layer in words: the first curve, the second one, and additional lines."""
    texts = []
    for i in range(len(animation)):
        lines = [] if plot is None else [plot.finding.badge(i)]
        if second is not None and np.isfinite(second.values[i]):
            lines.append(f"{second.name} {_number(second.values[i])}")
        lines += [f"{name} {_number(values[i])}" for name, values in extras.items()]
        texts.append("\n".join(filter(None, lines)))
    return texts


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else short(float(value))


def _drawn(drawing: Drawing, request: Request, panel: Panel) -> Drawing:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from camanim.render import figures

    (width, height), ratio = request.size, request.ratio
    theme = replace(request.theme, legend=False, words=False, names_below=True)
    # The theme's font sizes are in points at 100 dots per inch.
    figure = Figure(
        (width / 100, height / 100), dpi=100 * ratio, facecolor=request.theme.background
    )
    canvas = FigureCanvasAgg(figure)
    over_layers = len(panel.x) == len(request.animation) and (panel.by_layer or bool(request.runs))
    left, right = float(LEFT), float(width) - (TWIN_RIGHT if panel.twins else RIGHT)
    if over_layers:
        left, right, limits = _aligned(panel, left, right, request.track)
        panel = replace(panel, x_limits=limits)
    if len(panel.x) > (right - left) / DENSE:
        theme = replace(theme, width=0.7 * theme.width)
    label = "" if panel.by_layer else panel.x_label
    below = BELOW + (X_LABEL if label else 0)
    above = ABOVE if height >= WITH_LEGEND and not panel.instead else 5
    inner = max(height - above - below, 8)
    axes = figure.add_axes(
        (left / width, below / height, max(right - left, 8) / width, inner / height)
    )
    figures.dress(axes, theme)
    # The list of curves names the y axis; that of the second curve is in the legend.
    twins = tuple(replace(twin, y_label="") for twin in panel.twins)
    shown = replace(panel, y_label="", x_label=label, twins=twins)
    figures.draw(figure, axes, shown, theme)
    for each in figure.axes if not panel.instead else ():
        each.tick_params(axis="y", length=2, pad=1.5)
        each.tick_params(axis="x", pad=1.5)
        _fit_ticks(each, inner, MaxNLocator)
    if above == ABOVE:
        figures.legend_in_a_row(axes, right - left, theme, before=left, after=width - right)
    canvas.draw()
    pixels = np.array(canvas.buffer_rgba())
    top = float(above)
    drawing = replace(drawing, pixels=pixels, top=top, bottom=float(height - below))
    if not over_layers or panel.instead:
        return drawing
    values = panel.lines[-1].y if panel.lines else np.full(len(panel.x), np.nan)
    finite = np.where(np.isfinite(values), values, 0.0)
    points = axes.transData.transform(np.column_stack([panel.x, finite])) / ratio
    y = np.where(np.isfinite(values), height - points[:, 1], np.nan)
    return replace(drawing, x=points[:, 0], y=y)


def _aligned(
    panel: Panel, left: float, right: float, track: tuple[float, float] | None
) -> tuple[float, float, tuple[float, float]]:
    """Return the ends of the axes in pixels and the limits of x that place the layers on a track."""
    low, high = (left + PADDING, right - PADDING)
    if track is not None:
        low, high = max(low, track[0]), min(high, track[1])
    if high - low < 2 * PADDING:
        low, high = left + PADDING, max(right - PADDING, left + 2 * PADDING)
    first, last = float(panel.x[0]), float(panel.x[-1])
    per_pixel = (last - first) / (high - low)
    if per_pixel == 0:
        # A single layer is in the middle.
        return low - PADDING, high + PADDING, (first - 0.5, first + 0.5)
    margin = PADDING * per_pixel
    return low - PADDING, high + PADDING, (first - margin, last + margin)


def _fit_ticks(axes: Axes, height: float, locator: type) -> None:
    """Leave out ticks of the y axis that a low plot has no space for."""
    count = max(1, int(height // TICK))
    if axes.get_yscale() == "linear" and len(axes.get_yticks()):
        axes.yaxis.set_major_locator(locator(count, min_n_ticks=2))
