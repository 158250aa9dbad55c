"""Maps as a labelled array of xarray."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from camanim.errors import RenderError
from camanim.export.common import check_maps, record, to_json
from camanim.findings import as_numbers, short
from camanim.optional import library
from camanim.result import Result
from camanim.stack import Normalization, Stack, stack_maps

if TYPE_CHECKING:
    import xarray


def to_xarray(
    result: Result, normalization: Normalization | None = "local", *, signed: bool = False
) -> xarray.DataArray:
    """Return the maps of all layers as a labelled array, at the size of the network's input.

    Parameters
    ----------
    result : Result
    normalization : {"local", "global", None}
        As for `Animation.stack`. None gives the raw values with their sign.
    signed : bool
        Keep negative evidence of normalised maps, in [-1, 1].

    Returns
    -------
    xarray.DataArray
        (layer, y, x) or (layer, z, y, x), computed on access if dask is installed. Coordinates are the
        labels of the layers, their ``kind`` and call ``index``, the columns of the findings such as ROAD
        scores, and the positions of the pixels along the axes of the image that was passed: in
        millimetres or micrometres where its spacing is known, counted from the centre of its first
        pixel, and otherwise in its pixels. ``attrs`` has method, network, class and notes as texts
        and numbers, the affine if there is one, and the rest as JSON in ``camanim``, so that the array
        can be written to NetCDF and Zarr.

    Raises
    ------
    RenderError
        If xarray is not installed (``napari-camanim[data]``), or the result has no maps.
    """
    array = library("xarray", "data", RenderError)
    check_maps(result)
    stack = stack_maps(result, normalization, signed=signed or normalization is None)
    dims = ("layer", *"zyx"[4 - stack.ndim :])
    coordinates: dict[str, Any] = {
        "layer": [layer.label for layer in result.layers],
        "kind": ("layer", [layer.kind for layer in result.layers]),
        "index": ("layer", [layer.index for layer in result.layers]),
    }
    for finding in result.findings.values():
        for name, values in finding.columns().items():
            if name not in coordinates and name not in dims:
                coordinates[name] = ("layer", _column(values))
    coordinates |= _positions(result, dims[1:])
    source = result.source
    attrs: dict[str, Any] = {
        "long_name": f"{result.method} of {result.target.name}",
        "method": result.method,
        "model": str(result.provenance.get("model", "")),
        "class": result.target.name,
        "probability": float(result.probability),
        "probability_unit": result.target.unit,
        "normalization": normalization or "none",
        "notes": list(result.notes),
        "camanim": to_json(record(result)),
    }
    if source is not None and source.affine is not None:
        attrs["affine"] = np.ravel(source.affine)
    labelled: xarray.DataArray = array.DataArray(
        _lazy(stack), coords=coordinates, dims=dims, name="relevance", attrs=attrs
    )
    return labelled


def _lazy(stack: Stack) -> Any:
    """Return the stack as an array of dask, one layer in a chunk; without dask as an array."""
    if find_spec("dask") is None:
        return np.asarray(stack)
    import dask.array

    # Without a name, dask would read all maps to make one from them.
    return dask.array.from_array(
        stack,
        chunks=(1, *stack.shape[1:]),
        name=False,
        meta=np.empty((0,) * stack.ndim, np.float32),
    )


def _column(values: Any) -> Any:
    """Return a column of a finding as numbers, or as texts if it has none."""
    numbers = as_numbers(values)
    if np.isfinite(numbers).any() or all(v is None for v in values):
        return numbers
    return [short(value) for value in values]


def _positions(result: Result, dims: tuple[str, ...]) -> dict[str, Any]:
    """Return the positions of the pixels along each axis, with their units."""
    size = result.geometry.size
    scale, translate = result.source_geometry.affine(size)
    spacing, units = (1.0,) * len(size), "pixel"
    source = result.source
    if source is not None and source.spacing is not None and len(source.spacing) == len(size):
        spacing, units = source.spacing, source.units or ""
    return {
        dim: (dim, (s * np.arange(n) + t) * pixel, {"units": units, "axis": dim.upper()})
        for dim, n, s, t, pixel in zip(dims, size, scale, translate, spacing, strict=True)
    }
