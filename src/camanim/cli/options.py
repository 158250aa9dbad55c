"""The options of ``camanim run``: what each is called, takes, and says in the help."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from camanim.images import Fit
from camanim.stack import Normalization

NETWORK, EXPLAIN, SCORE, OUTPUT = "The network", "What is explained, and how", "Scores", "Output"


def _option(panel: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Image = Annotated[Path, typer.Argument(help="The image file.", show_default=False)]

# -- The network -----------------------------------------------------------------------------------

Network = Annotated[
    str,
    _option(
        NETWORK,
        "A name of `camanim models`, a card (.toml), a MONAI bundle's folder, an exported "
        "network (.pt2) or Python code (file.py:build).",
    ),
]
Weights = Annotated[
    str, _option(NETWORK, "DEFAULT, a torchvision name, a file, or 'none' for random ones.")
]
Classes = Annotated[Path | None, _option(NETWORK, "File with the classes' names, one a line.")]
Size = Annotated[str | None, _option(NETWORK, "Input size, such as 224, 224,320 or native.")]
Mean = Annotated[str | None, _option(NETWORK, "Such as 0.5 or 0.4,0.4,0.3.")]
Std = Annotated[str | None, _option(NETWORK, "Such as 0.5 or 0.2,0.2,0.3.")]
Channels = Annotated[int | None, _option(NETWORK, "Channels of the input.")]
Outputs = Annotated[
    Literal["auto", "softmax", "sigmoid", "values"] | None,
    _option(NETWORK, "What the network's scores are."),
]
Device = Annotated[str | None, _option(NETWORK, "Such as cuda, mps or cpu.")]
Precision = Annotated[Literal["float32", "bfloat16", "float16"], _option(NETWORK, "Of autocast.")]
Trust = Annotated[bool, _option(NETWORK, "Allow the network's files to run code.", "--trust")]
SaveCard = Annotated[
    Path | None, _option(NETWORK, "Write down the network and its settings here (.toml).")
]

# -- What is explained, and how --------------------------------------------------------------------

Method = Annotated[str, _option(EXPLAIN, "A method of `camanim methods`.")]
MethodOptions = Annotated[
    list[str] | None,
    _option(
        EXPLAIN,
        "Of the method, such as channels=64; may be given several times.",
        "--option",
        "-o",
    ),
]
Target = Annotated[
    str | None,
    _option(EXPLAIN, "Class to explain, by number or name, or 'A - B'; else the likeliest."),
]
Counterfactual = Annotated[bool, _option(EXPLAIN, "Explain minus the score.", "--counterfactual")]
EigenSmooth = Annotated[
    bool,
    _option(
        EXPLAIN, "First principal component of what the channels contribute.", "--eigen-smooth"
    ),
]
Augment = Annotated[bool, _option(EXPLAIN, "Mean over six variants of the image.", "--augment")]
Layers = Annotated[
    list[str] | None,
    _option(
        EXPLAIN,
        "unique (default), all, blocks, a name, a glob (features.*), a kind (Conv2d); may be "
        "given several times.",
    ),
]
Layout = Annotated[
    list[str] | None,
    _option(
        EXPLAIN,
        "How a layer's output is read, such as 'blocks.*=tokens:1'; may be given several times.",
    ),
]
Show1d = Annotated[bool, _option(EXPLAIN, "Show layers without space as stripes.", "--show-1d")]
Slices = Annotated[
    bool, _option(EXPLAIN, "A 2-D network explains every slice of a volume.", "--slices")
]
BatchSize = Annotated[int, _option(EXPLAIN, "Images per forward pass.", min=1)]
FitImage = Annotated[Fit, _option(EXPLAIN, "How the image meets the network's input size.")]
Window = Annotated[
    tuple[float, float] | None,
    _option(EXPLAIN, "Intensities that become black and white.", show_default=False),
]

# -- Scores ----------------------------------------------------------------------------------------

ScoreRoad = Annotated[bool, _option(SCORE, "Score every layer with ROAD.", "--road")]
Repeats = Annotated[
    int, _option(SCORE, "Times that ROAD is repeated with other seeds; the spread needs 2.", min=1)
]
NoBaseline = Annotated[bool, _option(SCORE, "Leave out what chance would score.", "--no-baseline")]
Draws = Annotated[
    int, _option(SCORE, "Random maps of each resolution, for what chance scores.", min=2)
]
Checks = Annotated[
    bool,
    _option(
        SCORE,
        "Check the method: randomise the network from its output backwards, and explain other "
        "classes.",
        "--checks",
    ),
]
Mask = Annotated[
    Path | None,
    _option(
        SCORE,
        "Compare every layer's map with this mask, an image file as large as the image.",
        show_default=False,
    ),
]
MaskLabel = Annotated[
    int | None, _option(SCORE, "Value of the mask that counts; else all but 0.", show_default=False)
]
Measures = Annotated[
    list[str] | None,
    _option(
        SCORE,
        "deletion, insertion, drop or increase, with blur, or as deletion:mean or deletion:road; "
        "may be given several times.",
        "--measure",
    ),
]
Findings = Annotated[
    list[str] | None,
    _option(
        SCORE,
        "A finding of `camanim findings`, with settings as in road:repeats=3,draws=16; may be given "
        "several times.",
        "--find",
    ),
]
PlotFile = Annotated[
    Path | None,
    _option(SCORE, "Write a plot here (.png, .pdf, .svg).", "--plot", show_default=False),
]
PlotKind = Annotated[
    str,
    _option(SCORE, "What the plot shows: scores, or a plot of a finding: removal, randomisation."),
]
Seed = Annotated[int, _option(SCORE, "Of random methods, of ROAD and of the checks.", min=0)]

# -- Output ----------------------------------------------------------------------------------------

Movie = Annotated[Path | None, _option(OUTPUT, "Write the movie here (.mp4).", show_default=False)]
Plane = Annotated[
    int | None, _option(OUTPUT, "Plane of a volume that the movie shows; else the middle.", "--z")
]
Scale = Annotated[
    Normalization, _option(OUTPUT, "Each layer on a scale of its own, or all on one.")
]
Signed = Annotated[
    bool, _option(OUTPUT, "Show negative evidence too, in diverging colours.", "--signed")
]
Fps = Annotated[float, _option(OUTPUT, "Frames a second of the movie.", min=0.01, max=1000)]
Quality = Annotated[Literal["standard", "high"], _option(OUTPUT, "Of the movie.")]
Table = Annotated[
    Path | None, _option(OUTPUT, "Write one row per layer here (.csv).", show_default=False)
]

# -- What is read from texts -----------------------------------------------------------------------


def pairs(texts: list[str] | None, of: str) -> list[tuple[str, str]]:
    """Read what was given as ``key=value``, several times."""
    for text in texts or ():
        if "=" not in text:
            raise typer.BadParameter(f"{of} is key=value, not {text!r}.")
    return [(key, value) for key, _, value in (text.partition("=") for text in texts or ())]


def value(text: str) -> Any:
    """Read an option's value as Python writes it; whatever is no literal is a text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def numbers(text: str | None, of: str) -> list[float] | None:
    """Read numbers with commas between."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{of} is numbers with commas between, not {text!r}.") from error


def size(text: str | None) -> list[int] | int | str | None:
    """Read an input size: one number, several, or "native"."""
    if text is None or text == "native":
        return text
    found = [int(number) for number in numbers(text, "--size") or ()]
    return found if len(found) > 1 else found[0]
