"""Findings: whatever is computed about a result, such as scores and checks.

A finding says once how it appears in tables, captions, summaries, records and plots, and which function
computes it with which settings. Everything that shows a result loops over `Result.findings` and knows
none of them by name; the command line and the dock loop over `finding_kinds`. A new finding is one
subclass of `Finding` and one function under `register_finding`, in one file, which `camanim.catalogue`
imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from inspect import signature
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from camanim.declarations import Setting, settings_of
from camanim.errors import ScoreError
from camanim.layer_info import LayerInfo
from camanim.plots import Color, Line, Mark, Panel, PlotOffer

Compute = TypeVar("Compute", bound="Callable[..., Finding]")

#: A value per shown layer.
Column = Sequence[Any] | npt.NDArray[Any]

#: Parameters of a compute function that are no settings.
_NO_SETTINGS = ("progress", "mask")


@dataclass(frozen=True)
class Finding:
    """What was computed about each shown layer of a result.

    A subclass is a frozen dataclass whose fields are plain values and arrays, and has `columns`.

    Attributes
    ----------
    layers : list of LayerInfo
        L shown layers.
    """

    layers: list[LayerInfo]

    #: Name in `Result.findings` and on the command line; and the title of tabs and boxes.
    kind: ClassVar[str] = ""
    title: ClassVar[str] = ""
    #: Findings are shown in ascending order.
    order: ClassVar[int] = 100
    #: Names of the further `plots`.
    plot_names: ClassVar[tuple[str, ...]] = ()
    #: Properties that a record holds beside the fields.
    derived: ClassVar[tuple[str, ...]] = ()
    #: Whether `best` is the layer that is shown first.
    chooses_layer: ClassVar[bool] = False

    @property
    def key(self) -> str:
        """Name in `Result.findings`; that of its kind, unless a result can have several of the kind."""
        return self.kind

    @property
    def best(self) -> LayerInfo | None:
        """The layer that does best; None where there is none, or no better and worse."""
        return None

    def columns(self) -> Mapping[str, Column]:
        """Return the table's columns, each with a value per shown layer; NaN and None are empty."""
        return {}

    def caption(self, i: int) -> str:
        """Return a line or two about layer `i` for captions; empty for none."""
        for name, values in self.columns().items():
            return f"{name} {short(values[i])}"
        return ""

    def summary(self) -> str:
        """Return one sentence about all layers; empty for none."""
        for name, values in self.columns().items():
            numbers = _numbers(values)
            if np.isfinite(numbers).any():
                i = int(np.nanargmax(numbers))
                return f"{name}: highest {short(numbers[i])} at {self.layers[i].label}."
        return ""

    def warnings(self) -> tuple[str, ...]:
        """Return sentences that must stand beside every map of the result."""
        return ()

    def listing(self) -> Mapping[str, Sequence[str]]:
        """Return the columns of the command line's list, as short texts; by default the first column."""
        for name, values in self.columns().items():
            return {name: [short(value) for value in values]}
        return {}

    def panel(self) -> Panel | None:
        """Return the plot over the layers; by default each column of numbers as a line."""
        colors: tuple[Color, ...] = ("first", "second", "third", "fourth")
        columns = {name: _numbers(values) for name, values in self.columns().items()}
        known = [(name, y) for name, y in columns.items() if np.isfinite(y).any()]
        if not known:
            return None
        lines = tuple(Line(name, y, colors[k]) for k, (name, y) in enumerate(known[: len(colors)]))
        return Panel.over_layers(
            len(self.layers), lines=lines, y_label=known[0][0], tip=f"{self.title} of every layer."
        )

    def plots(self) -> Mapping[str, PlotOffer]:
        """Return further plots, by the names that `Animation.write_plot` takes."""
        return {}

    def record(self) -> dict[str, Any]:
        """Return the finding as plain data: its fields without the layers, and what is derived."""
        names = [f.name for f in fields(self) if f.name != "layers"]
        about = {name: plain(getattr(self, name)) for name in (*names, *self.derived)}
        best = self.best
        return {"kind": self.kind, **about, "best": None if best is None else best.label}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], layers: list[LayerInfo]) -> Self:
        """Return the finding that `record` describes.

        Raises
        ------
        ScoreError
            When a field is missing.
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
        self, layer: LayerInfo | None, values: npt.NDArray[np.float64], words: str
    ) -> Mark | None:
        """Return a mark at a layer's value, such as the best one's; None without a layer."""
        if layer is None:
            return None
        at = self.layers.index(layer)
        value = float(values[at])
        return Mark(words, at, value, f"{words}: {layer.label} ({value:.2f})")


@dataclass(frozen=True)
class FindingKind:
    """A kind of finding: how it is called, computed and set.

    Attributes
    ----------
    name : str
        As in ``camanim run --find NAME`` and `Animation.find`.
    title : str
        Of tabs and boxes.
    finding : type
    compute : callable
        ``compute(result, **settings, progress=...)``; with ``mask=`` where `needs_mask`.
    help : str
        One sentence.
    """

    name: str
    title: str
    finding: type[Finding]
    compute: Callable[..., Finding]
    help: str

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings, as the parameters of `compute` declare them."""
        declared = settings_of(self.compute)
        return {name: s for name, s in declared.items() if name not in _NO_SETTINGS}

    @property
    def needs_mask(self) -> bool:
        """Whether `compute` compares with a mask of the object."""
        return "mask" in signature(self.compute).parameters


@dataclass(frozen=True)
class FindingRequest:
    """A kind of finding by name, and the settings that were chosen for it."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> FindingKind:
        """The kind.

        Raises
        ------
        ScoreError
            When there is none of this name.
        """
        return find_kind(self.name)

    def arguments(self, further: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings, and those of `further` arguments that the kind takes."""
        taken = signature(self.kind.compute).parameters
        return {k: v for k, v in further.items() if k in taken} | dict(self.settings)


_KINDS: dict[str, FindingKind] = {}


def register_finding(finding: type[Finding]) -> Callable[[Compute], Compute]:
    """Enter a function that computes a finding into the registry.

    Parameters
    ----------
    finding : type
        What the function returns. Its `kind` is the name of the kind; a registered one of that name is
        replaced.

    Returns
    -------
    callable
        Takes the function and returns it. Its first parameter is a `Result`, its parameters with a
        default are settings (see `camanim.declarations`), and the first sentence of its docstring is the
        help.
    """

    def enter(compute: Compute) -> Compute:
        first = " ".join((compute.__doc__ or "").strip().partition("\n\n")[0].split())
        name, title = finding.kind, finding.title or finding.kind
        _KINDS[name] = FindingKind(name, title, finding, compute, first)
        return compute

    return enter


def unregister_finding(name: str) -> None:
    """Take a kind of finding out of the registry."""
    _KINDS.pop(name, None)


def finding_kinds() -> dict[str, FindingKind]:
    """Return the registered kinds, by name, in the order in which they are shown."""
    return dict(sorted(_KINDS.items(), key=lambda item: item[1].finding.order))


def find_kind(name: str) -> FindingKind:
    """Return a registered kind.

    Raises
    ------
    ScoreError
        When there is none of this name.
    """
    if name not in _KINDS:
        raise ScoreError(f"There is no finding {name!r}: there are {', '.join(_KINDS)}.")
    return _KINDS[name]


def in_order(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Return findings by their keys, in the order in which they are shown."""
    return {finding.key: finding for finding in sorted(findings, key=lambda f: f.order)}


def short(value: Any) -> str:
    """Write a value of a column in a few signs; nothing where there is none."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def plain(value: Any) -> Any:
    """Turn arrays, tuples and numpy's numbers into lists and Python's own."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def _restored(value: Any, hint: Any) -> Any:
    origin = get_origin(hint) or hint
    if origin is np.ndarray:
        dtype = get_args(get_args(hint)[1])[0]
        return np.array(value, dtype)
    return tuple(value) if origin is tuple else value


def _numbers(values: Column) -> npt.NDArray[np.float64]:
    """Return values as numbers; NaN where one is none."""
    kinds = (int, float, np.integer, np.floating)
    usable = [isinstance(v, kinds) and not isinstance(v, bool) for v in values]
    return np.array([float(v) if u else np.nan for v, u in zip(values, usable, strict=True)])
