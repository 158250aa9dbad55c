"""Options of all commands, generated from the declarations of settings.

Type, range, choices, default and help of an option are those of the setting. `SHELL` holds the
exceptions, and `EXTRA_OPTIONS` the options that are not settings: files and short forms. A command names
what it takes from these, so that an option has one name, one type and one help in all commands.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args

import typer

from camanim.catalogue import finding_kinds
from camanim.cli.completion import COMPLETIONS
from camanim.declarations import Setting, settings_of
from camanim.editing import Replacement
from camanim.figures import FigureKind
from camanim.models.names import PREFIXES
from camanim.models.overrides import ModelOverrides
from camanim.render.movie import write_movie
from camanim.report import write_report
from camanim.settings import Settings, WindowSettings

NETWORK, EXPLAIN, SCORE, OUTPUT = "The network", "What is explained, and how", "Scores", "Output"
FIGURE = "The figure"
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
        help="Box of the image in pixels, the ends excluded, y0,x0,y1,x1, or z0,y0,x0,z1,y1,x1 of a "
        "volume: the part that is explained, or that what-if replaces.",
    ),
    "figure_layers": Shell(
        str | None,
        help="Layers in the figure: names, numbers or percentiles of the depth, separated by commas, "
        "such as 0%,50%,100%.",
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

#: Helps of options that set the same in several declarations, whose helps differ.
HELP = {
    "colormap": "Name of a colour map of cmap; by default turbo, of a figure inferno, or a diverging "
    "one with signed.",
    "normalization": "Scale of the maps, of a page that is shown first: a separate one for each layer, "
    "or a common one.",
    "opacity": "Opacity of the map over the image, in [0, 1]; of a page the one that is shown first; "
    'of a movie without effect on "image | map".',
    "seed": "Seed of random methods, and of the noise on imputed pixels.",
    "title": "Title of the page, or in the metadata of the movie; by default made of target and method.",
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

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the option, the long one first."""
        named = () if self.shell is None else self.shell.names
        return named or ("--" + self.keyword.replace("_", "-"),)

    def parameter(self) -> Parameter:
        """Return the option as a parameter for typer."""
        setting, shell, names = self.setting, self.shell, self.names
        default = setting.default
        extra: dict[str, Any] = {}
        if shell is not None:
            kind, default = shell.type, shell.default
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
        help_text = (shell and shell.help) or HELP.get(self.keyword) or setting.help
        help_text = help_text.replace("``", "")
        option = typer.Option(
            *names,
            help=help_text,
            rich_help_panel=self.panel,
            autocompletion=COMPLETIONS.get(self.keyword),
            **extra,
        )
        return _parameter(self.keyword, Annotated[kind, option], default)

    def is_changed(self, argument: Any) -> bool:
        """Return whether an argument of the command differs from the default."""
        default = self.setting.default if self.shell is None else self.shell.default
        return bool(self.value(argument) != self.value(default))

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

    def changed(self, arguments: Mapping[str, Any], but: Sequence[str] = ()) -> list[str]:
        """Return the names of options whose value is not the default, such as ``--fps``.

        Parameters
        ----------
        arguments : mapping
            Arguments of the command.
        but : sequence of str
            Keywords to leave out.
        """
        return [
            o.names[0]
            for o in self.options
            if o.keyword not in but and o.is_changed(arguments[o.keyword])
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


REPORT_OPTIONS = Group(
    write_report, OUTPUT, ("errors", "progress"), prefix="page", prefixed=("size",)
)


def figure_options(kind: FigureKind) -> tuple[Group, ...]:
    """Return the options of a figure: of its function, and those that it shares with others."""
    return tuple(
        Group(declared, FIGURE, prefix="figure", prefixed=("layers",))
        for declared in (kind.function, kind.style)
    )


def some_settings(*names: str, panel: str = EXPLAIN) -> Group:
    """Return the options of some of the settings of a run."""
    return Group(Settings, panel, tuple(n for n in settings_of(Settings) if n not in names))


INPUT_OPTIONS = some_settings("fit", "window", "slices", "device", "precision")
PREDICT_OPTIONS = some_settings("fit", "box", "window", "slices", "device")
LAYER_OPTIONS = some_settings(
    "fit", "window", "slices", "show_1d", "layouts", "device", "precision"
)
BOX_OPTION = some_settings("box", panel=EDIT)
REPLACEMENT_OPTIONS = Group(Replacement, EDIT)


def _parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@dataclass(frozen=True)
class Extra:
    """An option that is not a setting.

    Attributes
    ----------
    panel : str
        Title of the group in the help.
    type : object
        Type of the option for typer.
    default : object
    help : str
    names : tuple of str
        Names of the option; by default from the keyword.
    low : int, optional
        Lowest value.
    """

    panel: str
    type: Any
    default: Any
    help: str
    names: tuple[str, ...] = ()
    low: int | None = None

    def parameter(self, keyword: str, *, repeated: bool = False) -> Parameter:
        """Return the option as a parameter for typer; a repeated one has a list of values."""
        kind, default = self.type, self.default
        if repeated:
            (single,) = [each for each in get_args(kind) or (kind,) if each is not NoneType]
            kind, default = list[single] | None, None  # type: ignore[valid-type]
        option = typer.Option(
            *(self.names or ("--" + keyword.replace("_", "-"),)),
            help=self.help,
            rich_help_panel=self.panel,
            show_default=default not in (None, False),
            autocompletion=COMPLETIONS.get(keyword),
            min=self.low,
        )
        return _parameter(keyword, Annotated[kind, option], default)


#: Options that are not settings: input and output files, and short forms.
EXTRA_OPTIONS = {
    "model": Extra(
        NETWORK, str, "demo/ultrasound",
        "A name of `camanim models`, a card (.toml), the folder of a MONAI bundle, an exported network "
        "(.pt2) or Python code (file.py:build).",
    ),
    "weights": Extra(
        NETWORK, str, "DEFAULT", "DEFAULT, a torchvision name, a file, or 'none' for random weights."
    ),
    "trust": Extra(
        NETWORK, bool, False, "Allow the network's files to run code.", ("--trust",)
    ),
    "save_card": Extra(
        NETWORK, Path | None, None, "Write the network and its settings to this card (.toml)."
    ),
    "method": Extra(EXPLAIN, str, "GradCAM", "A method of `camanim methods`."),
    "target": Extra(
        EXPLAIN, str | None, None,
        "Class to explain, by number or name, or 'A - B'; by default the likeliest.",
    ),
    "windows": Extra(
        EXPLAIN, bool, False,
        "Explain a large image window by window, and stitch the maps of each layer.",
        ("--windows",),
    ),
    "image": Extra(
        EXPLAIN, Path | None, None, "The image file; without it, a grey image of the input's size."
    ),
    "viewer": Extra(
        OUTPUT, bool, True, "Open napari, if a display is available.", ("--viewer/--no-viewer",)
    ),
    "estimate": Extra(
        EXPLAIN, bool, False, "Print the expected passes and seconds, and stop.", ("--estimate",)
    ),
    "road": Extra(SCORE, bool, False, "Score every layer with ROAD.", ("--road",)),
    "checks": Extra(
        SCORE, bool, False,
        "Check the method with shuffled weights, from the output backwards, and for other classes.",
        ("--checks",),
    ),
    "mask": Extra(
        SCORE, Path | None, None,
        "Mask, an image file of the same size as the image: the object that maps are compared with, or "
        "the region that what-if replaces. Of several images, a name with {stem}.",
    ),
    "mask_label": Extra(
        SCORE, int | None, None, "Value of the object in the mask; by default all values but 0."
    ),
    "measure": Extra(
        SCORE, list[str] | None, None,
        "deletion, insertion, drop or increase, with blur, or as deletion:mean or deletion:road; can "
        "be repeated.",
        ("--measure",),
    ),
    "find": Extra(
        SCORE, list[str] | None, None,
        "A finding of `camanim findings`, with settings as in road:repeats=3,draws=16; can be "
        "repeated.",
        ("--find",),
    ),
    "frames": Extra(
        OUTPUT, bool, False, "Write folders of PNG files with a table, instead of movies.", ("--frames",)
    ),
    "dpi": Extra(OUTPUT, int, 300, "Resolution of pictures in dots per inch.", low=10),
    "top": Extra(OUTPUT, int, 5, "Number of classes.", low=1),
    "filter": Extra(
        OUTPUT, list[str] | None, None,
        "List these layers only: a name, a glob (features.*) or a kind (Conv2d); can be repeated.",
    ),
    "out": Extra(
        OUTPUT, Path | None, None,
        "Where to write: a file, a folder, or a name with {stem} or {name} of each image.",
    ),
    "movie": Extra(
        OUTPUT, Path | None, None, "Write the movie to this file (.mp4, .webm, .gif, .apng)."
    ),
    "maps": Extra(
        OUTPUT, Path | None, None,
        "Write the raw maps to this file (.npz, .npy, .tif with names of layers, .nii.gz).",
    ),
    "table": Extra(
        OUTPUT, Path | None, None,
        "Write the table to this file (.csv; of layers also .json and .parquet).",
    ),
    "plot": Extra(OUTPUT, Path | None, None, "Write a plot to this file (.png, .pdf, .svg)."),
    "plot_kind": Extra(
        OUTPUT, str, "scores",
        "Content of the plot: scores, or a plot of a finding: removal, randomisation.",
    ),
    "plot_second": Extra(
        OUTPUT, str | None, None,
        "A second curve over the layers of the plot: parameters, output size, time, or the title of a "
        "finding.",
    ),
    "plot_key": Extra(
        OUTPUT, str, "road", "Finding of the plot of several runs, such as road or localisation."
    ),
    "dicom": Extra(
        OUTPUT, Path | None, None,
        "Write the maps of a DICOM image to this folder, a Parametric Map (.dcm) for each layer.",
    ),
    "save": Extra(
        OUTPUT, Path | None, None,
        "Save the result to this file, which opens again (.camanim.zarr, .ozx, .camanim.zip).",
    ),
    "as_json": Extra(OUTPUT, bool, False, "Print JSON, and nothing else.", ("--json",)),
    "quiet": Extra(OUTPUT, bool, False, "Show no progress and no prices.", ("--quiet", "-q")),
}  # fmt: skip

#: Names of extra options that several commands take.
SOURCE = ("model", "weights", "trust")
SCORES = ("road", "checks", "mask", "mask_label", "measure", "find")
PRINTED = ("as_json", "quiet")

Command = Callable[..., None]

#: Types and helps of arguments of commands.
_ARGUMENTS: dict[str, tuple[Any, str]] = {
    "images": (
        list[str],
        "Image files, globs ('scans/*.png') or saved results (.camanim.zarr, .ozx, .camanim.zip).",
    ),
    "pictures": (list[str], "Image files or globs ('scans/*.png')."),
    "image": (Path, "The image file."),
    "result": (Path, "A saved result (.camanim.zarr, .ozx, .camanim.zip)."),
    "results": (list[Path], "Two saved results (.camanim.zarr, .ozx, .camanim.zip)."),
    "network": (str, "A network, as for --model."),
    "source": (str | None, f"One of {', '.join(PREFIXES)}; by default all but timm."),
    "name": (str | None, "One of them, with its caveat and its options."),
}


def given(context: typer.Context) -> list[str]:
    """Return the names of the options that the user has given, such as ``--fps``, default or not."""
    sources = {p: context.get_parameter_source(str(p.name)) for p in context.command.params}
    return [
        parameter.opts[0]
        for parameter, source in sources.items()
        if parameter.param_type_name == "option" and source and source.name == "COMMANDLINE"
    ]


def with_options(
    argument: str,
    extra: Sequence[str],
    groups: Sequence[Group] = (),
    *,
    repeated: Sequence[str] = (),
    context: bool = False,
) -> Callable[[Command], Command]:
    """Return a decorator that sets the signature of a command.

    Parameters
    ----------
    argument : str
        Name of its argument, as in `_ARGUMENTS`; empty for none.
    extra : sequence of str
        Keywords of `EXTRA_OPTIONS`.
    groups : sequence of Group
    repeated : sequence of str
        Keywords of extra options that take several values in this command.
    context : bool
        Whether the command has the argument ``context``, for `given`.
    """
    parameters = []
    if argument:
        kind, text = _ARGUMENTS[argument]
        described = typer.Argument(
            help=text,
            show_default=False,
            autocompletion=COMPLETIONS.get(argument),
            metavar="images" if argument == "pictures" else None,
        )
        is_optional = NoneType in get_args(kind)
        default = None if is_optional else Parameter.empty
        parameter = _parameter(argument, Annotated[kind, described], default)
        parameters.append(parameter.replace(kind=Parameter.POSITIONAL_OR_KEYWORD))
    parameters += [EXTRA_OPTIONS[name].parameter(name, repeated=name in repeated) for name in extra]
    for group in groups:
        parameters += [option.parameter() for option in group.options]
    if context:
        parameters.append(_parameter("context", typer.Context))

    def decorate(command: Command) -> Command:
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate
