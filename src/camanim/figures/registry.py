"""The registry of figures: the command line, the dock and the gallery loop over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import wraps
from typing import Any, Literal, ParamSpec

from camanim.declarations import Setting, bind, check_values, settings_of
from camanim.errors import RenderError
from camanim.figures.printed import PrintedFigure
from camanim.figures.style import MapStyle, PlotStyle
from camanim.result import Result

P = ParamSpec("P")

Takes = Literal["one", "several", "pair"]
Axis = Literal["network", "method", "class"]


@dataclass(frozen=True)
class FigureKind:
    """A registered figure: its name, function, settings, and the results that it needs.

    Attributes
    ----------
    name : str
        As in `make_figure` and `Animation.figure`.
    title : str
    function : callable
        ``function(result, **settings)`` for `takes` "one", ``function(results, **settings)`` for
        "several", ``function(result, counter_result, **settings)`` for "pair".
    help : str
        Description in one sentence.
    style : type
        Dataclass of the settings that it shares with other figures.
    takes : {"one", "several", "pair"}
        How many results it shows; "several" includes one.
    varies : tuple of {"network", "method", "class"}
        In what the results may differ.
    finding : str
        Name of the finding that it shows; empty for none.
    run : mapping
        Settings of the run that it needs, such as ``{"show_1d": True}``.
    methods : tuple of str
        Methods that it shows by default.
    classes : int
        Number of the likeliest classes that it shows by default.
    """

    name: str
    title: str
    function: Callable[..., PrintedFigure]
    help: str
    style: type[MapStyle] | type[PlotStyle]
    takes: Takes = "one"
    varies: tuple[Axis, ...] = ()
    finding: str = ""
    run: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = ("GradCAM",)
    classes: int = 1

    @property
    def settings(self) -> dict[str, Setting]:
        """Settings: the parameters of the function, and the fields of `style`."""
        return {**settings_of(self.function), **settings_of(self.style)}

    @property
    def needs(self) -> str:
        """The results that it shows, in words."""
        if self.takes == "pair":
            return "a result and its counterfactual"
        needs = "one result"
        if self.takes == "several":
            plural = {"network": "networks", "method": "methods", "class": "classes"}
            *most, last = (plural[axis] for axis in self.varies)
            axes = f"{', '.join(most)} or {last}" if most else last
            needs = f"one result, or several of different {axes}"
        return f"{needs}, with the finding {self.finding}" if self.finding else needs

    def checked(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings, checked.

        Raises
        ------
        RenderError
            If a setting is unknown, of the wrong type or out of range.
        """
        known = self.settings
        for name in settings:
            if name not in known:
                near = get_close_matches(name, known, n=2)
                hint = (
                    f"did you mean {' or '.join(near)}?"
                    if near
                    else f"choose one of {', '.join(known)}."
                )
                raise RenderError(f"Unknown setting {name!r} of the figure {self.name}: {hint}")
        values = check_values(self.function, settings, RenderError)
        return check_values(self.style, values, RenderError)

    def draw(self, results: Sequence[Result], settings: Mapping[str, Any]) -> PrintedFigure:
        """Draw the figure of results.

        Raises
        ------
        RenderError
            If the number of results is wrong, or a setting.
        CamError
            As of the function.
        """
        count = len(results)
        expected = {"one": count == 1, "pair": count == 2, "several": count > 0}
        if not expected[self.takes]:
            raise RenderError(f"The figure {self.name} shows {self.needs}, not {count} results.")
        arguments: Sequence[Any] = [list(results)] if self.takes == "several" else results
        return self.function(*arguments, **self.checked(settings))


_KINDS: dict[str, FigureKind] = {}


def register_figure(
    title: str,
    style: type[MapStyle] | type[PlotStyle],
    *,
    name: str = "",
    **facts: Any,
) -> Callable[[Callable[P, PrintedFigure]], Callable[P, PrintedFigure]]:
    """Return a decorator that registers a function as a figure.

    Parameters
    ----------
    title : str
    style : type
        See `FigureKind`.
    name : str
        By default that of the function.
    **facts
        Further fields of `FigureKind`.

    Returns
    -------
    callable
        Decorator that returns the function with its settings checked: parameters with a default, and
        fields of `style`, which the function takes as ``**style``. The first paragraph of its docstring
        is the help.
    """

    def register(function: Callable[P, PrintedFigure]) -> Callable[P, PrintedFigure]:
        known = name or function.__name__

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> PrintedFigure:
            bound = bind(function, RenderError, args, kind.checked(kwargs))
            return function(*bound.args, **bound.kwargs)

        summary = " ".join((function.__doc__ or "").strip().partition("\n\n")[0].split())
        kind = FigureKind(known, title, call, summary, style, **facts)
        _KINDS[known] = kind
        return call

    return register


def figure_kinds() -> dict[str, FigureKind]:
    """Return all figures by name."""
    return dict(_KINDS)


def find_figure(name: str) -> FigureKind:
    """Return a figure by name; dashes stand for underscores.

    Raises
    ------
    RenderError
        If the name is unknown.
    """
    known = str(name).replace("-", "_")
    if known not in _KINDS:
        near = get_close_matches(known, _KINDS, n=3, cutoff=0.4) or list(_KINDS)
        raise RenderError(f"Unknown figure {name!r}: choose one of {', '.join(near)}.")
    return _KINDS[known]
