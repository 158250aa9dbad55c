"""Findings about a result, such as scores and checks, and the registry of their kinds.

A finding defines its table columns, captions, summary, record and plots, and the function and settings
that compute it. Tables, captions, movies, reports and the dock loop over `Result.findings`; the command
line and the dock loop over `finding_kinds`. A new finding is a subclass of `Finding` and a function
decorated with `register_finding`, in a module that `camanim.catalogue` imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    ParamSpec,
    Self,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
import numpy.typing as npt

from camanim.declarations import Setting, bind, check_values, settings_of
from camanim.errors import ScoreError
from camanim.layer_info import LayerInfo
from camanim.plots import Color, Line, Mark, Panel, PlotOffer
from camanim.short_repr import ShortRepr
from camanim.words import duration

if TYPE_CHECKING:
    from camanim.result import Result

P = ParamSpec("P")
R = TypeVar("R", bound="Finding")

#: A value per shown layer.
Column = Sequence[Any] | npt.NDArray[Any]

#: Message for a finding that needs the network's input, of a result for windows.
NO_SINGLE_INPUT = (
    "Windows have no single input of the network, which this finding needs: explain a region with box= "
    "(--box) and without windows, and compute it for that."
)

#: Message for a finding that needs the network's input, of a saved result without it.
NO_SAVED_INPUT = (
    "The file of this result does not hold the image, which this needs: open it with the image, as "
    "camanim.load(path, image=...)."
)

#: Parameters of a compute function that are not settings.
_NOT_SETTINGS = ("progress", "mask", "partial_scores")


@dataclass(frozen=True)
class Finding(ShortRepr):
    """Base class of values computed for each shown layer of a result.

    A subclass is a frozen dataclass of plain values and arrays that overrides `columns`.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    parameters : mapping
        Settings that it was computed with, as plain data; set by the registered function.
    """

    layers: list[LayerInfo]
    parameters: Mapping[str, Any] = field(
        default_factory=dict, kw_only=True, compare=False, repr=False
    )

    #: Name in `Result.findings` and on the command line.
    kind: ClassVar[str] = ""
    #: Title of tabs and boxes in the dock.
    title: ClassVar[str] = ""
    #: Findings are shown in ascending order.
    order: ClassVar[int] = 100
    #: Names of the additional `plots`.
    plot_names: ClassVar[tuple[str, ...]] = ()
    #: Properties that a record contains in addition to the fields.
    derived: ClassVar[tuple[str, ...]] = ()

    @property
    def key(self) -> str:
        """Key in `Result.findings`: the kind, unless a result can have several findings of the kind."""
        return self.kind

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher main value indicates a better map."""
        return True

    @property
    def best(self) -> LayerInfo | None:
        """The best layer; None if no layer qualifies, or layers cannot be ranked."""
        return None

    @property
    def shown_first(self) -> LayerInfo | None:
        """The layer that is shown first; None for no preference."""
        return None

    def columns(self) -> Mapping[str, Column]:
        """Return the columns of the table, with a value per shown layer; NaN and None are empty."""
        return {}

    def caption(self, i: int) -> str:
        """Return one or two lines about layer `i` for captions, or an empty string."""
        for name, values in self.columns().items():
            return f"{name} {short(values[i])}"
        return ""

    def badge(self, i: int) -> str:
        """Return the most important value of layer `i` in a few characters, or an empty string.

        By default the name and value of the first column.
        """
        for name, values in self.columns().items():
            value = short(values[i])
            return f"{name} {value}" if value else ""
        return ""

    def summary(self) -> str:
        """Return one sentence about all layers, or an empty string."""
        for name, values in self.columns().items():
            numbers = as_numbers(values)
            if np.isfinite(numbers).any():
                i = int(np.nanargmax(numbers))
                heading = name[:1].upper() + name[1:]
                return f"{heading}: highest {short(numbers[i])} at {self.layers[i].label}."
        return ""

    def comparison(self) -> Mapping[str, Any]:
        """Return values about all layers, for tables that compare results; None where undefined.

        By default the value of the first column at the best layer, and that layer.
        """
        for name, values in self.columns().items():
            at = None if self.best is None else self.layers.index(self.best)
            return {
                f"{name}, best": None if at is None else values[at],
                f"{name}, best layer": None if self.best is None else self.best.label,
            }
        return {}

    def warnings(self) -> tuple[str, ...]:
        """Return warnings that are shown with every map of the result."""
        return ()

    def listing(self) -> Mapping[str, Sequence[str]]:
        """Return the columns of the list in the terminal, as text; by default the first column."""
        for name, values in self.columns().items():
            return {name: [short(value) for value in values]}
        return {}

    def panel(self) -> Panel | None:
        """Return the plot over the layers; by default each numeric column as a line.

        The last line is drawn on top and holds the main values: by default those of the first column.
        """
        colors: tuple[Color, ...] = ("first", "second", "third", "fourth")
        columns = {name: as_numbers(values) for name, values in self.columns().items()}
        columns = {name: y for name, y in columns.items() if np.isfinite(y).any()}
        if not columns:
            return None
        lines = tuple(
            Line(name, y, color) for color, (name, y) in zip(colors, columns.items(), strict=False)
        )
        tip = f"{self.title} of every layer."
        return Panel.over_layers(
            len(self.layers), lines=lines[::-1], y_label=next(iter(columns)), tip=tip
        )

    def main_values(self) -> npt.NDArray[np.float64]:
        """Return the main value of each layer, (L,): the last line of `panel`; NaN where undefined."""
        panel = self.panel()
        if panel is None or not panel.lines:
            return np.full(len(self.layers), np.nan)
        return np.asarray(panel.lines[-1].y, np.float64)

    def ranking(self) -> list[int]:
        """Return the indices of the layers from the best to the worst main value; NaN is left out."""
        values = self.main_values()
        ranked = np.argsort(-values if self.higher_is_better else values, kind="stable")
        return [int(i) for i in ranked if np.isfinite(values[i])]

    def plots(self) -> Mapping[str, PlotOffer]:
        """Return additional plots, by their names in `Animation.write_plot`."""
        return {}

    def record(self) -> dict[str, Any]:
        """Return the finding as plain data: its fields without the layers, and `derived` properties."""
        names = [f.name for f in fields(self) if f.name != "layers"]
        values = {name: plain(getattr(self, name)) for name in (*names, *self.derived)}
        best = self.best
        return {"kind": self.kind, **values, "best": None if best is None else best.label}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], layers: list[LayerInfo]) -> Self:
        """Return the finding of a record; see `record`.

        Raises
        ------
        ScoreError
            If a field is missing.
        """
        hints = get_type_hints(cls)
        names = [f.name for f in fields(cls) if f.name != "layers"]
        missing = [name for name in names if name not in record]
        if missing:
            raise ScoreError(
                f"The record of {cls.kind} has no {', '.join(missing)}: compute the finding again."
            )
        return cls(layers, **{name: _restored(record[name], hints[name]) for name in names})

    def mark(
        self, layer: LayerInfo | None, values: npt.NDArray[np.float64], name: str
    ) -> Mark | None:
        """Return a mark at the value of a layer, such as the best one; None without a layer."""
        if layer is None:
            return None
        at = self.layers.index(layer)
        value = float(values[at])
        return Mark(name, at, value, f"{name}: {layer.label} ({value:.2f})")


@dataclass(frozen=True)
class FindingKind:
    """A registered kind of finding: its name, function and settings.

    Attributes
    ----------
    name : str
        As in ``camanim run --find NAME`` and `Animation.find`.
    title : str
        Title of tabs and boxes in the dock.
    finding : type
        Subclass of `Finding`.
    compute : callable
        ``compute(result, **settings, progress=...)``; with ``mask=`` if `needs_mask`.
    help : str
        Description in one sentence.
    passes : callable or None
        ``passes(result, **settings)``: the largest number of images that the network predicts.
    needs_input : bool
        Whether `compute` needs the network's input, which results for windows do not have.
    """

    name: str
    title: str
    finding: type[Finding]
    compute: Callable[..., Finding]
    help: str
    passes: Callable[..., int] | None = None
    needs_input: bool = True

    def check_input(self, result: Result) -> None:
        """Raise `ScoreError` if the finding needs the input of a network and the result has none."""
        _check_input(result, self.needs_input)

    @property
    def settings(self) -> dict[str, Setting]:
        """Settings, declared by the parameters of `compute`."""
        declared = settings_of(self.compute)
        return {name: s for name, s in declared.items() if name not in _NOT_SETTINGS}

    def check_names(self, settings: Iterable[str]) -> None:
        """Raise `ScoreError` for the name of a setting that the kind does not have."""
        parameters = signature(self.compute).parameters
        for name in settings:
            if name not in parameters:
                known = ", ".join(self.settings) or "none"
                raise ScoreError(
                    f"Unknown setting {name!r} of {self.name}: its settings are {known}."
                )

    def passes_for(self, result: Result, settings: Mapping[str, Any]) -> int | None:
        """Return the largest number of images that the network predicts; None if it is not known.

        Raises
        ------
        ScoreError
            If a setting is invalid, or the finding cannot be computed for the result.
        """
        self.check_input(result)
        if self.passes is None:
            return None
        parameters = signature(self.passes).parameters
        used = {name: value for name, value in settings.items() if name in parameters}
        return self.passes(result, **check_values(self.compute, used, ScoreError))

    def price(self, result: Result, settings: Mapping[str, Any]) -> str:
        """Return what the finding costs at most, in one sentence; empty if it is not known.

        Raises
        ------
        ScoreError
            As of `passes_for`.
        """
        passes = self.passes_for(result, settings)
        if passes is None:
            return ""
        # With the hooks, and alone: in a batch, a pass takes less.
        seconds = passes * result.forward_seconds
        time = f", {duration(seconds)}" if seconds > 0 else ""
        return f"{self.title}: at most {passes:,} forward passes{time}."

    @property
    def needs_mask(self) -> bool:
        """Whether `compute` compares the maps with a mask of the object."""
        return "mask" in signature(self.compute).parameters


@dataclass(frozen=True)
class FindingRequest:
    """The name of a kind of finding, with settings."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> FindingKind:
        """The registered kind.

        Raises
        ------
        ScoreError
            If the name is unknown.
        """
        return find_kind(self.name)

    def arguments(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings, and those `defaults` that are parameters of the kind."""
        parameters = signature(self.kind.compute).parameters
        return {k: v for k, v in defaults.items() if k in parameters} | dict(self.settings)


_KINDS: dict[str, FindingKind] = {}


def register_finding(
    finding: type[Finding],
    *,
    passes: Callable[..., int] | None = None,
    needs_input: bool = True,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that registers a function as the one that computes a kind of finding.

    Parameters
    ----------
    finding : type
        Return type of the function. Its `kind` is the registered name; an existing kind of that name is
        replaced.
    passes : callable, optional
        ``passes(result, **settings)`` with some of the settings of the function: the largest number of
        images that the network predicts. It is shown before the work of an expensive finding begins.
    needs_input : bool
        False if the function uses maps, geometry and image only, and neither the network nor its input:
        then it is computed for results of `animate_windows` as well. Otherwise these are refused with a
        `ScoreError`.

    Returns
    -------
    callable
        Decorator that returns the function with its settings checked, so that a wrong one raises
        `ScoreError`, and recorded in `Finding.parameters`. The function's first parameter is a
        `Result`, its parameters with a default are settings (see `camanim.declarations`), and the first
        paragraph of its docstring is the help.
    """

    def register(compute: Callable[P, R]) -> Callable[P, R]:
        names = [name for name in settings_of(compute) if name not in _NOT_SETTINGS]

        @wraps(compute)
        def function(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = bind(compute, ScoreError, args, kwargs)
            _check_input(next(iter(bound.arguments.values())), needs_input)
            result = compute(*bound.args, **bound.kwargs)
            parameters = {name: _recordable(bound.arguments[name]) for name in names}
            # Frozen for everybody else; here it has just been created.
            object.__setattr__(result, "parameters", parameters)
            return result

        summary = " ".join((compute.__doc__ or "").strip().partition("\n\n")[0].split())
        name, title = finding.kind, finding.title or finding.kind
        _KINDS[name] = FindingKind(name, title, finding, function, summary, passes, needs_input)
        return function

    return register


def _check_input(result: Any, needs_input: bool) -> None:
    if needs_input:
        check_has_input(result)


def check_has_input(result: Any) -> None:
    """Raise `ScoreError` if the input of the network is not part of a result."""
    if getattr(result, "windows", None) is not None:
        raise ScoreError(NO_SINGLE_INPUT)
    if getattr(getattr(result, "tensor", None), "is_meta", False):
        raise ScoreError(NO_SAVED_INPUT)


def unregister_finding(name: str) -> None:
    """Remove a kind of finding from the registry."""
    _KINDS.pop(name, None)


def finding_kinds() -> dict[str, FindingKind]:
    """Return the registered kinds by name, in display order."""
    return dict(sorted(_KINDS.items(), key=lambda item: item[1].finding.order))


def find_kind(name: str) -> FindingKind:
    """Return a registered kind.

    Raises
    ------
    ScoreError
        If the name is unknown.
    """
    if name not in _KINDS:
        near = get_close_matches(name, _KINDS, n=2)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(_KINDS)}."
        )
        raise ScoreError(f"Unknown finding {name!r}: {hint}")
    return _KINDS[name]


def in_order(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Return findings by key, in display order."""
    return {finding.key: finding for finding in sorted(findings, key=lambda f: f.order)}


def short(value: Any) -> str:
    """Format a value of a column in a few characters; None and NaN as an empty string."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def plain(value: Any) -> Any:
    """Convert arrays, tuples and numpy scalars to lists and Python scalars, layers to their labels."""
    if isinstance(value, LayerInfo):
        return value.label
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def _recordable(value: Any) -> Any:
    """Convert a setting to plain data; an object becomes the name of its class."""
    converted = plain(value)
    if isinstance(converted, dict):
        return {key: _recordable(item) for key, item in converted.items()}
    if isinstance(converted, list):
        return [_recordable(item) for item in converted]
    basic = converted is None or isinstance(converted, bool | int | float | str)
    return converted if basic else type(value).__name__


def _restored(value: Any, hint: Any) -> Any:
    origin = get_origin(hint) or hint
    # NDArray[float64] is ndarray[..., dtype[float64]], or since numpy 2.5 a separate alias.
    if origin in (np.ndarray, npt.NDArray):
        dtype = get_args(hint)[-1]
        return np.array(value, next(iter(get_args(dtype)), dtype))
    return tuple(value) if origin is tuple else value


def as_numbers(values: Column) -> npt.NDArray[np.float64]:
    """Return values as numbers, with NaN for those that are not numbers."""
    kinds = (int, float, np.integer, np.floating)
    numeric = [isinstance(v, kinds) and not isinstance(v, bool) for v in values]
    return np.array([float(v) if n else np.nan for v, n in zip(values, numeric, strict=True)])
