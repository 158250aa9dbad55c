"""``camanim predict``: the most probable classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import camanim
from camanim.cli import options
from camanim.cli.inputs import load_network, read_pixels
from camanim.cli.naming import input_paths
from camanim.cli.terminal import print_json, print_table, say_error
from camanim.errors import CamError
from camanim.models.overrides import ModelOverrides
from camanim.progress import IMAGES, console
from camanim.settings import Settings

if TYPE_CHECKING:
    from camanim.models import Model


@options.with_options(
    "pictures",
    (*options.SOURCE, "top", *options.PRINTED),
    (options.NETWORK_OPTIONS, options.PREDICT_OPTIONS),
)
def predict(pictures: list[str], **arguments: Any) -> None:
    """Print the most probable classes of images, by one forward pass and without maps.

    Example: camanim predict "cats/*.jpg" --model torchvision/mobilenet_v2 --top 3
    """
    paths = input_paths(pictures)
    settings = options.PREDICT_OPTIONS.values(arguments)
    ModelOverrides(**options.NETWORK_OPTIONS.values(arguments))
    Settings(**settings)
    records: list[dict[str, Any]] = []
    errors: list[CamError] = []
    try:
        with console(quiet=arguments["quiet"]) as progress:
            model = load_network(arguments, progress)
            if settings["device"] is not None:
                model = model.to(settings["device"])
            for i, path in enumerate(paths):
                progress(IMAGES, i, len(paths))
                try:
                    classes = _classes(model, path, settings, arguments["top"])
                except CamError as error:
                    errors.append(error)
                    records.append({"image": str(path), "error": str(error)})
                else:
                    records.append({"image": str(path), "classes": classes})
            progress(IMAGES, len(paths), len(paths))
    except KeyboardInterrupt:
        if records or arguments["as_json"]:
            _print(records, as_json=arguments["as_json"], single=len(paths) == 1)
        say_error(f"interrupted after {len(records)} of {len(paths)} images.")
        raise typer.Exit(130) from None
    if len(paths) == 1 and errors and not arguments["as_json"]:
        raise errors[0]
    _print(records, as_json=arguments["as_json"], single=len(paths) == 1)
    if errors:
        say_error(f"{len(errors)} of {len(paths)} images failed.")
        raise typer.Exit(1)


def _classes(model: Model, path: Path, settings: dict[str, Any], top: int) -> list[dict[str, Any]]:
    image = read_pixels(path)
    if settings["box"] is not None:
        space = 3 if settings["slices"] else model.dims
        image = camanim.take_region(image, settings["box"], space).pixels
    keywords = {name: settings[name] for name in ("fit", "window", "slices")}
    return [
        {"index": entry.index, "name": entry.name, "probability": entry.probability}
        for entry in model.predict(image, top, **keywords)
    ]


def _print(records: list[dict[str, Any]], *, as_json: bool, single: bool) -> None:
    if as_json:
        print_json(records)
        return
    if single:
        classes = records[0].get("classes", [])
        rows = [[c["name"], f"{c['probability']:.3f}", str(c["index"])] for c in classes]
        print_table(["class", "probability", "index"], rows)
        return
    ranked = {
        record["image"]: [f"{c['name']} {c['probability']:.3f}" for c in record.get("classes", [])]
        for record in records
    }
    errors = {record["image"]: record["error"] for record in records if "error" in record}
    most = max(map(len, ranked.values()), default=0)
    headings = ["image", *map(str, range(1, most + 1)), *(["error"] if errors else [])]
    rows = [
        [image, *texts, *[""] * (most - len(texts)), *([errors.get(image, "")] if errors else [])]
        for image, texts in ranked.items()
    ]
    print_table(headings, rows, prose=("error",))
