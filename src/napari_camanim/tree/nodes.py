"""The calls of a network's modules as a tree by their dotted names; independent of Qt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from camanim.findings import as_numbers
from camanim.layer_info import LayerInfo, Status
from camanim.result import Result


class Node:
    """A module, or a further call of a module.

    Attributes
    ----------
    name : str
        Last part of the dotted name; from the second call on with the number of the call.
    path : str
        Label of the call; the dotted name of a module that was not called.
    call : LayerInfo or None
        None for a module that was not called itself, such as a ``ModuleList``.
    index : int or None
        Index in ``result.layers`` of its map; None without a map.
    shows : int or None
        Index in ``result.layers`` of the map of its output: its own, or the one of the layer with the
        identical tensor.
    covered : (n,) array of int
        Indices of the maps of the node and all nodes below it, in ascending order.
    listed : list of Node
        The children that are not filtered out; see `list_matching`.
    row : int
        Position among the listed children of the parent.
    """

    __slots__ = (
        "call",
        "children",
        "covered",
        "index",
        "listed",
        "name",
        "parent",
        "path",
        "row",
        "shows",
        "words",
    )

    def __init__(self, name: str, path: str, parent: Node | None) -> None:
        self.name = name
        self.path = path
        self.parent = parent
        self.row = 0
        self.call: LayerInfo | None = None
        self.index: int | None = None
        self.shows: int | None = None
        self.children: list[Node] = []
        self.listed = self.children
        self.covered: npt.NDArray[np.intp] = np.empty(0, np.intp)
        #: What the filter compares with, in lower case.
        self.words = path.lower()
        if parent is not None:
            self.row = len(parent.children)
            parent.children.append(self)

    def __repr__(self) -> str:
        return f"<Node {self.path!r}, {len(self.children)} children>"

    def __iter__(self) -> Iterator[Node]:
        """Iterate over all nodes below this one, parents first."""
        for child in self.children:
            yield child
            yield from child

    @property
    def kind(self) -> str:
        """Class of the module; empty if it was not called."""
        return "" if self.call is None else self.call.kind

    @property
    def shape(self) -> str:
        """Shape of the output without its batch axis."""
        if self.call is None or self.call.shape is None:
            return ""
        return "×".join(map(str, self.call.shape[1:]))

    def matches(self, words: list[str]) -> bool:
        """Return whether all words, in lower case, are parts of the name or the kind."""
        return all(word in self.words for word in words)


def module_tree(result: Result) -> Node:
    """Return the root of the tree of all calls of a result, in order of execution.

    The root stands for no row. The call of the network itself, if it was recorded, is its last child.

    Parameters
    ----------
    result : Result
    """
    root = Node("", "", None)
    modules: dict[str, Node] = {}

    def module(path: str) -> Node:
        if path not in modules:
            above, _, name = path.rpartition(".")
            modules[path] = Node(name, path, module(above) if above else root)
        return modules[path]

    positions = {layer.index: i for i, layer in enumerate(result.layers)}
    for call in result.layer_calls:
        if call.name:
            node = module(call.name)
            if call.call:
                assert node.parent is not None
                node = Node(f"{node.name} #{call.call + 1}", call.label, node.parent)
        else:
            node = Node(call.label, call.label, root)
        node.call = call
        node.index = node.shows = positions.get(call.index)
        if node.shows is None and call.same_as is not None:
            node.shows = positions.get(call.same_as)
        node.words = f"{call.label} {call.kind}".lower()
    _cover(root)
    return root


def list_matching(node: Node, accepts: Callable[[Node], bool] | None) -> bool:
    """List the nodes that are accepted, and their ancestors; return whether any is listed.

    Parameters
    ----------
    node : Node
        The root.
    accepts : callable or None
        From a node to whether it is listed; None to list all nodes.
    """
    found = False
    node.listed = node.children if accepts is None else []
    for child in node.children:
        below = list_matching(child, accepts)
        if accepts is None:
            found = True
        elif below or accepts(child):
            found = True
            node.listed.append(child)
    for row, child in enumerate(node.listed):
        child.row = row
    return found


def _cover(node: Node) -> list[int]:
    covered = [] if node.index is None else [node.index]
    for child in node.children:
        covered += _cover(child)
    node.covered = np.array(sorted(covered), np.intp)
    return covered


def reason(node: Node, labels: dict[int, str]) -> str:
    """Return why a node has no map, in a few words; empty if it has one.

    Parameters
    ----------
    node : Node
    labels : dict of int to str
        Labels of the calls by their index in the order of execution.
    """
    if node.index is not None:
        return ""
    if node.call is None:
        return "not called itself"
    status = node.call.status
    if node.call.same_as is not None and status in (Status.NOT_SELECTED, Status.OK):
        return f"same output as {labels.get(node.call.same_as, 'an earlier layer')}"
    return status


def score_column(result: Result) -> tuple[str, npt.NDArray[np.float64]] | None:
    """Return name and values of the first numeric column of the findings; None without one.

    Parameters
    ----------
    result : Result

    Returns
    -------
    (str, (L,) array) or None
        A value per layer with a map, NaN where it has none. Findings are in display order, which begins
        with ROAD.
    """
    for finding in result.findings.values():
        for name, column in finding.columns().items():
            values = as_numbers(column)
            if np.isfinite(values).any():
                return name, values
    return None


def brief_count(number: int) -> str:
    """Format a count with two digits and a unit, such as ``26M``; 0 as an empty string."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            share = number / size
            return f"{share:.1f}{unit}" if share < 9.95 else f"{share:.0f}{unit}"
    return str(number) if number else ""
