"""From an image, networks and methods to a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim import catalogue
from camanim.curves import title_of
from camanim.errors import Cancelled, RenderError, SettingError
from camanim.figures.printed import PrintedFigure
from camanim.figures.registry import Axis, FigureKind, find_figure
from camanim.findings import Finding, find_kind
from camanim.progress import Progress, silent
from camanim.result import Result

if TYPE_CHECKING:
    from camanim.models import Model
    from camanim.targets import Target


def draw_figure(result: Result, name: str, /, *others: Result, **settings: Any) -> PrintedFigure:
    """Draw a figure for print by name.

    Parameters
    ----------
    result : Result
    name : str
        One of `camanim.figure_kinds`, such as ``"strip"``.
    *others : Result
        Further results, for figures of several.
    **settings
        Settings of the figure, such as ``width=85``.

    Returns
    -------
    PrintedFigure
        With `PrintedFigure.figure`, `caption` and `save`.

    Raises
    ------
    RenderError
        If the figure or a setting is unknown, a setting is wrong, or the figure shows another number of
        results.
    CamError
        As of the figure's function.
    """
    return find_figure(name).draw([result, *others], settings)


def write_figure(
    result: Result, path: str | Path, name: str, /, *others: Result, dpi: int = 300, **settings: Any
) -> Path:
    """Write a figure for print, and its caption as a text file beside it.

    Parameters
    ----------
    result : Result
    path : path-like
        Must end in ``.pdf``, ``.svg`` or ``.png``.
    name, *others, **settings
        As for `draw_figure`.
    dpi : int
        Resolution of a PNG, and of the pictures in the other formats, in dots per inch.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    CamError
        As of `draw_figure` and `PrintedFigure.save`.
    """
    return draw_figure(result, name, *others, **settings).save(path, dpi=dpi)


def make_figure(
    name: str,
    image: Any,
    models: str | Model | Sequence[str | Model],
    methods: str | Sequence[Any] = (),
    targets: Any = (),
    *,
    run: Mapping[str, Any] | None = None,
    find: Mapping[str, Any] | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> PrintedFigure:
    """Compute what a figure shows from an image, and draw it.

    Parameters
    ----------
    name : str
        One of `camanim.figure_kinds`, such as ``"strip"``.
    image : array-like
        As for `camanim.animate`.
    models : str, Model, or sequence of them
        Networks; several where the figure compares networks.
    methods : str, or sequence of them
        By default those of the figure, mostly GradCAM.
    targets : int, str, Target, or sequence of them
        By default the likeliest class; of the figure ``"classes"``, the five likeliest.
    run : mapping, optional
        Settings of the runs, as for `camanim.animate`, such as ``{"layers": "blocks"}``.
    find : mapping, optional
        Settings of the finding that the figure shows, such as ``{"draws": 16}``.
    progress : Progress
        Raises `Cancelled` to stop.
    **settings
        Settings of the figure, such as ``width=85``.

    Returns
    -------
    PrintedFigure

    Raises
    ------
    RenderError
        If the figure or a setting is unknown, a setting is wrong, or the figure cannot show as many
        networks, methods or classes.
    Cancelled
        If `progress` raises it; nothing is drawn.
    CamError
        As of `camanim.animate`, of the finding and of the figure.
    """
    kind = find_figure(name)
    checked = kind.checked(settings)
    lists: dict[Axis, list[Any]] = {
        "network": _listed(models),
        "method": _listed(methods) or list(kind.methods),
        "class": _listed(targets),
    }
    _check_counts(kind, lists)
    given = dict(run or {})
    if "progress" in given:
        raise SettingError("Pass progress to make_figure, not within run.")
    given |= kind.run
    finding = _finding_of(kind, checked)
    if find and not finding:
        raise RenderError(f"The figure {kind.name} shows no finding here: leave find out.")
    results: list[Result] = []
    done, count = 0, len(lists["network"]) * len(lists["method"])
    for requested in lists["network"]:
        model = _loaded(requested, progress)
        classes = lists["class"] or _likeliest(kind, model, image, given)
        for method in lists["method"]:
            progress("runs", done, count)
            results += _computed(kind, model, image, method, classes, given, progress)
            done += 1
    progress("runs", count, count)
    for result in results if finding else ():
        added = _add(result, finding, find or {}, progress)
        # A result can have several findings of a kind, whose keys and titles tell them apart.
        if "finding" in kind.settings:
            checked["finding"] = added.key
        elif "curve" in kind.settings:
            checked["curve"] = title_of(added)
    return kind.draw(results, checked)


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _check_counts(kind: FigureKind, lists: Mapping[Axis, Sequence[Any]]) -> None:
    if not lists["network"]:
        raise RenderError("There is no network: pass at least one.")
    plural = {"network": "networks", "method": "methods", "class": "classes"}
    for axis, items in lists.items():
        if len(items) > 1 and axis not in kind.varies:
            raise RenderError(
                f"The figure {kind.name} shows {kind.needs}, not {len(items)} {plural[axis]}: pass one."
            )


def _finding_of(kind: FigureKind, settings: Mapping[str, Any]) -> str:
    """Return the kind of finding that the figure shows, as chosen by its settings, or an empty text."""
    if settings.get("curve"):
        # Other curves, such as the parameters, are no findings.
        kinds = catalogue.finding_kinds()
        return next((n for n, k in kinds.items() if settings["curve"] in (n, k.title)), "")
    return str(settings.get("finding") or kind.finding)


def _loaded(requested: Any, progress: Progress) -> Any:
    if not isinstance(requested, str):
        return requested
    from camanim.models import load_model

    return load_model(requested, progress=progress)


def _likeliest(kind: FigureKind, model: Any, image: Any, run: Mapping[str, Any]) -> list[Any]:
    if kind.classes == 1:
        return [None]
    from camanim.images import take_region
    from camanim.models import Model

    network = model if isinstance(model, Model) else Model(model)
    known = {key: run[key] for key in ("fit", "window", "slices") if key in run}
    if run.get("box") is not None:
        image = take_region(image, run["box"], 3 if run.get("slices") else network.dims).pixels
    return [entry.index for entry in network.predict(image, kind.classes, **known)]


def _computed(
    kind: FigureKind,
    model: Any,
    image: Any,
    method: Any,
    targets: Sequence[Any],
    run: Mapping[str, Any],
    progress: Progress,
) -> list[Result]:
    from camanim.pipeline import explain

    results: list[Result] = []
    variants: Sequence[Mapping[str, Any]] = [{}]
    if kind.takes == "pair":
        variants = [{"counterfactual": False}, {"counterfactual": True}]
    for variant in variants:
        of = [_settled(results[0].target)] if results and targets == [None] else targets
        done = explain(model, image, of, method=method, **{**run, **variant}, progress=progress)
        if len(done) < len(targets) or any(result.cancelled for result in done):
            raise Cancelled("The computation of the figure was stopped.")
        results += done
    return results


def _settled(target: Target) -> Any:
    """Return what to explain in another run: the likeliest class may be another one there."""
    from camanim.targets import FinerTarget

    # The method makes a contrast of a class.
    return target.main if isinstance(target, FinerTarget) else target


def _add(result: Result, name: str, settings: Mapping[str, Any], progress: Progress) -> Finding:
    """Compute a finding, store it in the result and return it.

    Raises
    ------
    Cancelled
        If `progress` raises it, also if the finding keeps what it has until then.
    """
    kind = find_kind(name)
    kind.check_names(settings)
    stopped: list[Cancelled] = []

    def report(stage: str, done: int, total: int) -> None:
        try:
            progress(stage, done, total)
        except Cancelled as error:
            stopped.append(error)
            raise

    finding = kind.compute(result, **settings, progress=report)
    if stopped:
        raise stopped[0]
    result.add(finding)
    return finding
