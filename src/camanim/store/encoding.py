"""Values as JSON data and arrays, and back without any loss.

Arrays and tensors are put aside under a name. What JSON does not have is an object with one key that
begins with ``$``: tuples, mappings with other keys, numbers that are not finite, numpy scalars, and the
dataclasses of `TYPES`. Nothing else can be encoded, and decoding creates nothing else: no code of a file
is run, and no name in it is imported.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import StoreError
from camanim.images import Geometry, SourcePlace
from camanim.layer_info import LayerInfo
from camanim.store.checking import check_fields
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
#: Kinds of numpy's types that are stored: booleans and real numbers, of at most 8 bytes.
KINDS = "biuf"
_LONGEST_ITEM = 8
#: Longest integer, in bits, as Python reads no longer ones from text.
_BITS = 4096
#: Names that arrays can have on all systems.
_NAME = re.compile(r"[A-Za-z0-9_ ]+(/[A-Za-z0-9_ ]+)*")
#: The usual NaN; others have a sign or further bits.
_NAN = struct.pack("<d", math.nan)
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
        self._names: set[str] = set()

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
        if type(value) is int and value.bit_length() > _BITS:
            raise StoreError(f"{name} is an integer of more than {_BITS} bits.")
        if value is None or type(value) in (bool, int, str):
            return value
        if isinstance(value, str):
            # As torch's version.
            return str.__str__(value)
        if type(value) is float:
            return value if math.isfinite(value) else {"$float": _not_finite(value)}
        if isinstance(value, np.ndarray):
            return {"$array": self._put(value, name)}
        if isinstance(value, np.generic):
            _check_dtype(value.dtype, name)
            if value.dtype.kind == "f" and not np.isfinite(value):
                # With its sign and all bits.
                return {"$scalar": [value.dtype.str, value.tobytes().hex()]}
            return {"$scalar": [value.dtype.str, value.item()]}
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

        dtype = str(value.dtype).removeprefix("torch.")
        try:
            tensor = value.detach().cpu().resolve_conj().resolve_neg()
            if dtype in _AS_BITS:
                tensor = tensor.view(getattr(torch, _AS_BITS[dtype]))
            array = tensor.numpy()
        except (TypeError, RuntimeError) as error:
            # On the meta device, sparse, or of a type without an equivalent in numpy.
            raise StoreError(
                f"{name} is a tensor ({dtype}, {value.device}) that a file cannot hold."
            ) from error
        return {"$tensor": [dtype, self._put(array, name)]}

    def _put(self, value: Array, name: str) -> str:
        if isinstance(value, np.ma.MaskedArray):
            raise StoreError(f"{name} is a masked array, which a file cannot hold.")
        _check_dtype(value.dtype, name)
        # Some systems do not distinguish capital letters.
        if not _NAME.fullmatch(name) or name.lower() in self._names:
            name = f"arrays/{len(self.arrays)}"
        self._names.add(name.lower())
        self.arrays[name] = value
        return name


def _check_dtype(dtype: np.dtype[Any], name: str) -> None:
    if dtype.kind not in KINDS or dtype.itemsize > _LONGEST_ITEM:
        raise StoreError(f"{name} is of {dtype}, which a file cannot hold.")


def _not_finite(value: float) -> str:
    bits = struct.pack("<d", value)
    return repr(value) if not math.isnan(value) or bits == _NAN else bits.hex()


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
        known = content in ("nan", "inf", "-inf")
        return float(content) if known else float(struct.unpack("<d", bytes.fromhex(content))[0])
    if mark == "$array":
        return array(content)
    if mark == "$tensor":
        return _tensor(content[0], content[1], array)
    if mark == "$scalar":
        return _scalar(*content)
    if mark == "$tuple":
        return tuple(decode(item, array) for item in content)
    if mark == "$mapping":
        return {decode(k, array): decode(v, array) for k, v in content}
    if mark == "$type":
        cls = TYPES[content]
        made = cls(**{k: decode(v, array) for k, v in data["fields"].items()})
        check_fields(made)
        return made
    raise ValueError(f"unknown mark {mark}")


def _scalar(dtype: str, value: Any) -> np.generic:
    kind = np.dtype(dtype)
    _check_dtype(kind, "a scalar")
    if isinstance(value, str):
        return np.frombuffer(bytes.fromhex(value), kind, count=1)[0]  # type: ignore[no-any-return]
    if type(value) not in (bool, int, float):
        raise ValueError("a scalar is no number")
    scalar: np.generic = kind.type(value)
    return scalar


def _tensor(dtype: str, name: str, array: Callable[[str], Array]) -> torch.Tensor:
    import torch

    tensor = torch.from_numpy(array(name))
    if dtype in _AS_BITS:
        tensor = tensor.view(getattr(torch, dtype))
    if str(tensor.dtype) != f"torch.{dtype}":
        raise ValueError(f"a tensor of {dtype}")
    return tensor
