"""Check the parts of a result: their types, and that they fit each other.

A saved result may come from anywhere, and one in memory may have been changed. Both are checked alike,
so that a file that was written opens again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from camanim.findings import Finding
from camanim.images import Geometry
from camanim.layer_info import LayerInfo
from camanim.result import Result
from camanim.store.nodes import Invalid
from camanim.window_grid import Windows

#: Longest side of an image or an input.
_SIDE = 2**20
#: Kinds of arrays that can stand for numbers of a kind.
_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
#: Deepest nesting of targets.
_DEPTH = 20


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of an annotated type; a hint that is not known fits everything.

    Numbers of numpy are numbers, lists and tuples are sequences, and arrays of integers fit those of
    floats.
    """
    origin = get_origin(hint)
    if origin is Annotated:
        return fits(value, get_args(hint)[0])
    if origin in (Union, UnionType):
        return any(fits(value, member) for member in get_args(hint))
    if origin is Literal:
        return isinstance(value, str | bool | int | None) and value in get_args(hint)
    if hint is None or hint is NoneType:
        return value is None
    # NDArray[float64] is ndarray[..., dtype[float64]], or since numpy 2.5 a separate alias.
    if origin in (np.ndarray, npt.NDArray) or hint is np.ndarray:
        return isinstance(value, np.ndarray) and _fits_dtype(value.dtype, get_args(hint))
    if origin is tuple:
        return _fits_items(value, get_args(hint))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _fits_mapping(value, get_args(hint))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return _fits_items(value, (*get_args(hint), Ellipsis))
    return _fits_type(value, hint)


def _fits_type(value: Any, hint: Any) -> bool:
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) and hint is not Any else True


def _fits_dtype(dtype: np.dtype[Any], arguments: tuple[Any, ...]) -> bool:
    members = [item for each in arguments[-1:] for item in get_args(each) or (each,)]
    scalars = [m for m in members if isinstance(m, type) and issubclass(m, np.generic)]
    if not scalars or scalars[0] is np.generic:
        return dtype.kind in "biuf"
    return dtype.kind in _KINDS.get(np.dtype(scalars[0]).kind, "")


def _fits_items(value: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(value, list | tuple):
        return False
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return all(fits(item, arguments[0]) for item in value)
    return len(value) == len(arguments) and all(map(fits, value, arguments))


def _fits_mapping(value: Any, arguments: tuple[Any, ...]) -> bool:
    key, item = arguments or (Any, Any)
    return isinstance(value, Mapping) and all(
        fits(k, key) and fits(v, item) for k, v in value.items()
    )


@cache
def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except (NameError, TypeError, AttributeError):
        # A name imported under TYPE_CHECKING, in a finding of a user.
        return {}


def check_fields(value: Any) -> None:
    """Raise `Invalid` if a field of a dataclass is not of its annotated type."""
    hints = _hints(cast("type", type(value)))
    for f in fields(value):
        content = getattr(value, f.name)
        # Findings of users may have the default None without saying so in the annotation.
        is_default = content is None and f.default is None
        if not is_default and not fits(content, hints.get(f.name, Any)):
            raise Invalid(f"{f.name} of {type(value).__name__} is of another type")
    if isinstance(value, Geometry):
        _check_geometry(value)
    if isinstance(value, Windows):
        _check_windows(value)


def _check_geometry(geometry: Geometry) -> None:
    count = len(geometry.size)
    numbers = (*geometry.scale, *geometry.offset)
    if count not in (2, 3) or not all(0 < n <= _SIDE for n in geometry.size):
        raise Invalid("a geometry has another size than an image")
    if len(numbers) != 2 * count or not all(map(math.isfinite, numbers)):
        raise Invalid("a geometry has no finite scale and offset along each axis")
    if not all(n > 0 for n in geometry.scale):
        raise Invalid("the scale of a geometry is not positive")


def _check_windows(windows: Windows) -> None:
    if len(windows.size) not in (2, 3) or len(windows.starts) != len(windows.size):
        raise Invalid("windows have another number of axes than an image")
    if windows.values.shape != windows.shape or windows.done.shape != windows.shape:
        raise Invalid("the values of windows have another shape than their places")
    if not all(0 < n <= _SIDE for n in windows.size):
        raise Invalid("windows have another size than an image")


def check_result(result: Result) -> None:
    """Raise an error where parts of a result are of other types, or do not fit each other.

    Raises
    ------
    Invalid
        With what is wrong.
    Exception
        Of any type, as of a finding that fails on its values.
    """
    check_fields_of_result(result)
    _check_layers(result)
    _check_target(result.target)
    _check_pictures(result)
    for finding in result.findings.values():
        _check_finding(finding, result)
    for i in range(len(result)):
        result.caption(i)
    _ = result.initial_index, result.warnings, result.cancelled, repr(result)


def check_fields_of_result(result: Result) -> None:
    """Raise `Invalid` if a plain field of a result is of another type."""
    expected: dict[str, Any] = {
        "method": str,
        "probability": float,
        "geometry": Geometry,
        "provenance": Mapping[str, Any],
        "forward_seconds": float,
        "notes": list[str],
        "extremes": list[tuple[float, float]] | None,
        "placement": Geometry | None,
        "windows": Windows | None,
        "layers": list[LayerInfo],
        "layer_calls": list[LayerInfo],
        "maps": list[np.ndarray],
    }
    for name, hint in expected.items():
        if not fits(getattr(result, name), hint):
            raise Invalid(f"{name} is of another type")
    if not result.method.isprintable():
        raise Invalid("the name of the method is not printable")
    for part in (result.geometry, result.placement, result.windows):
        if part is not None:
            check_fields(part)
    if not (math.isfinite(result.forward_seconds) and result.forward_seconds >= 0):
        raise Invalid("forward_seconds is not a time")


def _check_layers(result: Result) -> None:
    space, count = len(result.geometry.size), len(result.layers)
    if not count or len(result.maps) != count:
        raise Invalid("layers and maps differ in number")
    if result.extremes is not None and len(result.extremes) != count:
        raise Invalid("extremes and maps differ in number")
    for values in result.maps:
        if values.dtype != np.float32:
            raise Invalid(f"a map is of {values.dtype}, not float32")
        if values.ndim != space or not values.size:
            raise Invalid("a map has another number of axes than its network")
    for layer in result.layer_calls:
        check_fields(layer)
        if layer.same_as is not None and not 0 <= layer.same_as < len(result.layer_calls):
            raise Invalid("a layer is the same as one that does not exist")
        if not math.isfinite(layer.milliseconds):
            raise Invalid("the milliseconds of a layer are not a time")


def _check_target(target: Any, depth: int = 0) -> None:
    if depth > _DEPTH:
        raise Invalid("a target has too many parts")
    if isinstance(target, Geometry | Windows | LayerInfo) or not callable(
        getattr(target, "score", None)
    ):
        raise Invalid("the target is none")
    if is_dataclass(target):
        for f in fields(target):
            part = getattr(target, f.name)
            if callable(getattr(part, "score", None)):
                _check_target(part, depth + 1)
    if not isinstance(target.name, str) or target.unit not in ("probability", "score"):
        raise Invalid("the target has no name or unit")
    if not fits(target.index, int | None) or not isinstance(target.describe(), Mapping):
        raise Invalid("the target has no index or description")


def _check_pictures(result: Result) -> None:
    import torch

    space, image, tensor = len(result.geometry.size), result.image, result.tensor
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or not image.size:
        raise Invalid("the image is not of uint8")
    if image.ndim != space and (image.ndim != space + 1 or image.shape[-1] != 3):
        raise Invalid("the image has another number of axes than the input")
    if not isinstance(tensor, torch.Tensor) or not tensor.dtype.is_floating_point:
        raise Invalid("the input of the network is no tensor")
    if result.placement is not None and len(result.placement.size) != space:
        raise Invalid("the placement has another number of axes than the image")
    # Of a plane, the input is that of the whole volume.
    if result.extremes is None:
        shape = tuple(tensor.shape)
        inputs = {shape[2:], (shape[0], *shape[2:])}
        if tuple(result.geometry.size) not in inputs:
            raise Invalid("the geometry has another size than the input of the network")
    for gradient in (result.input_gradient, result.guided):
        if gradient is not None and (
            not isinstance(gradient, torch.Tensor) or gradient.shape != tensor.shape
        ):
            raise Invalid("a gradient has another shape than the input of the network")


def _check_finding(finding: Finding, result: Result) -> None:
    """Raise an error if a finding has other types than its fields, or fails on its values."""
    if not isinstance(finding, Finding):
        raise Invalid("a finding is of another type")
    check_fields(finding)
    # A finding of a part of the layers would be shown with other layers.
    if len(finding.layers) != len(result.layers):
        raise Invalid(f"{finding.kind} has another number of layers")
    columns = {**finding.columns(), "main values": finding.main_values()}
    for name, values in columns.items():
        if len(values) != len(result.layers):
            raise Invalid(f"{name} of {finding.kind} has another number of layers")
    for i in range(len(result.layers)):
        if not isinstance(finding.caption(i), str) or not isinstance(finding.badge(i), str):
            raise Invalid(f"a caption of {finding.kind} is no text")
    finding.summary(), finding.panel(), finding.record(), finding.plots()
    finding.comparison(), finding.listing(), finding.ranking()
    for text in finding.warnings():
        if not isinstance(text, str):
            raise Invalid(f"a warning of {finding.kind} is no text")
    for layer in (finding.best, finding.shown_first):
        if layer is not None and layer not in result.layers:
            raise Invalid(f"{finding.kind} names a layer that is not shown")
