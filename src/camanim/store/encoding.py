"""Values as JSON data and arrays, and back without any loss.

Arrays and tensors are put aside under a name. What JSON does not have is an object with one key that
begins with ``$``: tuples, mappings with other keys, numbers that are not finite, numpy scalars, and the
dataclasses of `TYPES`. Nothing else can be encoded, and decoding creates nothing else: no code of a file
is run, and no name in it is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import StoreError
from camanim.images import Geometry, SourcePlace
from camanim.layer_info import LayerInfo
from camanim.targets import (
    ClassTarget,
    Contrast,
    Counterfactual,
    Detection,
    FinerTarget,
    Norm,
    Segmentation,
    Similarity,
)
from camanim.targets.described import DescribedTarget
from camanim.window_grid import Windows

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]

#: Dataclasses that can be encoded, by name.
TYPES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        ClassTarget,
        Contrast,
        Counterfactual,
        DescribedTarget,
        Detection,
        FinerTarget,
        Geometry,
        LayerInfo,
        Norm,
        Segmentation,
        Similarity,
        SourcePlace,
        Windows,
    )
}
#: Kinds of numpy's types that are stored: booleans and numbers.
KINDS = "biufc"
#: Types of torch without an equivalent in numpy, and the integers with the same bits.
_AS_BITS = {"bfloat16": "int16"}


class Encoder:
    """Encoder of values, which puts arrays aside.

    Attributes
    ----------
    arrays : dict of str to numpy.ndarray
        The arrays by name.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}

    def encode(self, value: Any, name: str) -> Any:
        """Return a value as JSON data.

        Parameters
        ----------
        value : object
        name : str
            Name of the value, from which names of arrays are made.

        Raises
        ------
        StoreError
            If it has a part of a type that cannot be encoded.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if isinstance(value, str):
            # As torch's version.
            return str.__str__(value)
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if isinstance(value, np.ndarray):
            return {"$array": self._put(value, name)}
        if isinstance(value, np.generic):
            return {"$scalar": [value.dtype.str, self.encode(value.item(), name)]}
        if isinstance(value, list | tuple):
            items = [self.encode(item, f"{name}/{i}") for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if isinstance(value, Mapping):
            return self._mapping(value, name)
        if type(value) is TYPES.get(type(value).__name__):
            return {"$type": type(value).__name__, "fields": self.fields_of(value, name)}
        # By the name of its module, so that torch is not imported.
        if type(value).__module__ == "torch" and hasattr(value, "detach"):
            return self._tensor(value, name)
        raise StoreError(f"{name} is a {type(value).__name__}, which a file cannot hold.")

    def fields_of(self, value: Any, name: str, excluded: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the fields of a dataclass as JSON data."""
        return {
            f.name: self.encode(getattr(value, f.name), f"{name}/{f.name}")
            for f in fields(value)
            if f.name not in excluded
        }

    def _mapping(self, value: Mapping[Any, Any], name: str) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {k: self.encode(v, f"{name}/{i}") for i, (k, v) in enumerate(value.items())}
        entries = enumerate(value.items())
        pairs = [[self.encode(k, name), self.encode(v, f"{name}/{i}")] for i, (k, v) in entries]
        return {"$mapping": pairs}

    def _tensor(self, value: torch.Tensor, name: str) -> Any:
        import torch

        tensor = value.detach().cpu()
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype in _AS_BITS:
            tensor = tensor.view(getattr(torch, _AS_BITS[dtype]))
        if tensor.layout != torch.strided or tensor.dtype.is_complex:
            raise StoreError(f"{name} is a tensor of a type that a file cannot hold.")
        return {"$tensor": [dtype, self._put(tensor.numpy(), name)]}

    def _put(self, value: Array, name: str) -> str:
        if value.dtype.kind not in KINDS:
            raise StoreError(f"{name} is an array of {value.dtype}, which a file cannot hold.")
        self.arrays[name] = value
        return name


def decode(data: Any, array: Callable[[str], Array]) -> Any:
    """Return the value that JSON data of `Encoder.encode` describe.

    Parameters
    ----------
    data : object
    array : callable
        From a name to an array.

    Raises
    ------
    Exception
        Of any type, if the data were not made by `Encoder`.
    """
    if isinstance(data, list):
        return [decode(item, array) for item in data]
    if not isinstance(data, dict):
        return data
    mark = next((key for key in data if key.startswith("$")), None)
    if mark is None:
        return {key: decode(item, array) for key, item in data.items()}
    content = data[mark]
    if mark == "$float":
        return float(content)
    if mark == "$array":
        return array(content)
    if mark == "$tensor":
        return _tensor(content[0], content[1], array)
    if mark == "$scalar":
        return _scalar(content[0], content[1], array)
    if mark == "$tuple":
        return tuple(decode(item, array) for item in content)
    if mark == "$mapping":
        return {decode(k, array): decode(v, array) for k, v in content}
    if mark == "$type":
        return TYPES[content](**{k: decode(v, array) for k, v in data["fields"].items()})
    raise ValueError(f"unknown mark {mark}")


def _scalar(dtype: str, value: Any, array: Callable[[str], Array]) -> np.generic:
    kind = np.dtype(dtype)
    if kind.kind not in KINDS:
        raise ValueError(f"a scalar of {kind}")
    scalar: np.generic = kind.type(decode(value, array))
    return scalar


def _tensor(dtype: str, name: str, array: Callable[[str], Array]) -> torch.Tensor:
    import torch

    tensor = torch.from_numpy(array(name))
    if dtype in _AS_BITS:
        tensor = tensor.view(getattr(torch, dtype))
    if str(tensor.dtype) != f"torch.{dtype}":
        raise ValueError(f"a tensor of {dtype}")
    return tensor
