"""Figures of maps: strips, sheets, stages, matrices, classes, counterfactuals, guided maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from camanim.declarations import Range
from camanim.errors import RenderError
from camanim.figures.captions import caption, listing
from camanim.figures.page import Page
from camanim.figures.picking import (
    all_layers,
    index_of,
    names_of,
    network_of,
    percentile,
    percentiles,
    pick,
    pick_in_each,
    short_network,
    value_of,
    why_no_map,
    without_repeats,
)
from camanim.figures.printed import PrintedFigure
from camanim.figures.registry import find_figure, register_figure
from camanim.figures.scales import (
    Drawn,
    bar_of,
    colors_in_words,
    marks_in_words,
    scale_in_words,
    starts_at_zero,
)
from camanim.figures.style import MapStyle, PickedLayers
from camanim.figures.tiles import MapTiles, Tile, TileGrid
from camanim.layer_info import LayerInfo
from camanim.render.overlay import Overlay, lookup_table
from camanim.result import Result
from camanim.slicing import take_plane
from camanim.stack import relevance

Step = Annotated[float, Range(0.5, 100)]
Side = Literal["network", "method", "class", "layer"]


def as_list(results: Result | Sequence[Result]) -> list[Result]:
    """Return one or several results as a list.

    Raises
    ------
    RenderError
        If there is none.
    """
    given = [results] if isinstance(results, Result) else list(results)
    if not given:
        raise RenderError("There is no result to show: pass at least one.")
    return given


def _printed(
    name: str, grid: TileGrid, text: str, *, top: float = 0.0, page: Page | None = None
) -> PrintedFigure:
    page = Page(grid.width, top + grid.height) if page is None else page
    grid.draw(page, top)
    return PrintedFigure(name, find_figure(name).title, page.figure, text)


def _drawn(tiles: Sequence[MapTiles]) -> list[Drawn]:
    return [each.drawn for each in tiles]


def _number(share: float) -> str:
    return f"{share:.3g} %"


@register_figure(
    "Strip of layers", MapStyle, takes="several", varies=("method", "network", "class")
)
def strip(
    results: Result | Sequence[Result],
    *,
    step: Step = 10.0,
    layers: PickedLayers = "",
    **style: Any,
) -> PrintedFigure:
    """Draw the maps of every n-th percentile layer in a row, from the first layer to the last.

    Several results, such as those of several methods, are rows below each other.

    Parameters
    ----------
    results : Result or sequence of Result
    step : float
        Distance of the layers in percent of the depth.
    layers : str, int or sequence of them
        Layers to show instead, by name, index or percentile.
    **style
        Fields of `MapStyle`, such as ``width=85``.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong or a layer does not exist.
    """
    given, look = as_list(results), MapStyle(**style)
    tiles = [MapTiles(result, look) for result in given]
    same = len({network_of(result) for result in given}) == 1
    if same:
        shown = all_layers(given)
        if layers:
            places = [(_share(i, shown), i) for i in pick(shown, layers)]
        else:
            places = percentiles(len(shown), step)
        labels = [shown[i].label for _, i in places]
        one = len(given) == 1
        rows: list[list[Tile | None]] = [
            [_at(t, label, label if one else "") for label in labels] for t in tiles
        ]
        heads = [
            _number(s) if one else f"{_number(s)}\n{x}"
            for (s, _), x in zip(places, labels, strict=True)
        ]
        names = listing(labels)
        picked = f"{len(labels)} of {len(shown)} layers"
    else:
        if layers:
            found = pick_in_each([r.layers for r in given], layers)
            heads = [heading for heading, _ in found]
            chosen = [[indices[k] for _, indices in found] for k in range(len(given))]
        else:
            shares = [share for share, _ in percentiles(max(map(len, given)), step)]
            heads = [_number(share) for share in shares]
            chosen = [[percentile(len(r), share) for share in shares] for r in given]
        rows = [_row(t, indices) for t, indices in zip(tiles, chosen, strict=True)]
        names, picked = "", f"{_count(chosen)} layers of each network"
    images = _images(tiles)
    grid = TileGrid(
        [[image, *row] for image, row in zip(images, rows, strict=True)],
        look.width,
        row_heads=names_of(given) if len(given) > 1 else (),
        column_heads=["image", *heads],
        bar=bar_of(_drawn(tiles), look),
    )
    which = "" if layers else f", every {step:g} % of the depth"
    opening = f"Class activation maps of {picked} in order of execution{which}."
    more = [f"Layers: {names}." if names else ""]
    if any("%" in head for head in heads):
        more.append("0 % is the first layer, 100 % the last.")
    text = caption(opening, given, *more, scale=scale_in_words(_drawn(tiles)))
    return _printed("strip", grid, text)


def _count(chosen: Sequence[Sequence[int]]) -> str:
    """Return how many layers networks have, such as ``5`` or ``up to 5``."""
    counts = {len(set(indices)) for indices in chosen}
    return f"{'up to ' if len(counts) > 1 else ''}{max(counts)}"


def _images(tiles: Sequence[MapTiles]) -> list[Tile | None]:
    """Return the tile of each result's image, once if all have the same."""
    first = tiles[0].result.image
    same = all(np.array_equal(each.result.image, first) for each in tiles)
    return [None if same and k else each.image() for k, each in enumerate(tiles)]


def _row(tiles: MapTiles, indices: Sequence[int]) -> list[Tile | None]:
    """Return the tiles of layers, each of them once; other places are empty."""
    return [
        None if i is None else tiles.map(i, tiles.result.layers[i].label)
        for i in without_repeats(indices)
    ]


def _share(i: int, layers: Sequence[LayerInfo]) -> float:
    return 100.0 * i / max(len(layers) - 1, 1)


def _at(tiles: MapTiles, label: str, *below: str) -> Tile:
    """Return the tile of a layer, or a grey field that says why it has no map."""
    i = index_of(tiles.result, label)
    if i is None:
        return tiles.missing(why_no_map(tiles.result, label), *below)
    return tiles.map(i, *below)


@register_figure("Sheet of all layers", MapStyle)
def sheet(result: Result, *, layers: PickedLayers = "", **style: Any) -> PrintedFigure:
    """Draw the maps of all shown layers in a grid, such as the blocks of a network.

    Parameters
    ----------
    result : Result
        Computed with ``layers="blocks"``, for example.
    layers : str, int or sequence of them
        Layers to show instead, by name, index or percentile.
    **style
        Fields of `MapStyle`.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, a layer does not exist, or there are too many layers for a page.
    """
    look = MapStyle(**style)
    tiles = MapTiles(result, look)
    chosen = pick(result.layers, layers) if layers else list(range(len(result)))
    shown = [result.layers[i] for i in chosen]
    cells = [tiles.image(), *(tiles.map(i, result.layers[i].label) for i in chosen)]
    grid = TileGrid([cells], look.width, bar=bar_of([tiles.drawn], look))
    opening = (
        f"Class activation maps of {len(chosen)} layers in order of execution, after the image."
    )
    more = f"Layers: {listing(layer.label for layer in shown)}."
    text = caption(opening, [result], more, scale=scale_in_words([tiles.drawn]))
    return _printed("sheet", grid, text)


@register_figure(
    "Initial, middle and final layer",
    MapStyle,
    takes="several",
    varies=("network", "method", "class"),
)
def stages(
    results: Result | Sequence[Result], *, layers: PickedLayers = "", **style: Any
) -> PrintedFigure:
    """Draw the initial, the middle and the final layer of several networks or methods.

    Parameters
    ----------
    results : Result or sequence of Result
        A column each.
    layers : str, int or sequence of them
        Layers to show instead of 0, 50 and 100 % of the depth.
    **style
        Fields of `MapStyle`.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong or a layer does not exist.
    """
    given, look = as_list(results), MapStyle(**style)
    tiles = [MapTiles(result, look) for result in given]
    same = len({network_of(result) for result in given}) == 1
    # Methods may have maps of different layers of one network.
    shared = all_layers(given) if same else None
    networks = [shared or result.layers for result in given]
    slots: list[tuple[str, list[int | None]]]
    if layers:
        picked = pick_in_each(networks, layers)
        columns = [
            without_repeats([indices[k] for _, indices in picked]) for k in range(len(given))
        ]
        slots = [("", [column[k] for column in columns]) for k in range(len(picked))]
    else:
        slots = _stages_of(networks)
    length = len(slots)
    heads = [head for head, _ in slots]
    shown = [
        [of[i].label for i in (indices[k] for _, indices in slots) if i is not None]
        for k, of in enumerate(networks)
    ]
    cells = [
        [
            None if i is None else _at(t, of[i].label, of[i].label)
            for t, of, i in zip(tiles, networks, indices, strict=True)
        ]
        for _, indices in slots
    ]
    names = names_of(given) if len(given) > 1 else [short_network(network_of(given[0]))]
    column_heads = [
        f"{name}\n{r.target.name} {value_of(r, word=False)}"
        for name, r in zip(names, given, strict=True)
    ]
    images = _images(tiles)
    rows: list[list[Tile | None]]
    if len(given) > 1 and images[1] is None:
        # One image, beside the maps.
        rows = [[images[0] if k == 0 else None, *row] for k, row in enumerate(cells)]
        column_heads = ["image", *column_heads]
    else:
        rows, heads = [images, *cells], ["image", *heads]
    grid = TileGrid(
        rows,
        look.width,
        row_heads=heads,
        column_heads=column_heads,
        bar=bar_of(_drawn(tiles), look),
    )
    which = f"{length} layers"
    if not layers:
        *others, last = [f"the {head}" for head, _ in slots]
        which = f"{', '.join(others)} and {last} layer" if others else f"{last} layer"
    opening = f"Class activation maps of {which}, in order of execution."
    if same:
        more = f"Layers: {listing(shown[0])}."
    else:
        of_each = zip(names, shown, strict=True)
        more = f"Layers: {'; '.join(f'{name}: {listing(labels)}' for name, labels in of_each)}."
    text = caption(opening, given, more, scale=scale_in_words(_drawn(tiles)))
    return _printed("stages", grid, text)


def _stages_of(
    networks: Sequence[Sequence[LayerInfo]],
) -> list[tuple[str, list[int | None]]]:
    """Return the initial, the middle and the final layer of each network, each layer once.

    A network of two layers has no middle one, one of a single layer a final one only.
    """
    columns: list[tuple[int | None, int | None, int]] = []
    for layers in networks:
        last = len(layers) - 1
        middle = percentile(len(layers), 50)
        columns.append((0 if last else None, middle if 0 < middle < last else None, last))
    rows = zip(("initial", "middle", "final"), zip(*columns, strict=True), strict=True)
    return [(name, list(row)) for name, row in rows if any(i is not None for i in row)]


@register_figure("Matrix", MapStyle, takes="several", varies=("network", "method", "class"))
def matrix(
    results: Result | Sequence[Result],
    *,
    rows: Side = "method",
    columns: Side = "layer",
    layers: PickedLayers = "",
    **style: Any,
) -> PrintedFigure:
    """Draw maps over two of network, method, class and layer, such as method x layer.

    Parameters
    ----------
    results : Result or sequence of Result
        They differ in `rows` and `columns` only; a network may have its own likeliest class.
    rows, columns : {"network", "method", "class", "layer"}
        What differs between the rows, and between the columns.
    layers : str, int or sequence of them
        Layers, by default at 0, 25, 50, 75 and 100 % of the depth; without a side of layers one, by
        default the last.
    **style
        Fields of `MapStyle`.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, a layer does not exist, or results differ in something else.
    """
    given, look = as_list(results), MapStyle(**style)
    if rows == columns:
        raise RenderError(f"Rows and columns are both {rows!r}: choose two different sides.")
    sides = {rows, columns}
    _check_sides(given, sides)
    tiles = [MapTiles(result, look) for result in given]
    over_layers = "layer" in sides
    default = ("0%", "25%", "50%", "75%", "100%") if over_layers else ("100%",)
    same = len({network_of(result) for result in given}) == 1
    shared = all_layers(given) if same else None
    cells: dict[tuple[str, str], Tile] = {}
    names: dict[Side, dict[str, None]] = {rows: {}, columns: {}}
    labels: dict[str, None] = {}
    networks = [shared or result.layers for result in given]
    picked = pick_in_each(networks, layers, default)
    if not over_layers and len(picked) > 1:
        raise RenderError('Several layers need one side of the matrix: set columns="layer".')
    for k, (each, of) in enumerate(zip(tiles, networks, strict=True)):
        result = each.result
        chosen = without_repeats([indices[k] for _, indices in picked])
        for i, (heading, _) in zip(chosen, picked, strict=True):
            if i is None:
                continue
            label = of[i].label
            labels[label] = None
            layer_name = label if same else heading
            facts: dict[Side, str] = {
                "network": short_network(network_of(result)), "method": result.method,
                "class": result.target.name, "layer": layer_name,
            }  # fmt: skip
            key = facts[rows], facts[columns]
            if key in cells:
                raise RenderError(
                    f"Two results have the {rows} {key[0]} and the {columns} {key[1]}: leave one out."
                )
            names[rows][key[0]] = names[columns][key[1]] = None
            cells[key] = _at(each, label, "" if same else label)
    for side in (rows, columns):
        if side == "layer" and not same:
            # In the order of the depth, also where the first network has fewer layers.
            names[side] = {heading: None for heading, _ in picked if heading in names[side]}
    grid = TileGrid(
        [[cells.get((row, column)) for column in names[columns]] for row in names[rows]],
        look.width,
        row_heads=_with_values(rows, list(names[rows]), given),
        column_heads=_with_values(columns, list(names[columns]), given),
        bar=bar_of(_drawn(tiles), look),
    )
    opening = f"Class activation maps by {rows} (rows) and {columns} (columns)."
    more = f"{'Layers' if len(labels) > 1 else 'Layer'}: {listing(labels)}."
    text = caption(opening, given, more, scale=scale_in_words(_drawn(tiles)))
    return _printed("matrix", grid, text)


def _check_sides(results: Sequence[Result], sides: set[Side]) -> None:
    values: dict[Side, set[str]] = {
        "network": {network_of(r) for r in results},
        "method": {r.method for r in results},
        "class": {r.target.name for r in results},
    }
    for side, found in values.items():
        # The likeliest class depends on the network.
        free = side == "class" and "network" in sides
        if side not in sides and len(found) > 1 and not free:
            raise RenderError(
                f"The results differ in the {side} ({listing(sorted(found))}): choose it for rows or "
                "columns, or pass results of one."
            )


def _with_values(side: Side, names: list[str], results: Sequence[Result]) -> list[str]:
    """Return names of classes with their probabilities, if these are the same in all results."""
    if side != "class":
        return names
    values = {
        name: {value_of(r, word=False) for r in results if r.target.name == name} for name in names
    }
    return [f"{n}\n{next(iter(v))}" if len(v) == 1 else n for n, v in values.items()]


@register_figure("Local and global scale", MapStyle)
def local_global(
    result: Result, *, step: Step = 10.0, layers: PickedLayers = "", **style: Any
) -> PrintedFigure:
    """Draw the same maps on their own scales, and on the scale that all layers share.

    Parameters
    ----------
    result : Result
    step : float
        Distance of the layers in percent of the depth.
    layers : str, int or sequence of them
        Layers to show instead, by name, index or percentile.
    **style
        Fields of `MapStyle`; `normalization` has no effect.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong or a layer does not exist.
    """
    look = MapStyle(**style)
    local, common = (replace(look, normalization=n) for n in ("local", "global"))
    if layers:
        places = [(_share(i, result.layers), i) for i in pick(result.layers, layers)]
    else:
        places = percentiles(len(result), step)
    first, second = MapTiles(result, local), MapTiles(result, common)
    labels = [result.layers[i].label for _, i in places]
    rows = [
        [first.map(i) for _, i in places],
        [second.map(i, x, numbered=False) for (_, i), x in zip(places, labels, strict=True)],
    ]
    both = [first.drawn, second.drawn]
    bottom, top = second.stack.limits(0)
    from_zero = starts_at_zero(both)
    low, high = "0" if from_zero else "0 or minimum", "maximum"
    if look.signed:
        low, high = "-max. |value|", "max. |value|"
    grid = TileGrid(
        rows,
        look.width,
        row_heads=("local", "global"),
        column_heads=[_number(share) for share, _ in places],
        bar=replace(
            bar_of([first.drawn], local),
            title=f"{'signed' if look.signed else 'positive'} evidence, local or global scale",
            low=low,
            high=high,
        ),
    )
    raw = f"{top:.3g}" if from_zero else f"{bottom:.3g} to {top:.3g}"
    opening = (
        f"Class activation maps of {len(places)} of {len(result)} layers: above, each on its own scale "
        f"(local); below, all on the scale of all layers (global, {raw} raw)."
    )
    colors = colors_in_words(
        "of each map (above) or of all maps (below)", look, from_zero=from_zero
    )
    scale = [
        first.drawn.plane,
        f"Colours: {colors}.",
        "The number below a map in the upper row is its raw maximum.",
        *marks_in_words(both),
    ]
    more = f"Layers: {listing(labels)}."
    return _printed("local_global", grid, caption(opening, [result], more, scale=scale))


@register_figure("Top-k classes", MapStyle, takes="several", varies=("class",), classes=5)
def classes(
    results: Result | Sequence[Result], *, layers: PickedLayers = "", **style: Any
) -> PrintedFigure:
    """Draw the maps of several classes, from the likeliest to the least likely.

    Parameters
    ----------
    results : Result or sequence of Result
        Of one image, network and method.
    layers : str, int or sequence of them
        Layers, by default the last; a row each.
    **style
        Fields of `MapStyle`.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, a layer does not exist, or results differ in something else.
    """
    given, look = as_list(results), MapStyle(**style)
    given = sorted(given, key=lambda result: -result.probability)
    _check_sides(given, {"class", "layer"})
    tiles = [MapTiles(result, look) for result in given]
    shown = all_layers(given)
    labels = [shown[i].label for i in pick(shown, layers, ("100%",))]
    rows = [
        [tiles[0].image() if k == 0 else None, *(_at(t, label) for t in tiles)]
        for k, label in enumerate(labels)
    ]
    grid = TileGrid(
        rows,
        look.width,
        row_heads=labels if len(labels) > 1 else (),
        column_heads=["image", *(f"{r.target.name}\n{value_of(r, word=False)}" for r in given)],
        bar=bar_of(_drawn(tiles), look),
    )
    unit = given[0].target.unit
    opening = f"Class activation maps of {len(given)} classes in descending order of their {unit}."
    more = f"{'Layers' if len(labels) > 1 else 'Layer'}: {listing(labels)}."
    text = caption(opening, given, more, scale=scale_in_words(_drawn(tiles)))
    return _printed("classes", grid, text)


@register_figure("Counterfactual", MapStyle, takes="pair")
def counterfactual(
    result: Result, counter_result: Result, *, layers: PickedLayers = "", **style: Any
) -> PrintedFigure:
    """Draw evidence for the class beside evidence against it.

    Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.3.

    Parameters
    ----------
    result, counter_result : Result
        Of the same image, network and class; the second with ``counterfactual=True``.
    layers : str, int or sequence of them
        Layers, by default the last; a row each.
    **style
        Fields of `MapStyle`.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, a layer does not exist, or the results are not such a pair.
    """
    look = MapStyle(**style)
    flags = [bool(r.provenance.get("counterfactual")) for r in (result, counter_result)]
    if flags != [False, True]:
        raise RenderError(
            "A counterfactual figure shows a result and its counterfactual: compute the second with "
            "counterfactual=True."
        )
    pair = [result, counter_result]
    if len({(network_of(r), r.method) for r in pair}) > 1:
        raise RenderError("The results are of different networks or methods: pass those of one.")
    name = result.target.name
    # As `camanim.targets.Counterfactual` names it.
    against = counter_result.target.name.removesuffix(" (counterfactual)")
    if against != name or counter_result.target.index != result.target.index:
        raise RenderError(
            f"The results are for {name} and against {against}: compute both of one target."
        )
    if not np.array_equal(result.image, counter_result.image):
        raise RenderError("The results are of different images: compute both of one image.")
    tiles = [MapTiles(r, look) for r in pair]
    shown = all_layers(pair)
    labels = [shown[i].label for i in pick(shown, layers, ("100%",))]
    rows = [
        [tiles[0].image() if k == 0 else None, *(_at(t, label, label) for t in tiles)]
        for k, label in enumerate(labels)
    ]
    grid = TileGrid(
        rows,
        look.width,
        column_heads=["image", f"for {name}", f"against {name}"],
        bar=bar_of(_drawn(tiles), look),
    )
    opening = (
        f"Evidence for the class {name} and against it: maps of the score and of the negated score."
    )
    more = f"{'Layers' if len(labels) > 1 else 'Layer'}: {listing(labels)}."
    text = caption(opening, pair, more, scale=scale_in_words(_drawn(tiles)))
    return _printed("counterfactual", grid, text)


@register_figure(
    "Maps and guided maps",
    MapStyle,
    takes="several",
    varies=("method",),
    methods=("CAM", "GradCAM", "GradCAM++", "Guided backpropagation"),
)
def guided(
    results: Result | Sequence[Result], *, layers: PickedLayers = "", **style: Any
) -> PrintedFigure:
    """Draw maps of several methods above their products with the guided gradient of the image.

    The product of GradCAM is Guided Grad-CAM: Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.2.

    Parameters
    ----------
    results : Result or sequence of Result
        Of one image, network and class, by several methods; one of them has a guided gradient
        (`Result.guided`), as of the method ``"Guided backpropagation"``.
    layers : str, int or sequence of them
        One layer, by default the last one of which all methods have a map.
    **style
        Fields of `MapStyle`.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    CamError
        If a setting is wrong, the layer does not exist, or no result has a guided gradient.
    """
    given, look = as_list(results), MapStyle(**style)
    _check_sides(given, {"method", "layer"})
    if any(result.geometry != given[0].geometry for result in given):
        raise RenderError(
            "The results have different inputs of the network: compute all methods for one image, and "
            "pass volumes rather than planes of them."
        )
    with_gradient = [result for result in given if result.guided is not None]
    plain = [result for result in given if result.guided is None]
    if not with_gradient or not plain:
        raise RenderError(
            "A guided figure needs results with and without a guided gradient: add the method "
            '"Guided backpropagation", and others such as "GradCAM".'
        )
    shared = [
        layer
        for layer in all_layers(plain)
        if all(index_of(result, layer.label) is not None for result in plain)
    ]
    if not shared:
        raise RenderError(
            "No layer has a map by every method: leave out the method with fewest maps."
        )
    chosen = pick(shared, layers, ("100%",))
    if len(chosen) > 1:
        raise RenderError("A guided figure shows one layer: name one.")
    label = shared[chosen[0]].label
    gradient = _summed(with_gradient[0])
    tiles = [MapTiles(result, look) for result in plain]
    upper: list[Tile | None] = [tiles[0].image(), *(_at(t, label) for t in tiles)]
    lower: list[Tile | None] = [
        _gradient_tile(with_gradient[0], gradient, look, with_gradient[0].method)
    ]
    for result in plain:
        i = index_of(result, label)
        assert i is not None
        product = gradient * relevance(result.maps[i], gradient.shape)
        lower.append(_gradient_tile(result, product, look, f"guided {result.method}"))
    grid = TileGrid(
        [upper, lower],
        look.width,
        row_heads=("maps", "guided"),
        column_heads=["image", *(result.method for result in plain)],
        bar=bar_of(_drawn(tiles), look),
    )
    opening = (
        f"Class activation maps of the layer {label} (above), and the guided gradient of the image, "
        "summed over its channels, alone and times the positive part of each map (below; grey is 0, "
        "white positive, black negative)."
    )
    more = (
        "Guided maps highlight edges, and are similar for untrained networks (Adebayo et al. 2018)."
    )
    text = caption(opening, given, more, scale=scale_in_words(_drawn(tiles)))
    return _printed("guided", grid, text)


def _summed(result: Result) -> npt.NDArray[np.float32]:
    """Return the guided gradient summed over the channels, (H, W) or (D, H, W)."""
    assert result.guided is not None
    summed: npt.NDArray[np.float32] = (
        result.guided.detach().cpu().numpy().sum(axis=1).astype(np.float32)
    )
    # The first axis is that of the slices if a 2-D network explained a volume.
    if summed.ndim > len(result.geometry.size) and len(summed) == 1:
        summed = summed[0]
    if summed.shape != result.geometry.size:
        raise RenderError(
            "The guided gradient is that of a whole volume: pass the result of the volume, and choose "
            "the plane with z."
        )
    return summed


def _gradient_tile(
    result: Result, values: npt.NDArray[np.float32], style: MapStyle, label: str
) -> Tile:
    """Return a tile of signed values of the size of the network's input: grey is 0."""
    # A volume's plane is that of its maps.
    plane = take_plane(replace(result, maps=[values], layers=result.layers[:1]), style.z)
    shown = plane.maps[0]
    # One pixel in two hundred may be beyond black and white.
    limit = float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max()) or 1.0
    levels = np.clip(0.5 + 0.5 * shown / limit, 0, 1).astype(np.float32)
    height, width = plane.image.shape[:2]
    grey = np.full((height, width), 128, np.uint8)

    def picture(size: int) -> npt.NDArray[np.uint8]:
        return Overlay(grey, plane.geometry, size, lookup_table("gray"), 1.0).picture(levels)

    return Tile(picture, height / width, label=label)
