"""Options of ``camanim run`` and ``camanim what-if``, generated from the declarations of settings.

Type, range, choices, default and help of an option are those of the setting. `SHELL` holds the
exceptions, and `EXTRA_OPTIONS` the options that are not settings: files and short forms.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from camanim.catalogue import finding_kinds
from camanim.declarations import Setting, settings_of
from camanim.editing import Replacement
from camanim.models.overrides import ModelOverrides
from camanim.render.movie import write_movie
from camanim.settings import Settings, WindowSettings

NETWORK, EXPLAIN, SCORE, OUTPUT = "The network", "What is explained, and how", "Scores", "Output"
EDIT = "The region, and what replaces it"

# -- Parsing ---------------------------------------------------------------------------------------


def pairs(texts: list[str] | None, option: str) -> list[tuple[str, str]]:
    """Parse texts such as ``key=value``."""
    for text in texts or ():
        if "=" not in text:
            raise typer.BadParameter(f"{option} must be key=value, not {text!r}.")
    return [(key, value) for key, _, value in (text.partition("=") for text in texts or ())]


def literal(text: str) -> Any:
    """Parse a Python literal, or true, false and none in any case; return other texts unchanged."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def numbers(text: str) -> list[Any]:
    """Parse numbers separated by commas; other texts are returned unchanged and fail the later check."""
    return [_number(part.strip()) for part in text.split(",")]


def _number(text: str) -> Any:
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        return text


def size(text: str) -> Any:
    """Parse an input size: one number, several, or "native"."""
    if text == "native":
        return text
    sides = numbers(text)
    return sides if len(sides) > 1 else sides[0]


# -- Options from settings -------------------------------------------------------------------------


@dataclass(frozen=True)
class Shell:
    """The option of a setting whose type typer cannot parse.

    Attributes
    ----------
    type : object
        Type of the option for typer.
    parse : callable
        From the option's value to that of the setting.
    names : tuple of str
        Names of the option; by default from the setting's name.
    default : object
        Default of the option.
    help : str
        Help of the option; by default that of the setting.
    """

    type: Any
    parse: Callable[[Any], Any] = lambda value: value
    names: tuple[str, ...] = ()
    default: Any = None
    help: str = ""


#: Options of settings that need parsing, by the setting's name.
SHELL = {
    "options": Shell(
        list[str] | None,
        lambda texts: {key: literal(text) for key, text in pairs(texts, "--option")},
        ("--option", "-o"),
        help="Option of the method, as key=value; can be repeated. See camanim methods NAME.",
    ),
    "layers": Shell(
        list[str] | None,
        lambda texts: texts or "unique",
        help="Layers that get a map: unique (each output once), all, blocks, a name, a glob "
        "(features.*) or a kind (Conv2d); can be repeated.",
    ),
    "layouts": Shell(
        list[str] | None,
        lambda texts: dict(pairs(texts, "--layout")),
        ("--layout",),
        help="Layout of outputs by glob over layer names, such as blocks.*=tokens:1; can be repeated.",
    ),
    "box": Shell(
        str | None,
        lambda text: None if text is None else numbers(text),
        help="Region of the image to explain at its full resolution, in pixels: y0,x0,y1,x1, or "
        "z0,y0,x0,z1,y1,x1 of a volume.",
    ),
    "windows_size": Shell(
        str | None,
        lambda text: None if text is None else size(text),
        help="Size of the windows in image pixels, such as 224 or 96,96,96; by default that of the "
        "network's input.",
    ),
    "window": Shell(tuple[float, float] | None),
    "device": Shell(str | None),
    "offset": Shell(
        str | None,
        lambda text: None if text is None else numbers(text),
        help="Distance in pixels from the region to the pixels that replace it, dy,dx or dz,dy,dx, for "
        "--by paste.",
    ),
    "classes": Shell(Path | None),
    "size": Shell(
        str | None,
        lambda text: None if text is None else size(text),
        help="Size of the network's input, such as 224 or 224,320; native keeps that of the image.",
    ),
    "mean": Shell(str | None, lambda text: None if text is None else numbers(text)),
    "std": Shell(str | None, lambda text: None if text is None else numbers(text)),
    "baseline": Shell(
        bool,
        lambda left_out: not left_out,
        ("--no-baseline",),
        default=False,
        help="Do not score random maps.",
    ),
}


@dataclass(frozen=True)
class Option:
    """One option of the command line, generated from a setting.

    Attributes
    ----------
    keyword : str
        Keyword of the command's function.
    setting : Setting
    panel : str
        Title of the group in the help.
    """

    keyword: str
    setting: Setting
    panel: str

    @property
    def shell(self) -> Shell | None:
        """The exception for this setting, if any."""
        return SHELL.get(self.keyword)

    def parameter(self) -> Parameter:
        """Return the option as a parameter for typer."""
        setting, shell = self.setting, self.shell
        names: tuple[str, ...] = ("--" + self.keyword.replace("_", "-"),)
        default = setting.default
        extra: dict[str, Any] = {}
        if shell is not None:
            kind, default, names = shell.type, shell.default, shell.names or names
        elif setting.choices:
            kind = Literal[setting.choices]
        else:
            kind = setting.kind or str
            if kind in (int, float):
                extra = {"min": setting.range.low, "max": setting.range.high}
        if shell is None and setting.optional:
            kind = kind | None
        if default is None:
            extra["show_default"] = False
        help_text = (shell and shell.help) or setting.help.replace("``", "")
        option = typer.Option(*names, help=help_text, rich_help_panel=self.panel, **extra)
        return _parameter(self.keyword, Annotated[kind, option], default)

    def value(self, argument: Any) -> Any:
        """Return the setting's value for an argument of the command."""
        return argument if self.shell is None else self.shell.parse(argument)


class Group:
    """The options of one group of settings.

    Parameters
    ----------
    declared : dataclass or function
        See `camanim.declarations.settings_of`.
    panel : str
        Title of the group in the help.
    excluded : tuple of str
        Settings without an option.
    prefix : str
        Prefix of keywords that another group also has.
    prefixed : tuple of str
        These keywords.
    """

    def __init__(
        self,
        declared: Any,
        panel: str,
        excluded: tuple[str, ...] = (),
        *,
        prefix: str = "",
        prefixed: tuple[str, ...] = (),
    ) -> None:
        settings = settings_of(declared)
        self.options = [
            Option(f"{prefix}_{name}" if name in prefixed else name, setting, panel)
            for name, setting in settings.items()
            if name not in excluded
        ]

    @property
    def defaults(self) -> dict[str, Any]:
        """Default values of the settings."""
        return {o.setting.name: o.setting.default for o in self.options}

    def changed(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return the names of options whose value is not the default, such as ``--fps``."""
        return [
            "--" + o.keyword.replace("_", "-")
            for o in self.options
            if o.value(arguments[o.keyword]) != o.setting.default
        ]

    def values(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the settings from all arguments of the command."""
        return {o.setting.name: o.value(arguments[o.keyword]) for o in self.options}


#: The other settings of a network can be set in a card.
NETWORK_OPTIONS = Group(
    ModelOverrides, NETWORK, ("resize", "interpolation", "dims", "name", "domain")
)
RUN_OPTIONS = Group(Settings, EXPLAIN, ("progress",))
WINDOW_OPTIONS = Group(WindowSettings, EXPLAIN, prefix="windows", prefixed=("size",))
MOVIE_OPTIONS = Group(
    write_movie,
    OUTPUT,
    ("progress",),
    prefix="movie",
    prefixed=("size", "layers", "window", "layout"),
)
ROAD_OPTIONS = Group(
    finding_kinds()["road"].compute,
    SCORE,
    # These can be set as in --find road:noise=0.02.
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
INPUT_OPTIONS = Group(
    Settings,
    EXPLAIN,
    tuple(
        name
        for name in settings_of(Settings)
        if name not in ("fit", "window", "slices", "device", "precision")
    ),
)
REPLACEMENT_OPTIONS = Group(Replacement, EDIT)


def _parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _extra(panel: str, kind: Any, default: Any, help: str, *names: str) -> tuple[Any, Any]:
    option = typer.Option(
        *names, help=help, rich_help_panel=panel, show_default=default not in (None, False)
    )
    return Annotated[kind, option], default


#: Options that are not settings: input and output files, and short forms.
EXTRA_OPTIONS = {
    "model": _extra(
        NETWORK, str, "demo/ultrasound",
        "A name of `camanim models`, a card (.toml), the folder of a MONAI bundle, an exported network "
        "(.pt2) or Python code (file.py:build).",
    ),
    "weights": _extra(
        NETWORK, str, "DEFAULT", "DEFAULT, a torchvision name, a file, or 'none' for random weights."
    ),
    "trust": _extra(
        NETWORK, bool, False, "Allow the network's files to run code.", "--trust"
    ),
    "save_card": _extra(
        NETWORK, Path | None, None, "Write the network and its settings to this card (.toml)."
    ),
    "method": _extra(EXPLAIN, str, "GradCAM", "A method of `camanim methods`."),
    "target": _extra(
        EXPLAIN, str | None, None,
        "Class to explain, by number or name, or 'A - B'; by default the likeliest.",
    ),
    "windows": _extra(
        EXPLAIN, bool, False,
        "Explain a large image window by window, and stitch the maps of each layer.",
        "--windows",
    ),
    "estimate": _extra(
        EXPLAIN, bool, False, "Print the expected passes and seconds, and stop.", "--estimate"
    ),
    "road": _extra(SCORE, bool, False, "Score every layer with ROAD.", "--road"),
    "checks": _extra(
        SCORE, bool, False,
        "Check the method with shuffled weights, from the output backwards, and for other classes.",
        "--checks",
    ),
    "mask": _extra(
        SCORE, Path | None, None,
        "Compare the maps with this mask, an image file of the same size as the image.",
    ),
    "mask_label": _extra(
        SCORE, int | None, None, "Value of the object in the mask; by default all values but 0."
    ),
    "measure": _extra(
        SCORE, list[str] | None, None,
        "deletion, insertion, drop or increase, with blur, or as deletion:mean or deletion:road; can "
        "be repeated.",
        "--measure",
    ),
    "find": _extra(
        SCORE, list[str] | None, None,
        "A finding of `camanim findings`, with settings as in road:repeats=3,draws=16; can be "
        "repeated.",
        "--find",
    ),
    "plot": _extra(SCORE, Path | None, None, "Write a plot to this file (.png, .pdf, .svg)."),
    "plot_kind": _extra(
        SCORE, str, "scores",
        "Content of the plot: scores, or a plot of a finding: removal, randomisation.",
    ),
    "plot_second": _extra(
        SCORE, str | None, None,
        "A second curve over the layers of the plot: parameters, output size, time, or the title of a "
        "finding.",
    ),
    "movie": _extra(OUTPUT, Path | None, None, "Write the movie to this file (.mp4)."),
    "table": _extra(OUTPUT, Path | None, None, "Write one row per layer to this file (.csv)."),
}  # fmt: skip


#: Further options of ``camanim what-if``.
EDIT_OPTIONS = {
    **{name: EXTRA_OPTIONS[name] for name in ("model", "weights", "trust")},
    "target": _extra(
        EXPLAIN, str | None, None,
        "Class whose probability is compared, by number or name, or 'A - B'; by default the likeliest.",
    ),
    "mask": _extra(
        EDIT, Path | None, None, "Mask of the region, an image file of the same size as the image."
    ),
    "mask_label": _extra(
        EDIT, int | None, None, "Value of the region in the mask; by default all values but 0."
    ),
    "box": _extra(
        EDIT, str | None, None,
        "The region as a box, y0,x0,y1,x1 in pixels, the ends excluded; z0,y0,x0,z1,y1,x1 in a volume.",
    ),
    "out": _extra(
        OUTPUT, Path | None, None, "Write the edited image to this file (.png; .tif of a volume)."
    ),
}  # fmt: skip

Command = Callable[..., None]


def with_options(
    extra: Mapping[str, tuple[Any, Any]], groups: Sequence[Group]
) -> Callable[[Command], Command]:
    """Return a decorator that sets the signature of a command: the image, and these options.

    Parameters
    ----------
    extra : mapping
        Options that are not settings, by keyword.
    groups : sequence of Group
    """
    image = Annotated[Path, typer.Argument(help="The image file.", show_default=False)]
    parameters = [_parameter("image", image).replace(kind=Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += [_parameter(name, *option) for name, option in extra.items()]
    for group in groups:
        parameters += [option.parameter() for option in group.options]

    def decorate(command: Command) -> Command:
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate
