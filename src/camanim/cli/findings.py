"""Findings on the command line: requested by name, each with settings of its kind."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from camanim.catalogue import finding_kinds
from camanim.declarations import check_values
from camanim.errors import ScoreError
from camanim.findings import FindingRequest, find_kind
from camanim.render.plots import SCORES, kind_of_plot

if TYPE_CHECKING:
    from camanim.animation import Animation


def findings() -> None:
    """List the findings that --find takes, with their settings."""
    out = Console(soft_wrap=True, highlight=False)
    for name, kind in finding_kinds().items():
        out.print(f"{name}: {kind.help}", markup=False)
        for setting in kind.settings.values():
            out.print(
                f"  {setting.name}={setting.default}  {setting.help} ({setting.expected})",
                markup=False,
            )


def requested(
    find: Sequence[str] | None, measure: Sequence[str] | None, *, mask: bool, checks: bool
) -> list[FindingRequest]:
    """Read which findings were requested, also by the short forms, and check their settings."""
    requests = [FindingRequest("localisation")] if mask else []
    requests += [_read(text) for text in find or ()]
    for text in measure or ():
        name, _, imputation = text.partition(":")
        requests.append(
            FindingRequest("measure", {"name": name, "imputation": imputation or "blur"})
        )
    if checks:
        requests += [FindingRequest("randomisation"), FindingRequest("label_randomisation")]
    for request in requests:
        kind = request.kind
        check_values(kind.compute, request.settings, ScoreError)
        if kind.needs_mask and not mask:
            raise typer.BadParameter(f"--find {request.name} compares with a mask: add --mask.")
    return requests


def check_plot_kind(what: str, requests: Sequence[FindingRequest]) -> None:
    """Refuse a plot for which nothing will be computed."""
    if what == SCORES:
        if not requests:
            raise typer.BadParameter("--plot has nothing to show: add --road, --mask or --find.")
        return
    kind = kind_of_plot(what)
    if kind.name not in [request.name for request in requests]:
        raise typer.BadParameter(f"--plot has nothing to show: add --find {kind.name}.")


def _read(text: str) -> FindingRequest:
    """Read ``road:repeats=3,draws=16``."""
    name, _, rest = text.partition(":")
    known = find_kind(name).settings
    settings: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            names = ", ".join(known) or "none"
            raise typer.BadParameter(f"Settings of {name} are {names}, as key=value, not {part!r}.")
        settings[key] = _value(value)
    return FindingRequest(name, settings)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def compute(
    animation: Animation, requests: Sequence[FindingRequest], further: Mapping[str, Any]
) -> list[str]:
    """Compute what was requested; return why some of it cannot be, as the rest is kept.

    Each compute function gets those of `further` arguments that it takes.
    """
    refused = []
    for request in requests:
        try:
            animation.find(request.name, **request.arguments(further))
        except ScoreError as error:
            # A mask of another size is told before anything long is computed.
            if request.kind.needs_mask:
                raise
            refused.append(str(error))
    return refused
