"""Stages of a network: consecutive layer calls whose modules have the same leading name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from camanim.layer_info import LayerInfo

#: A group with more than this share of the layers, such as `features`, is divided further.
DIVIDED = 0.8


@dataclass(frozen=True)
class Stage:
    """Consecutive layers of one part of a network.

    Attributes
    ----------
    name : str
        Leading part of the modules' names, such as ``features.denseblock1``; for several modules in
        sequence the first and the last, ``conv1 to maxpool``.
    label : str
        The last part of the name, for narrow places.
    first, last : int
        Indices of the first and the last layer in the list.
    """

    name: str
    label: str
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1


def stages(layers: Sequence[LayerInfo]) -> list[Stage]:
    """Divide layers into stages by the leading parts of their modules' names.

    Layers are grouped by the first part of their names (``layer1`` of ``layer1.0.conv1``). A group with
    more than 80 % of all layers (``features``) is divided by the next part. Groups in sequence that
    consist of a single module each (``conv1``, ``bn1``, ``relu``) are one stage.

    Parameters
    ----------
    layers : sequence of LayerInfo
        In order of execution.

    Returns
    -------
    list of Stage
        In order of execution; they cover all layers.
    """
    names = [tuple(layer.name.split(".")) for layer in layers]
    groups = _merged(_groups(names, range(len(names)), 1), names)
    return [
        Stage(
            _joined(group.start, group.end, " to "),
            _joined(group.start[-1:], group.end[-1:], "–"),
            group.first,
            group.last,
        )
        for group in groups
    ]


@dataclass(frozen=True)
class _Group:
    """Consecutive layers; `start` and `end` are equal unless several modules were merged."""

    start: tuple[str, ...]
    end: tuple[str, ...]
    first: int
    last: int


def _groups(names: Sequence[tuple[str, ...]], indices: range, depth: int) -> list[_Group]:
    groups: list[_Group] = []
    for path, members in groupby(indices, lambda i: names[i][:depth]):
        inside = list(members)
        first, last = inside[0], inside[-1]
        if len(inside) > DIVIDED * len(names) and any(len(names[i]) > depth for i in inside):
            groups += _groups(names, range(first, last + 1), depth + 1)
        else:
            groups.append(_Group(path, path, first, last))
    return groups


def _merged(groups: list[_Group], names: Sequence[tuple[str, ...]]) -> list[_Group]:
    """Merge groups in sequence that consist of one module each, as in networks without blocks."""
    merged: list[_Group] = []
    before_is_single = False
    for group in groups:
        single = all(names[i] == group.start for i in range(group.first, group.last + 1))
        if single and before_is_single:
            before = merged.pop()
            group = _Group(before.start, group.end, before.first, group.last)
        merged.append(group)
        before_is_single = single
    return merged


def _joined(start: tuple[str, ...], end: tuple[str, ...], between: str) -> str:
    ends = [start] if start == end else [start, end]
    return between.join(".".join(path) or "(network)" for path in ends)
