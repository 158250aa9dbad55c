"""Drawing of plot descriptions (`camanim.plots`) with matplotlib, for files, the dock and movies.

The `Theme` differs for each. Figures are created without pyplot, so that the state of a user's session
is unchanged and any thread can draw. The colours of `PRINT` are those of Okabe and Ito, which are
distinguishable with colour vision deficiency; lines also differ in their dashes. matplotlib is imported
in functions, because its import is slow.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.plots import Band, Color, Floats, HeatMap, Line, Mark, Panel, Span, Twin
from camanim.render.pen import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Symbol in text, marker and size of the most important mark and of others.
BEST, OTHER = ("★", "*", 13.0), ("◆", "D", 6.0)
DASHES = {"solid": "-", "dashed": "--", "dotted": ":", "dashdot": "-."}
#: Maximum length of a name in characters.
MAX_LENGTH = 60
_writing = threading.Lock()


@dataclass(frozen=True)
class Theme:
    """Style of plots.

    Attributes
    ----------
    colors : mapping of Color to str
    mark : str
        Colour of marks that are not the most important one.
    text, quiet, background, grid : str
        Colours of text, of spines and reference levels, of the background, and of grid lines.
    size : float
        Font size in points.
    width : float
        Line width in points.
    legend : bool
        Whether a legend is drawn above the panel.
    words : bool
        Whether the text of the panel and its marks is drawn above the panel.
    area : bool
        Whether the area between lines and zero is shaded.
    columns : int
        Number of columns of the legend.
    shade : float
        Opacity of every second span.
    names_below : bool
        Whether the names of spans are below the axes, in place of the numbers of the x axis.
    """

    colors: Mapping[Color, str]
    mark: str = "#CC79A7"
    text: str = "#111111"
    quiet: str = "#555555"
    background: str = "#FFFFFF"
    grid: str = "#E5E5E5"
    size: float = 9.0
    width: float = 1.6
    legend: bool = True
    words: bool = True
    area: bool = False
    columns: int = 3
    shade: float = 0.08
    names_below: bool = False


PRINT = Theme(
    {
        "first": "#0072B2",
        "second": "#D55E00",
        "third": "#E69F00",
        "fourth": "#009E73",
        "reference": "#555555",
        "best": "#D55E00",
    }
)
#: For the dock in napari's dark and light themes.
DARK = Theme(
    {
        "first": "#F0F1F2",
        "second": "#E69F00",
        "third": "#56B4E9",
        "fourth": "#CC79A7",
        "reference": "#2FBF94",
        "best": "#FFB454",
    },
    mark="#CC79A7",
    text="#F0F1F2",
    quiet="#9EA8B8",
    background="#262930",
    grid="#414851",
    size=7.5,
    width=1.4,
    words=False,
)
LIGHT = Theme(
    {
        "first": "#3B3A39",
        "second": "#B45309",
        "third": "#0072B2",
        "fourth": "#A03070",
        "reference": "#00795A",
        "best": "#D9730D",
    },
    mark="#A03070",
    text="#3B3A39",
    quiet="#6B6A69",
    background="#EFEBE9",
    grid="#D6D0CE",
    size=7.5,
    width=1.4,
    words=False,
)
MOVIE = Theme(
    {
        "first": "#56B8FF",
        "second": "#FFB85C",
        "third": "#E69F00",
        "fourth": "#009E73",
        "reference": "#9EA8B8",
        "best": "#FFB85C",
    },
    mark="#CC79A7",
    text="#9EA8B8",
    quiet="#6B7484",
    background="#0F1218",
    grid="#38404F",
    size=7.5,
    columns=6,
    words=False,
    area=True,
)


def themed(theme: Theme, *, text: str, background: str) -> Theme:
    """Return a theme with other colours of text and background."""
    return replace(theme, text=text, background=background)


def new_figure(
    width: float, height: float, rows: int, theme: Theme, *, share_x: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its axes, from top to bottom.

    Parameters
    ----------
    width, height : float
        In inches.
    rows : int
        Number of axes.
    theme : Theme
    share_x : bool
        Whether all axes have the same range of x.
    """
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained", facecolor=theme.background)
    axes = figure.subplots(rows, squeeze=False, sharex=share_x)[:, 0].tolist()
    for each in axes:
        dress(each, theme)
    return figure, axes


def file_content(
    figure: Figure, kind: str, *, configuration: Mapping[str, Any] | None = None, **options: Any
) -> bytes:
    """Return the content of a file with a figure, in memory.

    All files of figures are written by this function, one at a time: the writers of matplotlib read its
    configuration, which the threads of a process share.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    kind : {"png", "pdf", "svg"}
    configuration : mapping, optional
        Entries of ``rcParams`` for this file, which have their former values afterwards.
    **options
        Of `matplotlib.figure.Figure.savefig`, such as ``dpi=200``.
    """
    import matplotlib

    shared: Any = matplotlib.rcParams
    content = BytesIO()
    with _writing:
        before = {name: shared[name] for name in configuration or ()}
        shared.update(configuration or {})
        try:
            # In memory, as the writers of matplotlib fail in their own ways on a full disk.
            figure.savefig(content, format=kind, **options)
        finally:
            shared.update(before)
    return content.getvalue()


def dress(axes: Axes, theme: Theme) -> None:
    """Apply a theme to axes."""
    axes.set_facecolor(theme.background)
    axes.tick_params(labelsize=theme.size, colors=theme.text, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.quiet)
    axes.grid(axis="y", color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)


def draw(figure: Figure, axes: Axes, panel: Panel | HeatMap, theme: Theme) -> None:
    """Draw a panel into axes."""
    if isinstance(panel, HeatMap):
        _draw_heat_map(figure, axes, panel, theme)
    elif panel.instead or not len(panel.x):
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, panel.instead, ha="center", va="center", wrap=True, color=theme.text,
            fontsize=theme.size + 1, transform=axes.transAxes, parse_math=False,
        )  # fmt: skip
    else:
        _draw_panel(axes, panel, theme)


def _draw_panel(axes: Axes, panel: Panel, theme: Theme) -> None:
    if panel.x_limits is not None:
        axes.set_xlim(*panel.x_limits)
    _draw_spans(axes, panel.spans, theme)
    for line in panel.lines:
        _draw_line(axes, panel.x, line, theme)
    for level in panel.levels:
        axes.axhline(level.y, color=theme.quiet, linewidth=1, linestyle=":", label=level.name)
    mark_labels = [_draw_mark(axes, panel.x, mark, theme) for mark in panel.marks]
    for axis, text in ((axes.xaxis, panel.x_label), (axes.yaxis, panel.y_label)):
        axis.set_label_text(text, fontsize=theme.size + 1, color=theme.text)
    twins = [
        _draw_twin(axes, panel.x, twin, theme, visible=k == 0) for k, twin in enumerate(panel.twins)
    ]
    if twins:
        # The lines of the panel are on top.
        axes.set_zorder(1 + max(twin.get_zorder() for twin in twins))
        for each in (axes, *twins):
            each.patch.set_visible(False)
    if panel.y_limits is not None:
        axes.set_ylim(*panel.y_limits)
    elif panel.spans and not theme.names_below:
        # Space for the names of the spans.
        bottom, top = axes.get_ylim()
        axes.set_ylim(bottom, top + 0.08 * (top - bottom))
    if panel.by_layer or not np.mod(panel.x, 1).any():
        whole_numbers(axes.xaxis)
    if theme.legend:
        lines = [*mark_labels, *map(shortened, panel.words)] if theme.words else []
        legend(axes, lines, theme)


def _draw_spans(axes: Axes, spans: Sequence[Span], theme: Theme) -> None:
    """Shade every second span, and write the names that fit."""
    low, high = axes.get_xlim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    width = axes.get_window_extent().width / (high - low)
    # Points to pixels; a character is about 0.6 times as wide as high.
    character = 0.6 * (theme.size - 1) * figure.dpi / 72
    widths = [(span.high - span.low) * width / character - 1 for span in spans]
    long = all(len(span.name) <= space for span, space in zip(spans, widths, strict=True))
    for k, (span, space) in enumerate(zip(spans, widths, strict=True)):
        if k % 2:
            axes.axvspan(
                span.low, span.high, color=theme.quiet, alpha=theme.shade, linewidth=0, zorder=0
            )
        name = span.name if long else span.label
        if len(name) <= space:
            below = theme.names_below
            axes.annotate(
                plain(name), ((span.low + span.high) / 2, 0 if below else 1), (0, -2.5),
                xycoords=axes.get_xaxis_transform(), textcoords="offset points", ha="center", va="top",
                zorder=1, color=theme.text if below else theme.quiet, fontsize=theme.size - 1,
                parse_math=False, annotation_clip=False,
            )  # fmt: skip
    if spans and theme.names_below:
        axes.tick_params(axis="x", labelbottom=False, length=0)


def _draw_twin(axes: Axes, x: Floats, twin: Twin, theme: Theme, *, visible: bool) -> Axes:
    """Draw lines with another y axis, on the right if it is visible, and return its axes."""
    from matplotlib.ticker import EngFormatter

    other = axes.twinx()
    other.spines[["top", "left", "bottom"]].set_visible(False)
    for line in twin.lines:
        if not visible and np.isfinite(line.y).any():
            extent = f"{np.nanmin(line.y):.3g} to {np.nanmax(line.y):.3g}"
            line = replace(line, name=f"{line.name} ({extent})")
        _draw_line(other, x, line, theme)
        # The legend is that of the panel.
        axes.plot(
            [], [], linestyle=DASHES[line.style], color=theme.colors[line.color], label=line.name,
            linewidth=theme.width, marker="" if line.marker == "|" else line.marker, markersize=4,
        )  # fmt: skip
    other.spines["right"].set_visible(visible)
    if not visible:
        other.set_yticks([])
        return other
    color = theme.colors[twin.lines[0].color] if twin.lines else theme.text
    other.spines["right"].set_color(color)
    other.tick_params(labelsize=theme.size, colors=color)
    if twin.log:
        other.set_yscale("log")
        other.minorticks_off()
    if twin.log or max(map(abs, other.get_ylim())) >= 10_000:
        other.yaxis.set_major_formatter(EngFormatter(sep=""))
    other.set_ylabel(twin.y_label, fontsize=theme.size + 1, color=color)
    return other


def _draw_line(axes: Axes, x: Floats, line: Line, theme: Theme) -> None:
    color = theme.colors[line.color]
    x = x if line.x is None else line.x
    if line.band is not None:
        _draw_band(axes, x, line.band, color, 0.18 if line.faint else 0.25)
    if theme.area and not line.faint:
        axes.fill_between(x, 0, line.y, color=color, alpha=0.18, linewidth=0)
    if line.marker == "|":
        marked = np.isfinite(line.y)
        axes.plot(x[marked], line.y[marked], "|", color=color, label=line.name)
        return
    axes.plot(
        x,
        line.y,
        linestyle=DASHES[line.style],
        color=color,
        linewidth=theme.width * (0.65 if line.faint else 1),
        marker=line.marker,
        markersize=4,
        label=line.name,
    )
    if not line.marker:
        # A single value between two gaps is drawn as a dot.
        single = np.isfinite(line.y) & ~_has_neighbour(line.y)
        if single.any():
            axes.plot(x[single], line.y[single], ".", color=color)


def _draw_band(axes: Axes, x: Floats, band: Band, color: str, alpha: float) -> None:
    """Draw a band, with a bar at each single value between gaps."""
    low, high = band.low, band.high
    axes.fill_between(x, low, high, color=color, alpha=alpha, linewidth=0, label=band.name)
    single = np.isfinite(low) & ~_has_neighbour(low)
    if single.any():
        axes.vlines(x[single], low[single], high[single], color=color, alpha=alpha, linewidth=4)


def _draw_mark(axes: Axes, x: Floats, mark: Mark, theme: Theme) -> str:
    """Draw a mark and return its label."""
    symbol, marker, size = BEST if mark.filled else OTHER
    label = shortened(f"{symbol} {mark.words}", MAX_LENGTH + 20) if theme.words else mark.name
    axes.plot(
        [x[mark.at]],
        [mark.y],
        marker,
        color=theme.colors["best"] if mark.filled else theme.mark,
        markersize=size,
        markeredgecolor=theme.background,
        zorder=5,
        label=label,
    )
    return label


def _draw_heat_map(figure: Figure, axes: Axes, heat: HeatMap, theme: Theme) -> None:
    """Draw a heat map with the first row on top."""
    from matplotlib import colormaps

    rows, columns = heat.values.shape
    drawn = axes.imshow(
        np.ma.masked_invalid(heat.values),
        cmap=colormaps["PuOr_r"].with_extremes(bad="#999999"),
        vmin=heat.limits[0],
        vmax=heat.limits[1],
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, columns + 0.5, rows + 0.5, 0.5),
    )
    for axis, text in ((axes.xaxis, heat.x_label), (axes.yaxis, heat.y_label)):
        axis.set_label_text(text, fontsize=theme.size + 1, color=theme.text)
        whole_numbers(axis)
    axes.grid(visible=False)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.05, pad=0.02)
    bar.set_label(heat.label, size=theme.size + 1, color=theme.text)
    bar.ax.tick_params(labelsize=theme.size, colors=theme.text)


def legend(axes: Axes, lines: Sequence[str], theme: Theme) -> None:
    """Draw the legend above the axes, and lines of text above the legend.

    Long names of layers are in the text, since a wide legend would reduce the width of the axes.
    """
    labelled = axes.get_legend_handles_labels()[0]
    handles = [handle for handle in labelled if handle.get_label() not in lines]
    box = axes.legend(
        handles=handles, fontsize=theme.size - 1, ncols=theme.columns, loc="lower left",
        bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0.2, alignment="left", handlelength=2.2,
        columnspacing=1.2, labelcolor=theme.text,
    )  # fmt: skip
    for text in box.get_texts():
        text.set_parse_math(False)
    rows = -(-len(handles) // theme.columns)
    axes.set_title(
        "\n".join(lines), loc="left", fontsize=theme.size - 1, pad=8 + 12.5 * rows, parse_math=False,
        color=theme.text,
    )  # fmt: skip


def legend_in_a_row(
    axes: Axes, width: float, theme: Theme, *, before: float = 0.0, after: float = 0.0
) -> None:
    """Draw a legend of one row above the axes, with as many entries as fit, lines before bands.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    width : float
        Width of the axes in pixels at 100 dots per inch.
    theme : Theme
    before, after : float
        Space at the left and right of the axes, which the legend uses if it is wider than the axes.
    """
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    # The last line is on top.
    entries = list(zip(handles, labels, strict=True))[::-1]
    entries.sort(key=lambda entry: not isinstance(entry[0], Line2D))
    size = theme.size - 1
    # A character is about 0.6 times as wide as high; the sample of the line is 2.2 times as wide.
    ends = np.cumsum([(0.6 * len(name) + 4) * size * 100 / 72 for _, name in entries])
    if not len(ends) or ends[-1] <= width:
        before = after = 0.0
    fitting = entries[: int((ends <= width + before + after).sum())]
    if not fitting:
        return
    box = axes.legend(
        [handle for handle, _ in fitting], [shortened(name) for _, name in fitting], fontsize=size,
        ncols=len(fitting), loc="lower left", bbox_to_anchor=(-before / width, 1),
        frameon=False, borderpad=0, borderaxespad=0.2, handlelength=2.2, handletextpad=0.5,
        columnspacing=1.2, labelcolor=theme.text,
    )  # fmt: skip
    for text in box.get_texts():
        text.set_parse_math(False)


def whole_numbers(axis: Axis) -> None:
    """Set ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))


def shortened(text: str, max_length: int = MAX_LENGTH) -> str:
    """Remove the middle of a long text, and replace characters that the font lacks."""
    # The symbols of marks are in matplotlib's font.
    text = "".join(char if char in (BEST[0], OTHER[0]) else plain(char) for char in text)
    if len(text) <= max_length:
        return text
    return f"{text[: max_length // 2 - 1]}…{text[-max_length // 2 :]}"


def _has_neighbour(values: Floats) -> npt.NDArray[np.bool_]:
    """Return for each value whether the previous or next value is finite, (N,)."""
    finite = np.pad(np.isfinite(values), 1)
    beside: npt.NDArray[np.bool_] = finite[:-2] | finite[2:]
    return beside
