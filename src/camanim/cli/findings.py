"""``camanim findings``, and the options of ``camanim run`` that request findings."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from camanim.catalogue import finding_kinds
from camanim.cli import options
from camanim.cli.terminal import print_json, say, setting_record
from camanim.declarations import check_values
from camanim.errors import ScoreError
from camanim.findings import FindingRequest, find_kind
from camanim.render.plots import SCORES, kind_of_plot

if TYPE_CHECKING:
    from camanim.animation import Animation


@options.with_options("", ("as_json",))
def findings(as_json: bool = False) -> None:
    """List the findings that --find takes, with their settings."""
    kinds = finding_kinds()
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "help": kind.help,
                    "needs mask": kind.needs_mask,
                    "settings": [setting_record(s) for s in kind.settings.values() if s.is_textual],
                }
                for name, kind in kinds.items()
            ]
        )
        return
    for name, kind in kinds.items():
        say(f"{name}: {kind.help}")
        for setting in kind.settings.values():
            if setting.is_textual:
                say(f"  {setting.name}={setting.default}  {setting.help} ({setting.expected})")


def parse_requests(
    find: Sequence[str] | None, measure: Sequence[str] | None, *, mask: bool, checks: bool
) -> list[FindingRequest]:
    """Return the findings requested by options, with checked settings.

    Parameters
    ----------
    find, measure : sequence of str or None
        Values of ``--find`` and ``--measure``.
    mask, checks : bool
        Whether ``--mask`` and ``--checks`` are given.

    Raises
    ------
    typer.BadParameter
        If a text cannot be parsed, or a mask is missing.
    ScoreError
        If a finding is unknown or a setting is wrong.
    """
    requests = [FindingRequest("localisation")] if mask else []
    requests += [_parse_request(text) for text in find or ()]
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


def check_plot_kind(name: str, requests: Sequence[FindingRequest]) -> None:
    """Raise `typer.BadParameter` if no requested finding provides the plot."""
    if name == SCORES:
        if not requests:
            raise typer.BadParameter("--plot needs scores: add --road, --mask or --find.")
        return
    kind = kind_of_plot(name)
    if kind.name not in [request.name for request in requests]:
        raise typer.BadParameter(f"--plot-kind {name} needs a finding: add --find {kind.name}.")


def _parse_request(text: str) -> FindingRequest:
    """Parse ``road:repeats=3,draws=16``."""
    name, _, assignments = text.partition(":")
    declared = [key for key, setting in find_kind(name).settings.items() if setting.is_textual]
    settings: dict[str, Any] = {}
    # A comma within brackets belongs to the value, as in percentiles=(20,40).
    for assignment in filter(None, re.split(r",(?![^(\[]*[)\]])", assignments)):
        key, equals, value = assignment.partition("=")
        if not equals or key not in declared:
            names = ", ".join(declared) or "none"
            raise typer.BadParameter(
                f"Settings of {name} are {names}, as key=value, not {assignment!r}; several values are "
                "written as key=[a,b]."
            )
        settings[key] = _literal_or_text(value)
    return FindingRequest(name, settings)


def _literal_or_text(text: str) -> Any:
    """Return a Python literal, several texts from [a,b] without quotes, or the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if re.fullmatch(r"\[.*\]|\(.*\)", text):
            return [item.strip() for item in text[1:-1].split(",")]
        return text


def compute(
    animation: Animation,
    requests: Sequence[FindingRequest],
    defaults: Mapping[str, Any],
    announced: set[str],
) -> list[str]:
    """Compute the requested findings, and return the messages of those that failed.

    The prices of expensive findings are printed first, for each request once.

    Parameters
    ----------
    animation : Animation
    requests : sequence of FindingRequest
    defaults : mapping
        Arguments for all kinds that have these parameters.
    announced : set of str
        Requests whose price was printed, as texts, to which others are added.

    Raises
    ------
    ScoreError
        If the mask does not fit the image, or a test has no layer.
    """
    problems = []
    for request in requests:
        if str(request) in announced:
            continue
        announced.add(str(request))
        price = request.kind.price(animation, request.settings)
        if price:
            say(price, error=True)
    for request in requests:
        try:
            animation.find(request.name, **request.arguments(defaults))
        except ScoreError as error:
            if request.kind.needs_mask:
                raise
            problems.append(str(error))
    return problems
