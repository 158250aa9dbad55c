"""``camanim layers``: every call of every module of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import camanim
from camanim.cli import options
from camanim.cli.inputs import load_network, read_pixels
from camanim.cli.terminal import print_json, print_table, say
from camanim.images import Preprocess
from camanim.layer_selection import selector
from camanim.models.base import unwrap
from camanim.models.overrides import ModelOverrides
from camanim.progress import console
from camanim.settings import Settings

if TYPE_CHECKING:
    import numpy.typing as npt

    from camanim.models import Model

#: Sides of the grey image for networks that take images of any size, by the number of axes.
_SIDES = {2: 224, 3: 64}


@options.with_options(
    "network",
    ("weights", "trust", "image", "method", "target", "filter", *options.PRINTED),
    (options.NETWORK_OPTIONS, options.LAYER_OPTIONS),
)
def layers(network: str, **arguments: Any) -> None:
    """List all calls of all modules of a network, in order of execution, and which get a map.

    The network is run once, on --image or on a grey image.

    Example: camanim layers torchvision/mobilenet_v2 --filter Conv2d
    """
    settings = options.LAYER_OPTIONS.values(arguments)
    ModelOverrides(**options.NETWORK_OPTIONS.values(arguments))
    Settings(**settings)
    image = None if arguments["image"] is None else read_pixels(arguments["image"])
    with console(quiet=arguments["quiet"]) as progress:
        model = load_network(arguments, progress, source=network)
        note = ""
        if image is None:
            image = _grey(model)
            sides = " x ".join(map(str, image.shape[: model.dims]))
            note = f"Shapes are those of a grey image of {sides} pixels; --image names another."
        selected = selector(arguments["filter"] or "all", unwrap(model.net))
        animation = camanim.animate(
            model,
            image,
            method=arguments["method"],
            target=arguments["target"],
            layers="all",
            **settings,
            progress=progress,
        )
    rows = [row for row, call in zip(animation.table(), animation.layer_calls, strict=True)
            if selected(call)]  # fmt: skip
    labels = {call.index: call.label for call in animation.layer_calls}
    if arguments["as_json"]:
        print_json([_record(row) for row in rows])
        return
    print_table(
        ["layer", "kind", "output", "parameters", "layout", "map"],
        [
            [
                labels[row["index"]],
                row["kind"],
                row["output shape"] or "",
                f"{row['parameters']:,}",
                row["layout"] or "",
                "yes" if row["status"] == "ok" else f"no: {row['status']}",
            ]
            for row in rows
        ],
    )
    mapped = sum(row["status"] == "ok" for row in rows)
    say(f"{len(rows)} of {len(animation.layer_calls)} calls, {mapped} with a map.")
    say(*filter(None, [note, *animation.notes]))


def _record(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("index", "name", "call", "kind", "output shape", "layout", "parameters", "status")
    return {key: row[key] for key in kept} | {"map": row["status"] == "ok"}


def _grey(model: Model) -> npt.NDArray[np.uint8]:
    """Return a grey image of the size of the network's input."""
    prep = model.preprocess
    size = prep.size if isinstance(prep, Preprocess) else None
    sides = tuple(size) if size is not None else (_SIDES[model.dims],) * model.dims
    if isinstance(prep, Preprocess) and prep.channels not in (1, 3):
        sides = (*sides, prep.channels)
    return np.full(sides, 128, np.uint8)
