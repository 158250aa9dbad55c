"""The options of ``camanim run``, made from the declarations of settings.

Type, range, choices, default and help of an option are those of the setting. Written by hand is only
what is particular to a shell: files, short forms, and how a text becomes a value.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from camanim.catalogue import finding_kinds
from camanim.declarations import Setting, settings_of
from camanim.models.overrides import ModelOverrides
from camanim.render.movie import write_movie
from camanim.settings import Settings

NETWORK, EXPLAIN, SCORE, OUTPUT = "The network", "What is explained, and how", "Scores", "Output"

# -- How texts are read ----------------------------------------------------------------------------


def pairs(texts: list[str] | None, of: str) -> list[tuple[str, str]]:
    """Read texts such as ``key=value``."""
    for text in texts or ():
        if "=" not in text:
            raise typer.BadParameter(f"{of} is key=value, not {text!r}.")
    return [(key, value) for key, _, value in (text.partition("=") for text in texts or ())]


def literal(text: str) -> Any:
    """Read a value as Python writes it; whatever is no literal is a text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def numbers(text: str) -> list[Any]:
    """Read numbers with commas between; what is none is left for the declaration to refuse."""
    return [_number(part.strip()) for part in text.split(",")]


def _number(text: str) -> Any:
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return text


def size(text: str) -> Any:
    """Read an input size: one number, several, or "native"."""
    if text == "native":
        return text
    sides = numbers(text)
    return sides if len(sides) > 1 else sides[0]


# -- From settings to options ----------------------------------------------------------------------


@dataclass(frozen=True)
class Shell:
    """How a setting is given in a shell, where its type does not say it.

    Attributes
    ----------
    type : object
        What typer reads.
    read : callable
        From that to the setting's value.
    names : tuple of str
        Names of the option; by default the setting's.
    default : object
        Of the option, where it is not the setting's.
    """

    type: Any
    read: Callable[[Any], Any] = lambda value: value
    names: tuple[str, ...] = ()
    default: Any = None


#: Settings that a text does not stand for as it is.
SHELL = {
    "options": Shell(
        list[str] | None,
        lambda texts: {key: literal(text) for key, text in pairs(texts, "--option")},
        ("--option", "-o"),
    ),
    "layers": Shell(list[str] | None, lambda texts: texts or "unique"),
    "layouts": Shell(list[str] | None, lambda texts: dict(pairs(texts, "--layout")), ("--layout",)),
    "window": Shell(tuple[float, float] | None),
    "device": Shell(str | None),
    "classes": Shell(Path | None),
    "size": Shell(str | None, lambda text: None if text is None else size(text)),
    "mean": Shell(str | None, lambda text: None if text is None else numbers(text)),
    "std": Shell(str | None, lambda text: None if text is None else numbers(text)),
    "baseline": Shell(bool, lambda left_out: not left_out, ("--no-baseline",), False),
}


@dataclass(frozen=True)
class Option:
    """One option of the command line, made from a setting.

    Attributes
    ----------
    keyword : str
        Of the command's function.
    setting : Setting
    panel : str
        Of the help.
    """

    keyword: str
    setting: Setting
    panel: str

    @property
    def shell(self) -> Shell | None:
        """What is particular to a shell."""
        return SHELL.get(self.keyword)

    def parameter(self) -> Parameter:
        """Return the option as a parameter that typer reads."""
        setting, shell = self.setting, self.shell
        names: tuple[str, ...] = ("--" + self.keyword.replace("_", "-"),)
        default = setting.default
        more: dict[str, Any] = {}
        if shell is not None:
            kind, default, names = shell.type, shell.default, shell.names or names
        elif setting.choices:
            kind = Literal[setting.choices]
        else:
            kind = setting.kind or str
            if kind in (int, float):
                more = {"min": setting.range.low, "max": setting.range.high}
        if shell is None and setting.optional:
            kind = kind | None
        if default is None:
            more["show_default"] = False
        option = typer.Option(
            *names, help=setting.help.replace("``", ""), rich_help_panel=self.panel, **more
        )
        return _parameter(self.keyword, Annotated[kind, option], default)

    def value(self, given: Any) -> Any:
        """Return the setting's value for what was given."""
        return given if self.shell is None else self.shell.read(given)


class Group:
    """The options of one set of settings.

    Parameters
    ----------
    declared : dataclass or function
        See `camanim.declarations.settings_of`.
    panel : str
    without : tuple of str
        Settings that are no options.
    prefix : str
        Before a keyword that another group has, too.
    taken : tuple of str
        Those keywords.
    """

    def __init__(
        self,
        declared: Any,
        panel: str,
        without: tuple[str, ...] = (),
        *,
        prefix: str = "",
        taken: tuple[str, ...] = (),
    ) -> None:
        settings = settings_of(declared)
        self.options = [
            Option(f"{prefix}_{name}" if name in taken else name, setting, panel)
            for name, setting in settings.items()
            if name not in without
        ]

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings' values where nothing is given."""
        return {o.setting.name: o.setting.default for o in self.options}

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings' values out of all that was given."""
        return {o.setting.name: o.value(given[o.keyword]) for o in self.options}


#: A card has the other settings of a network.
NETWORK_OPTIONS = Group(ModelOverrides, NETWORK, ("resize", "interpolation", "dims", "name"))
RUN_OPTIONS = Group(Settings, EXPLAIN, ("progress",))
MOVIE_OPTIONS = Group(
    write_movie, OUTPUT, ("progress",), prefix="movie", taken=("size", "layers", "window")
)
ROAD_OPTIONS = Group(
    finding_kinds()["road"].compute,
    SCORE,
    # The others are given as in --find road:noise=0.02.
    (
        "seed",
        "percentiles",
        "noise",
        "imputer",
        "batch_size",
        "memory_format",
        "precision",
        "progress",
    ),
)


def _parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _hand_made(panel: str, kind: Any, default: Any, help: str, *names: str) -> tuple[Any, Any]:
    option = typer.Option(
        *names, help=help, rich_help_panel=panel, show_default=default not in (None, False)
    )
    return Annotated[kind, option], default


#: Options that are no settings: what is read and written, and short forms.
HAND_MADE = {
    "model": _hand_made(
        NETWORK, str, "demo/ultrasound",
        "A name of `camanim models`, a card (.toml), a MONAI bundle's folder, an exported network "
        "(.pt2) or Python code (file.py:build).",
    ),
    "weights": _hand_made(
        NETWORK, str, "DEFAULT", "DEFAULT, a torchvision name, a file, or 'none' for random ones."
    ),
    "trust": _hand_made(
        NETWORK, bool, False, "Allow the network's files to run code.", "--trust"
    ),
    "save_card": _hand_made(
        NETWORK, Path | None, None, "Write the network and its settings here (.toml)."
    ),
    "method": _hand_made(EXPLAIN, str, "GradCAM", "A method of `camanim methods`."),
    "target": _hand_made(
        EXPLAIN, str | None, None,
        "Class to explain, by number or name, or 'A - B'; by default the likeliest.",
    ),
    "road": _hand_made(SCORE, bool, False, "Score every layer with ROAD.", "--road"),
    "checks": _hand_made(
        SCORE, bool, False,
        "Check the method with shuffled weights, from the output backwards, and for other classes.",
        "--checks",
    ),
    "mask": _hand_made(
        SCORE, Path | None, None,
        "Compare every layer's map with this mask, an image file as large as the image.",
    ),
    "mask_label": _hand_made(
        SCORE, int | None, None, "Value of the mask that is the object; by default all but 0."
    ),
    "measure": _hand_made(
        SCORE, list[str] | None, None,
        "deletion, insertion, drop or increase, with blur, or as deletion:mean or deletion:road; may "
        "be given several times.",
        "--measure",
    ),
    "find": _hand_made(
        SCORE, list[str] | None, None,
        "A finding of `camanim findings`, with settings as in road:repeats=3,draws=16; may be given "
        "several times.",
        "--find",
    ),
    "plot": _hand_made(SCORE, Path | None, None, "Write a plot here (.png, .pdf, .svg)."),
    "plot_kind": _hand_made(
        SCORE, str, "scores",
        "What the plot shows: scores, or a plot of a finding: removal, randomisation.",
    ),
    "movie": _hand_made(OUTPUT, Path | None, None, "Write the movie here (.mp4)."),
    "table": _hand_made(OUTPUT, Path | None, None, "Write one row per layer here (.csv)."),
}  # fmt: skip


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all groups, and those made by hand."""
    image = Annotated[Path, typer.Argument(help="The image file.", show_default=False)]
    parameters = [replace_kind(_parameter("image", image))]
    parameters += [_parameter(name, *made) for name, made in HAND_MADE.items()]
    for group in (NETWORK_OPTIONS, RUN_OPTIONS, ROAD_OPTIONS, MOVIE_OPTIONS):
        parameters += [option.parameter() for option in group.options]
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def replace_kind(parameter: Parameter) -> Parameter:
    """Return a parameter that may be given by place."""
    return parameter.replace(kind=Parameter.POSITIONAL_OR_KEYWORD)
