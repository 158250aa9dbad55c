"""Figure of outputs without space, such as those of fully connected layers, as stripes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import RenderError
from camanim.figures.captions import caption, listing
from camanim.figures.page import HEAD, HIGHEST, SMALL, Page, fitted, line_height, short_number
from camanim.figures.picking import pick
from camanim.figures.printed import PrintedFigure
from camanim.figures.registry import find_figure, register_figure
from camanim.figures.scales import CONSTANT, Drawn, bar_of, scale_in_words
from camanim.figures.style import MapStyle, PickedLayers
from camanim.figures.tiles import BAND_GAP, MARGIN, TEXT_GAP, bar_height, draw_bar
from camanim.render.overlay import lookup_table
from camanim.result import Result
from camanim.stack import stack_maps

#: Layout of outputs without space.
STRIPES = "stripes"
#: Height of a row of stripes in millimetres, and with its texts.
STRIPE = 7.0
ROW = line_height(HEAD) + STRIPE + TEXT_GAP + line_height(SMALL) + BAND_GAP
#: Most rows of a page.
MOST = int((HIGHEST - 2 * MARGIN - bar_height()) / ROW)
#: Most stripes in a row that can be told apart in print.
MOST_UNITS = 2048


@register_figure("1-D layers", MapStyle, run={"show_1d": True})
def one_d(result: Result, *, layers: PickedLayers = "", **style: Any) -> PrintedFigure:
    """Draw outputs without space, such as those of fully connected layers, as one stripe for each unit.

    Parameters
    ----------
    result : Result
        Computed with ``show_1d=True``.
    layers : str, int or sequence of them
        Layers to show, by name or index; by default all without space, at most the last 13.
    **style
        Fields of `MapStyle`, of which those of the image have no effect.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, a layer does not exist, or no layer is 1-D.
    """
    look = MapStyle(**style)
    stripes = [i for i, layer in enumerate(result.layers) if layer.layout == STRIPES]
    if not stripes:
        raise RenderError(
            "No layer of the result is 1-D: compute it with show_1d=True, with layers that include "
            "fully connected or pooled ones."
        )
    chosen = stripes[-MOST:]
    if layers:
        shown = [result.layers[i] for i in stripes]
        chosen = [stripes[k] for k in pick(shown, layers)]
        if len(chosen) > MOST:
            raise RenderError(
                f"{len(chosen)} layers without space are too many for a page: pick at most {MOST}."
            )
    stack = stack_maps(result, look.normalization, signed=look.signed)
    drawn = Drawn(result, look, stack, chosen)
    colors = lookup_table(look.shown_colormap)
    bar = bar_of([drawn], look)
    page = Page(look.width, 2 * MARGIN + len(chosen) * ROW + bar_height())
    width, y = look.width - 2 * MARGIN, MARGIN
    for i in chosen:
        layer, raw = result.layers[i], result.maps[i].ravel()
        levels = stack.native(i).ravel()
        units = f"{layer.kind}, {levels.size} units"
        page.text(MARGIN, y, fitted(f"{layer.label}, {units}", width, HEAD), HEAD, align="left")
        y += line_height(HEAD)
        page.picture(
            _pixels(levels, colors, signed=look.signed), MARGIN, y, width, STRIPE,
            f"stripes: {layer.label}", nearest=True,
        )  # fmt: skip
        y += STRIPE + TEXT_GAP
        page.text(MARGIN, y, "0", align="left")
        page.text(look.width - MARGIN, y, f"{levels.size - 1}", align="right")
        top = int(raw.argmax())
        # Beside its unit, but within the page and clear of the numbers at the ends.
        x = float(np.clip(MARGIN + width * (top + 0.5) / levels.size, 26.0, look.width - 26.0))
        words = f"highest: unit {top}, {short_number(raw[top])}"
        if not raw[top] > 0:
            words = "no positive evidence"
        elif drawn.without_colors(i) == CONSTANT:
            words = f"constant: {short_number(raw[top])}"
        page.text(x, y, words)
        y += line_height(SMALL) + BAND_GAP
    draw_bar(page, bar, y)
    names = listing(result.layers[i].label for i in chosen)
    opening = "Maps of outputs without space, one stripe for each unit, from the first to the last."
    which = "Layers" if len(chosen) > 1 else "Layer"
    if not layers and len(chosen) < len(stripes):
        which = f"The last {len(chosen)} of {len(stripes)} layers"
    more = [f"{which}: {names}."]
    if any(result.maps[i].size > MOST_UNITS for i in chosen):
        more.append("A stripe of more than 2048 units is the strongest of neighbouring ones.")
    numbers = "Below: the number of the unit with the highest raw value, and that value."
    scale = scale_in_words([drawn], numbers=numbers)
    text = caption(opening, [result], *more, scale=scale)
    return PrintedFigure("one_d", find_figure("one_d").title, page.figure, text)


def _pixels(
    levels: npt.NDArray[np.float32], colors: npt.NDArray[np.uint8], *, signed: bool
) -> npt.NDArray[np.uint8]:
    """Return the colours of a row of units, (1, N, 3)."""
    group = -(-levels.size // MOST_UNITS)
    if group > 1:
        groups = np.pad(levels, (0, -levels.size % group)).reshape(-1, group)
        strongest = np.abs(groups).argmax(axis=1)
        levels = groups[np.arange(len(groups)), strongest]
    shares = 0.5 + 0.5 * levels if signed else levels
    pixels: npt.NDArray[np.uint8] = colors[np.round(255 * np.clip(shares, 0, 1)).astype(int)][None]
    return pixels
