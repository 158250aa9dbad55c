"""``camanim run``: explain one image."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

import camanim
from camanim.animation import Normalization
from camanim.cli.report import listing, report
from camanim.images import Fit
from camanim.progress import console
from camanim.writing import checked_path

Quality = Literal["standard", "high"]
Outputs = Literal["auto", "softmax", "sigmoid", "values"]
Precision = Literal["float32", "bfloat16", "float16"]

NETWORK, EXPLAIN, SCORE, OUTPUT = "The network", "What is explained, and how", "Scores", "Output"


def run(
    image: Annotated[Path, typer.Argument(help="The image file.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            help="A name of `camanim models`, a card (.toml), a MONAI bundle's folder, an exported "
            "network (.pt2) or Python code (file.py:build).",
            rich_help_panel=NETWORK,
        ),
    ] = "demo/ultrasound",
    weights: Annotated[
        str,
        typer.Option(
            help="DEFAULT, a torchvision name, a file, or 'none' for random ones.",
            rich_help_panel=NETWORK,
        ),
    ] = "DEFAULT",
    classes: Annotated[
        Path | None,
        typer.Option(help="File with the classes' names, one a line.", rich_help_panel=NETWORK),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Input size, such as 224, 224,320 or native.", rich_help_panel=NETWORK),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Such as 0.5 or 0.4,0.4,0.3.", rich_help_panel=NETWORK)
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Such as 0.5 or 0.2,0.2,0.3.", rich_help_panel=NETWORK)
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Channels of the input.", rich_help_panel=NETWORK)
    ] = None,
    outputs: Annotated[
        Outputs | None,
        typer.Option(help="What the network's scores are.", rich_help_panel=NETWORK),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Such as cuda, mps or cpu.", rich_help_panel=NETWORK)
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Of autocast.", rich_help_panel=NETWORK)
    ] = "float32",
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Allow the network's files to run code.", rich_help_panel=NETWORK
        ),
    ] = False,
    save_card: Annotated[
        Path | None,
        typer.Option(
            help="Write down the network and its settings here (.toml).", rich_help_panel=NETWORK
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(help="A method of `camanim methods`.", rich_help_panel=EXPLAIN)
    ] = "GradCAM",
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="Of the method, such as channels=64; may be given several times.",
            rich_help_panel=EXPLAIN,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Class to explain, by number or name, or 'A - B'; else the likeliest.",
            rich_help_panel=EXPLAIN,
        ),
    ] = None,
    counterfactual: Annotated[
        bool,
        typer.Option("--counterfactual", help="Explain minus the score.", rich_help_panel=EXPLAIN),
    ] = False,
    eigen_smooth: Annotated[
        bool,
        typer.Option(
            "--eigen-smooth",
            help="First principal component of what the channels contribute.",
            rich_help_panel=EXPLAIN,
        ),
    ] = False,
    augment: Annotated[
        bool,
        typer.Option(
            "--augment", help="Mean over six variants of the image.", rich_help_panel=EXPLAIN
        ),
    ] = False,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="unique (default), all, blocks, a name, a glob (features.*), a kind (Conv2d); "
            "may be given several times.",
            rich_help_panel=EXPLAIN,
        ),
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            help="How a layer's output is read, such as 'blocks.*=tokens:1'; may be given several "
            "times.",
            rich_help_panel=EXPLAIN,
        ),
    ] = None,
    show_1d: Annotated[
        bool,
        typer.Option(
            "--show-1d", help="Show layers without space as stripes.", rich_help_panel=EXPLAIN
        ),
    ] = False,
    slices: Annotated[
        bool,
        typer.Option(
            "--slices",
            help="A 2-D network explains every slice of a volume.",
            rich_help_panel=EXPLAIN,
        ),
    ] = False,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images per forward pass.", rich_help_panel=EXPLAIN)
    ] = 16,
    fit: Annotated[
        Fit,
        typer.Option(help="How the image meets the network's input size.", rich_help_panel=EXPLAIN),
    ] = "stretch",
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Intensities that become black and white.",
            show_default=False,
            rich_help_panel=EXPLAIN,
        ),
    ] = None,
    road: Annotated[
        bool, typer.Option("--road", help="Score every layer with ROAD.", rich_help_panel=SCORE)
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Of random methods and of ROAD.", rich_help_panel=SCORE)
    ] = 0,
    movie: Annotated[
        Path | None,
        typer.Option(
            help="Write the movie here (.mp4).", show_default=False, rich_help_panel=OUTPUT
        ),
    ] = None,
    z: Annotated[
        int | None,
        typer.Option(
            help="Plane of a volume that the movie shows; else the middle.", rich_help_panel=OUTPUT
        ),
    ] = None,
    normalization: Annotated[
        Normalization,
        typer.Option(
            help="Each layer on a scale of its own, or all on one.", rich_help_panel=OUTPUT
        ),
    ] = "local",
    signed: Annotated[
        bool,
        typer.Option(
            "--signed",
            help="Show negative evidence too, in diverging colours.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    fps: Annotated[
        float,
        typer.Option(
            min=0.01, max=1000, help="Frames a second of the movie.", rich_help_panel=OUTPUT
        ),
    ] = 5,
    quality: Annotated[
        Quality, typer.Option(help="Of the movie.", rich_help_panel=OUTPUT)
    ] = "standard",
    table: Annotated[
        Path | None,
        typer.Option(
            help="Write one row per layer here (.csv).", show_default=False, rich_help_panel=OUTPUT
        ),
    ] = None,
) -> None:
    """Explain one image: the maps of all layers, their ROAD scores, a movie, a table.

    Without --table the layers are listed on the terminal.

    Example: camanim run cat.jpg --model torchvision/mobilenet_v2 --road --movie cat.mp4
    """
    for path, suffix in ((movie, ".mp4"), (table, ".csv"), (save_card, ".toml")):
        if path is not None:
            # Before the work, not after it.
            checked_path(path, suffix)
    pixels = camanim.read_image(image)
    with console() as progress:
        loaded = camanim.load_model(
            model,
            None if weights.lower() == "none" else weights,
            classes=classes,
            size=_size(size),
            mean=_numbers(mean, "--mean"),
            std=_numbers(std, "--std"),
            channels=channels,
            outputs=outputs,
            trust=trust,
            progress=progress,
        )
        animation = camanim.animate(
            loaded,
            pixels,
            method=method,
            options={key: _value(text) for key, text in _pairs(option, "--option")},
            target=target,
            counterfactual=counterfactual,
            eigen_smooth=eigen_smooth,
            augment=augment,
            layers=layers or "unique",
            layouts=dict(_pairs(layout, "--layout")),
            show_1d=show_1d,
            slices=slices,
            batch_size=batch_size,
            fit=fit,
            window=window,
            device=device,
            precision=precision,
            seed=seed,
            progress=progress,
        )
        if road:
            animation.score(seed, progress=progress)
        if movie is not None:
            animation.write_movie(
                movie,
                normalization=normalization,
                signed=signed,
                fps=fps,
                quality=quality,
                z=z,
                progress=progress,
            )
    if save_card is not None:
        loaded.save_card(save_card)
    if table is not None:
        animation.write_table(table)
    else:
        Console().print(listing(animation))
    report(animation, [path for path in (movie, table, save_card) if path is not None])


def _pairs(texts: list[str] | None, of: str) -> list[tuple[str, str]]:
    for text in texts or ():
        if "=" not in text:
            raise typer.BadParameter(f"{of} is key=value, not {text!r}.")
    return [(key, value) for key, _, value in (text.partition("=") for text in texts or ())]


def _value(text: str) -> Any:
    """Read an option's value as Python writes it; whatever is no literal is a text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _numbers(text: str | None, of: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{of} is numbers with commas between, not {text!r}.") from error


def _size(text: str | None) -> list[int] | int | str | None:
    if text is None or text == "native":
        return text
    numbers = [int(number) for number in _numbers(text, "--size") or ()]
    return numbers if len(numbers) > 1 else numbers[0]
