"""``camanim compare``: explain one image with several networks or methods, and compare the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import typer

import camanim
from camanim.cam_methods import find_method
from camanim.cli import options
from camanim.cli.findings import compute, parse_requests
from camanim.cli.inputs import read_pixels
from camanim.cli.masks import read_mask
from camanim.cli.naming import check_kept, check_place, input_files
from camanim.cli.terminal import notes_of, print_json, print_table, result_record, say
from camanim.comparison import comparison_table, overlaid, write_comparison
from camanim.errors import MethodError, ScoreError
from camanim.findings import FindingRequest, short
from camanim.progress import IMAGES, console
from camanim.render.plots import write_described
from camanim.result import Result
from camanim.settings import Settings
from camanim.writing import checked_path


@options.with_options(
    "image",
    (
        *options.SOURCE, "method", "target", *options.SCORES, "table", "plot", "plot_key",
        *options.PRINTED,
    ),
    (options.RUN_OPTIONS,),
    repeated=("model", "method"),
)  # fmt: skip
def compare(image: Path, **arguments: Any) -> None:
    """Explain one image with several networks or methods, each with each, and compare the results.

    --model and --method can be repeated. An --option is passed to the methods that have it.

    Example: camanim compare cat.jpg --model torchvision/mobilenet_v2 --method GradCAM --method LayerCAM
    --road --plot scores.png
    """
    table, plot, plot_key = (arguments[name] for name in ("table", "plot", "plot_key"))
    masked = arguments["mask"] is not None
    requests = parse_requests(
        arguments["find"], arguments["measure"], mask=masked, checks=arguments["checks"]
    )
    if arguments["road"]:
        requests.append(FindingRequest("road"))
    if not masked and arguments["mask_label"] is not None:
        raise typer.BadParameter("--mask-label needs --mask.")
    check_kept(input_files(arguments, [image]), [table, plot])
    if table is not None:
        checked_path(table, ".csv")
    if plot is not None:
        check_place("plot", plot)
        if plot_key.partition(" ")[0] not in [r.name for r in requests] and not arguments["find"]:
            raise typer.BadParameter(f"--plot shows {plot_key}: add --road, --mask or --find.")
    settings = options.RUN_OPTIONS.values(arguments)
    Settings(**settings)
    sources = arguments["model"] or [options.EXTRA_OPTIONS["model"].default]
    methods = arguments["method"] or [options.EXTRA_OPTIONS["method"].default]
    method_options = _options_of(methods, settings.pop("options"))
    weights = None if arguments["weights"].lower() == "none" else arguments["weights"]
    pixels = read_pixels(image)
    labels = read_mask(arguments["mask"]) if masked else None
    results: dict[str, Result] = {}
    problems: list[str] = []
    announced = set(map(str, requests)) if arguments["quiet"] else set()
    with console(quiet=arguments["quiet"]) as progress:
        loaded = {
            name: camanim.load_model(name, weights, trust=arguments["trust"], progress=progress)
            for name in sources
        }
        runs = list(product(loaded.items(), methods))
        for i, ((source, network), by) in enumerate(runs):
            progress(IMAGES, i, len(runs))
            animation = camanim.animate(
                network,
                pixels,
                method=by,
                target=arguments["target"],
                options=method_options[by],
                **settings,
                progress=progress,
            )
            name = _name(source, by, several=(len(loaded) > 1, len(methods) > 1))
            given = {
                "mask": labels,
                "label": arguments["mask_label"],
                "seed": settings["seed"],
                "progress": progress,
            }
            problems += [
                f"{name}: {text}" for text in compute(animation, requests, given, announced)
            ]
            results[name] = animation
        progress(IMAGES, len(runs), len(runs))
    files = []
    if table is not None:
        files.append(write_comparison(results, table))
    if plot is not None:
        files.append(write_described(overlaid(results, plot_key), plot))
    if arguments["as_json"]:
        print_json(
            {
                "runs": [{"name": n, **result_record(r)} for n, r in results.items()],
                "files": [str(path.resolve()) for path in files],
                "errors": problems,
            }
        )
    else:
        _print(results)
        say(*notes_of(results), *(f"Wrote {path.resolve()}" for path in files))
    if problems:
        raise ScoreError(" ".join(problems))


def _options_of(methods: Sequence[str], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of each method, of those that are given.

    Raises
    ------
    MethodError
        If no method has an option.
    """
    taken = {
        name: {key: value for key, value in given.items() if key in find_method(name).options}
        for name in methods
    }
    for key in given:
        if not any(key in chosen for chosen in taken.values()):
            raise MethodError(
                f"None of {', '.join(methods)} has an option {key!r}: see camanim methods NAME."
            )
    return taken


def _name(source: str, method: str, *, several: tuple[bool, bool]) -> str:
    parts = [part for part, shown in zip((source, method), several, strict=True) if shown]
    return ", ".join(parts) or method


def _print(results: dict[str, Result]) -> None:
    rows: list[dict[str, Any]] = comparison_table(results)
    print_table(list(rows[0]), [[short(value) for value in row.values()] for row in rows])
