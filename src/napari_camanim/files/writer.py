"""Writer of results: File > Save Selected Layers, and ``viewer.layers.save``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from camanim.errors import StoreError
from napari_camanim.layers.stack import StackData

#: What is a suffix of a name, and no part of it such as a number of a version.
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,5}$")
#: Suffix of a name that is given without one: one file, which no other reader opens.
SUFFIX = ".ozx"


def write(path: str, layers: list[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Write the result of a stack; its image is part of the result.

    Parameters
    ----------
    path : str
        See `camanim.store.save`; without a suffix, ``.ozx`` is added.
    layers : list of (data, attributes, type)
        One stack, or several of the same result; other layers are left out.

    Returns
    -------
    list of str
        The written path.

    Raises
    ------
    camanim.StoreError
        If there is no stack, or stacks of several results.
    camanim.RenderError
        If the path is invalid or cannot be written.
    """
    runs = {id(data.run): data.run for data, *_ in layers if isinstance(data, StackData)}
    if not runs:
        raise StoreError("These layers have no maps: select the stack of a run, and save it again.")
    if len(runs) > 1:
        raise StoreError(
            f"A file holds one result, and {len(runs)} are selected: save one stack after the other."
        )
    [run] = runs.values()
    return [str(run.animation.save(named(path)))]


def named(path: str | Path, suffix: str = SUFFIX) -> Path:
    """Return the path of a file to write, with a suffix if it has none.

    Raises
    ------
    StoreError
        If the name with the suffix exists already, which nobody was asked about.
    """
    target = Path(path)
    if _SUFFIX.search(target.name):
        # A wrong one is an error of the engine, which says which there are.
        return target
    target = target.with_name(f"{target.name}{suffix}")
    if target.exists():
        raise StoreError(f"{target.name} exists already: enter the whole name to replace it.")
    return target
