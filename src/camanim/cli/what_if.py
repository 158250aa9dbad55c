"""``camanim what-if``: replace a region of an image, and compare the probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import camanim
from camanim.cli import options
from camanim.cli.inputs import load_network, read_pixels
from camanim.cli.masks import read_mask
from camanim.cli.naming import check_kept, input_files
from camanim.cli.terminal import print_table, say
from camanim.editing import Replacement, box_mask
from camanim.models.overrides import ModelOverrides
from camanim.progress import console
from camanim.settings import Settings
from camanim.writing import checked_path

if TYPE_CHECKING:
    from camanim.editing import Effect, WhatIf


@options.with_options(
    "image",
    (*options.SOURCE, "target", "mask", "mask_label", "out", "quiet"),
    (
        options.NETWORK_OPTIONS,
        options.INPUT_OPTIONS,
        options.BOX_OPTION,
        options.REPLACEMENT_OPTIONS,
    ),
)
def what_if(image: Path, **arguments: Any) -> None:
    """Replace a region of an image, and print the probabilities before and after.

    Example: camanim what-if cat.jpg --model torchvision/mobilenet_v2 --box 40,200,200,400 --by blur
    """
    # All arguments are checked before the computation.
    out = arguments["out"]
    check_kept(input_files(arguments, [image]), [out])
    if out is not None:
        suffix = out.suffix.lower()
        checked_path(out, suffix if suffix in (".png", ".tif") else ".png")
    if (arguments["mask"] is None) == (arguments["box"] is None):
        raise typer.BadParameter("Give the region by --mask or --box.")
    if arguments["mask"] is None and arguments["mask_label"] is not None:
        raise typer.BadParameter("--mask-label needs --mask.")
    settings = options.INPUT_OPTIONS.values(arguments)
    replacement = options.REPLACEMENT_OPTIONS.values(arguments)
    ModelOverrides(**options.NETWORK_OPTIONS.values(arguments))
    Settings(**settings)
    Replacement(**replacement)
    box = options.BOX_OPTION.values(arguments)["box"]
    pixels = read_pixels(image)
    mask = None if arguments["mask"] is None else read_mask(arguments["mask"])
    with console(quiet=arguments["quiet"]) as progress:
        model = load_network(arguments, progress)
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
    if effect.classes:
        rows = [[c.name, f"{c.before:.3f}", f"{c.after:.3f}"] for c in effect.classes]
        print_table([effect.measure, "before", "after"], rows)
    say(
        effect.summary(),
        *(f"Replaced by {edit}." for edit in edited.edits),
        *edited.notes,
        *(f"Wrote {path.resolve()}" for path in files),
    )
