"""``camanim what-if``: replace a region of an image, and compare the probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Column, Table

import camanim
from camanim.cli import options
from camanim.cli.masks import read_mask
from camanim.editing import Replacement, box_mask
from camanim.models.overrides import ModelOverrides
from camanim.progress import console
from camanim.settings import Settings
from camanim.writing import checked_path

if TYPE_CHECKING:
    from camanim.editing import Effect, WhatIf


@options.with_options(
    options.EDIT_OPTIONS,
    (options.NETWORK_OPTIONS, options.INPUT_OPTIONS, options.REPLACEMENT_OPTIONS),
)
def what_if(image: Path, **arguments: Any) -> None:
    """Replace a region of an image, and print the probabilities before and after.

    Example: camanim what-if cat.jpg --model torchvision/mobilenet_v2 --box 40,200,200,400 --by blur
    """
    # All arguments are checked before the computation.
    out = arguments["out"]
    if out is not None:
        suffix = out.suffix.lower()
        checked_path(out, suffix if suffix in (".png", ".tif") else ".png")
    if (arguments["mask"] is None) == (arguments["box"] is None):
        raise typer.BadParameter("Give the region by --mask or --box.")
    if arguments["mask"] is None and arguments["mask_label"] is not None:
        raise typer.BadParameter("--mask-label needs --mask.")
    overrides = options.NETWORK_OPTIONS.values(arguments)
    settings = options.INPUT_OPTIONS.values(arguments)
    replacement = options.REPLACEMENT_OPTIONS.values(arguments)
    ModelOverrides(**overrides)
    Settings(**settings)
    Replacement(**replacement)
    box = None if arguments["box"] is None else options.numbers(arguments["box"])
    pixels = camanim.open_image(image)
    mask = None if arguments["mask"] is None else read_mask(arguments["mask"])
    with console() as progress:
        model = camanim.load_model(
            arguments["model"],
            None if arguments["weights"].lower() == "none" else arguments["weights"],
            **overrides,
            trust=arguments["trust"],
            progress=progress,
        )
        edited = camanim.WhatIf.of_image(
            model, pixels, target=arguments["target"], **settings, progress=progress
        )
        if out is not None:
            checked_path(out, edited.image_suffix(out))
        region = mask if box is None else box_mask(edited.shape, box)
        effect = edited.edit(
            region, label=arguments["mask_label"], progress=progress, **replacement
        )
    files = [] if out is None else [edited.write_image(out)]
    _report(edited, effect, files)


def _report(edited: WhatIf, effect: Effect, files: list[Path]) -> None:
    """Print the classes before and after, the edit, notes and the paths of written files."""
    out = Console(soft_wrap=True, highlight=False)
    if effect.classes:
        table = Table(Column(effect.measure, overflow="fold"), "before", "after")
        for each in effect.classes:
            table.add_row(each.name, f"{each.before:.3f}", f"{each.after:.3f}")
        Console().print(table)
    lines = [
        effect.summary(),
        *(f"Replaced by {edit}." for edit in edited.edits),
        *edited.notes,
        *(f"Wrote {path.resolve()}" for path in files),
    ]
    for line in lines:
        out.print(line, markup=False)
