"""Listing of the classes that grad-cam exports, parsed from its sources to avoid importing torch."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "pytorch_grad_cam"


@dataclass(frozen=True)
class Entry:
    """Class that grad-cam exports.

    Attributes
    ----------
    source : str
        ``module:Class``
    summary : str
        First sentence of the docstring.
    """

    source: str
    summary: str


@cache
def grad_cam_classes() -> dict[str, Entry]:
    """Return the subclasses of ``BaseCAM`` that the installed grad-cam exports, by name.

    Returns
    -------
    dict of str to Entry
        Empty if grad-cam is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return {}
    return classes_in(Path(spec.origin).parent)


def classes_in(folder: Path) -> dict[str, Entry]:
    """Return the exported subclasses of ``BaseCAM`` in the folder of a package."""
    exported: dict[str, str] = {}
    for node in _parsed(folder / "__init__.py").body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            for name in node.names:
                exported[name.asname or name.name] = str(node.module)
    bases: dict[str, list[str]] = {}
    docs: dict[str, str] = {}
    for module in set(exported.values()):
        path = folder.joinpath(*module.split(".")[1:]).with_suffix(".py")
        for node in _parsed(path).body if path.is_file() else ():
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
                docs[node.name] = ast.get_docstring(node) or ""
    return {
        name: Entry(f"{module}:{name}", _summary(docs[name]))
        for name, module in exported.items()
        if name in bases and _is_cam(name, bases)
    }


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, SyntaxError, ValueError):
        # Other versions of grad-cam may have another layout.
        return ast.Module([], [])


def _is_cam(name: str, bases: dict[str, list[str]], depth: int = 9) -> bool:
    direct = bases.get(name, [])
    return "BaseCAM" in direct or (
        depth > 0 and any(_is_cam(base, bases, depth - 1) for base in direct)
    )


def _summary(text: str) -> str:
    first = " ".join(text.partition("\n\n")[0].split()).rstrip(":")
    return first or "A class of pytorch-grad-cam."
