"""From the request of one run to those of the runs that are compared with each other; without Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import SettingError

if TYPE_CHECKING:
    from napari_camanim.work.networks import ModelSpec
    from napari_camanim.work.request import RunRequest

#: Selections of layers that any network has.
GENERAL = ("unique", "all", "blocks")


@dataclass(frozen=True)
class LabelledRequest:
    """A request, and what distinguishes it from the others.

    Attributes
    ----------
    label : str
        Network and method, as far as they are varied; empty if only targets are.
    request : RunRequest
        With all targets, as they share one forward pass.
    notes : tuple of str
        Settings that were reset, as they belong to another method or network.
    """

    label: str
    request: RunRequest
    notes: tuple[str, ...] = ()


def variants(
    request: RunRequest,
    *,
    methods: Sequence[str] = (),
    targets: Sequence[Any] = (),
    networks: Sequence[ModelSpec] = (),
    most: int | None = None,
) -> list[LabelledRequest]:
    """Return the requests of one run with other methods, targets and networks, in all combinations.

    Networks vary slowest, so that each is loaded once.

    Parameters
    ----------
    request : RunRequest
        What is not varied is taken from it.
    methods : sequence of str
        Names of methods; none for that of the request.
    targets : sequence
        Targets, as in ``camanim.animate_targets``; none for those of the request.
    networks : sequence of ModelSpec
        None for that of the request.
    most : int, optional
        Largest number of results.

    Returns
    -------
    list of LabelledRequest
        One for each network and method. Each result in one stack for each target.

    Raises
    ------
    SettingError
        If a method, target or network is named twice, or there are more than `most` results.
    """
    for name, values in (("method", methods), ("class", targets), ("network", networks)):
        if any(value in values[:i] for i, value in enumerate(values)):
            raise SettingError(f"A {name} is named twice: compare each of them once.")
    explained = list(targets) or request.targets
    models = list(networks) or [request.network]
    names = list(methods) or [request.method]
    count = len(models) * len(names) * len(explained)
    if most is not None and count > most:
        raise SettingError(f"These are {count} runs: at most {most} are shown side by side.")
    labelled = []
    for network in models:
        for method in names:
            settings, notes = _settings(request, method, network)
            changed = replace(
                request, network=network, method=method, targets=list(explained), settings=settings
            )
            words = [network.source] * (len(models) > 1) + [method] * (len(names) > 1)
            labelled.append(LabelledRequest(" ".join(words), changed, notes))
    return labelled


def _settings(
    request: RunRequest, method: str, network: ModelSpec
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings for another method and network, and notes about those that were reset."""
    settings, notes = dict(request.settings), []
    if method != request.method and settings.get("options"):
        settings["options"] = {}
        notes.append(f"{method}: the options of {request.method} were not used.")
    if network != request.network:
        if settings.get("layers", "unique") not in GENERAL:
            settings["layers"] = "unique"
            notes.append(
                f"{network.source}: all layers, as those of another network were selected."
            )
        if settings.get("layouts"):
            settings["layouts"] = None
            notes.append(f"{network.source}: without the layouts of another network.")
    return settings, tuple(notes)
