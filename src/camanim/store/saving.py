"""Save a result as a file that opens again, equal to the last bit.

The format is OME-Zarr 0.5: a folder or a zip file that any viewer of OME-Zarr shows, whose attribute
``camanim`` holds the result (docs/file-format.md). Maps of the same shape are one array.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from camanim._version import __version__
from camanim.cam_methods import find_method
from camanim.declarations import checked
from camanim.errors import CamError, StoreError
from camanim.findings import Finding
from camanim.layer_info import LayerInfo
from camanim.progress import Progress, silent
from camanim.result import NO_IMAGE, Result
from camanim.store.container import (
    content_hash,
    document_hash,
    is_archive,
    shown,
    write_container,
)
from camanim.store.encoding import Encoder
from camanim.store.format import FORMAT, KEY, SPECIAL, SUFFIXES, holds_result
from camanim.store.network import network_entries
from camanim.store.nodes import LONGEST
from camanim.store.ome import image_array, stack_planes
from camanim.store.opening import check_schema, decoded_result, input_hash
from camanim.targets.described import DescribedTarget
from camanim.writing import checked_folder, checked_path

Array = npt.NDArray[Any]
SavedImage = Literal["full", "thumbnail", "none"]

#: Longer side of a thumbnail in pixels.
THUMBNAIL = 64
#: Names in the folder of a result, and those that systems put into every folder.
_NAMES = {
    "zarr.json", "stack", "image", "thumbnail", "arrays", ".DS_Store", "Thumbs.db", "desktop.ini",
    *(f.name for f in fields(Result)),
}  # fmt: skip


@checked(StoreError)
def save(
    result: Result,
    path: str | Path,
    *,
    image: SavedImage = "full",
    stack: bool | None = None,
    progress: Progress = silent,
) -> Path:
    """Save a result to a file that opens again, and that viewers of OME-Zarr show.

    The file holds the raw maps, all layer calls, the findings, the target, the settings and hashes. The
    network is not saved, but where it came from and the hash of its weights.

    Parameters
    ----------
    result : Result
        Of a cancelled run, too: what it has is saved.
    path : path-like
        Ends in ``.zarr``, better ``.camanim.zarr``, for a folder; in ``.ozx`` (OME-Zarr in one file) or
        ``.zip`` for a file. An older result there is replaced.
    image : {"full", "thumbnail", "none"}
        What is saved of the image. With "thumbnail" (64 pixels) or "none", the input of the network is
        not saved either, and nothing new can be computed before `load` gets the image. Maps of early
        layers resemble the image all the same.
    stack : bool, optional
        Save the stack in 8 bits for other viewers, at the network's input size; of large inputs reduced.
        By default with ``image="full"`` only.
    progress : Progress

    Returns
    -------
    pathlib.Path

    Raises
    ------
    StoreError
        If a setting is invalid, the result cannot be saved, or the path is a folder that holds other
        files than those of a result.
    RenderError
        If the path is invalid or cannot be written.
    """
    if not result.maps:
        raise StoreError("The result has no map to save: select layers with a map.")
    target = checked_target(path)
    image = _available(result, image)
    encoder = Encoder()
    encoded = _encoded(result, encoder, target.parent, image)
    groups: dict[str, dict[str, Any]] = {}
    arrays: dict[str, Any] = {name: (values, {}) for name, values in encoder.arrays.items()}
    for name, options in _dimensions(result).items():
        arrays[name] = (arrays[name][0], options)
    root: dict[str, Any] = {}
    if image == "full":
        picture, groups["image"] = image_array(result)
        names = [axis["name"] for axis in groups["image"]["ome"]["multiscales"][0]["axes"]]
        arrays["image/0"] = (picture, {"dimension_names": names})
        encoder.arrays["image/0"] = picture
    about = {
        "format": FORMAT,
        "version": __version__,
        "arrays": {name: content_hash(values) for name, values in encoder.arrays.items()},
        "result": encoded,
    }
    _check(about, encoder, target)
    about["sha256"] = document_hash(encoded)
    if image == "full" if stack is None else stack:
        planes, root = stack_planes(result)
        names = [axis["name"] for axis in root["ome"]["multiscales"][0]["axes"]]
        arrays["stack"] = (planes, {"dimension_names": names})
    write_container(target, root | {KEY: about}, groups, arrays, progress, check=_check_folder)
    return target


def _available(result: Result, image: SavedImage) -> SavedImage:
    """Return what can be saved of the image of a result that was opened without it."""
    missing = next((saved for saved, note in NO_IMAGE.items() if note in result.notes), None)
    if missing is None or image == "none":
        return image
    return "thumbnail" if missing == "thumbnail" else "none"


def _check(about: dict[str, Any], encoder: Encoder, target: Path) -> None:
    """Raise `StoreError` if the file would not open again."""
    try:
        text = json.dumps(about, indent=2, allow_nan=False)
        if len(text) > LONGEST // 2:
            raise StoreError("The result has too many layers, classes or settings for a file.")
        check_schema(about | {"sha256": "0" * 64})
        decoded_result(json.loads(text)["result"], encoder.arrays.__getitem__, target)
    except StoreError:
        raise
    except Exception as error:
        # As of a finding that fails on its values.
        reason = shown(str(error) or type(error).__name__).rstrip(".")
        raise StoreError(
            f"The result cannot be saved, as its file would not open again: {reason}."
        ) from error


def checked_target(path: str | Path) -> Path:
    """Return the absolute path of a result to be saved, checked before its content is computed.

    Raises
    ------
    StoreError
        If its suffix is wrong, or it is a folder that holds other files than those of a result.
    RenderError
        If it cannot be written.
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise StoreError(f"A result is saved to the path of a file, not to {shown(repr(path))}.")
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise StoreError(
            f"{Path(path).name} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}."
        )
    if is_archive(Path(path)):
        return checked_path(path, suffix)
    target = checked_folder(path)
    _check_folder(target)
    return target


def _check_folder(folder: Path) -> None:
    """Raise `StoreError` if a folder holds other files than those of a result."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    if names and not holds_result(folder):
        raise StoreError(
            f"{folder} is a folder without a result, which is not replaced: choose another path."
        )
    others = [name for name in names if name not in _NAMES]
    if others:
        raise StoreError(
            f"{folder} also holds {shown(others[0])}, which is not of a result: choose another path."
        )


def _encoded(result: Result, encoder: Encoder, folder: Path, image: SavedImage) -> dict[str, Any]:
    """Return a result as JSON data; its arrays are in the encoder."""
    places = _stacked_maps(result, encoder)
    indices = {id(layer): k for k, layer in enumerate(result.layer_calls)}
    equal = {layer: k for k, layer in enumerate(result.layer_calls)}
    layers = [indices.get(id(layer), equal.get(layer)) for layer in result.layers]
    if None in layers:
        raise StoreError("A shown layer is not among the layer calls: this result was changed.")
    encoded = {
        f.name: encoder.encode(getattr(result, f.name), f.name)
        for f in fields(Result)
        if f.name not in SPECIAL
    }
    tensor = result.tensor if image == "full" and not result.tensor.is_meta else None
    return encoded | {
        "maps": places,
        "layers": layers,
        "layer_calls": [_plain_layer(layer) for layer in result.layer_calls],
        "target": _encoded_target(result, encoder),
        "findings": {
            key: _encoded_finding(f, result, encoder, f"findings/{k}")
            for k, (key, f) in enumerate(result.findings.items())
        },
        "model": network_entries(result.model, folder),
        "computed_with": _encoded_method(result, encoder),
        "image": _encoded_image(result, encoder, image),
        "tensor": encoder.encode(tensor, "tensor"),
        "input_shape": list(result.tensor.shape),
        "input_sha256": input_hash(result),
        "notes": [note for note in result.notes if note not in NO_IMAGE.values()],
        **{
            name: encoder.encode(getattr(result, name) if image == "full" else None, name)
            for name in ("input_gradient", "guided")
        },
    }


def _stacked_maps(result: Result, encoder: Encoder) -> list[list[Any]]:
    """Put the maps into one array for each shape; return array and row of each map."""
    rows: dict[str, list[Array]] = defaultdict(list)
    places: list[list[Any]] = []
    for values in result.maps:
        if values.dtype != np.float32:
            raise StoreError(f"A map is of {values.dtype}: maps in a file are float32.")
        if isinstance(values, np.ma.MaskedArray):
            raise StoreError("A map is a masked array: fill what is masked, such as with 0.")
        name = "maps/" + "x".join(map(str, values.shape))
        places.append([name, len(rows[name])])
        rows[name].append(values)
    encoder.arrays |= {name: np.stack(same) for name, same in rows.items()}
    return places


def _dimensions(result: Result) -> dict[str, dict[str, Any]]:
    """Return the names of the axes of the arrays of maps."""
    axes = ["layer", *"zyx"[-len(result.geometry.size) :]]
    names = {"maps/" + "x".join(map(str, values.shape)) for values in result.maps}
    return {name: {"dimension_names": axes} for name in names}


def _plain_layer(layer: LayerInfo) -> dict[str, Any]:
    shape = None if layer.shape is None else list(layer.shape)
    return {f.name: getattr(layer, f.name) for f in fields(layer)} | {"shape": shape}


def _encoded_target(result: Result, encoder: Encoder) -> Any:
    """Return the target; of a function, its name and description."""
    target = result.target
    try:
        return encoder.encode(target, "target")
    except StoreError:
        return encoder.encode(DescribedTarget.of(target), "target")


def _encoded_finding(finding: Finding, result: Result, encoder: Encoder, name: str) -> Any:
    layers = None
    if finding.layers != result.layers:
        layers = [_plain_layer(layer) for layer in finding.layers]
    return {
        "kind": finding.kind,
        "layers": layers,
        "fields": encoder.fields_of(finding, name, excluded=("layers",)),
    }


def _encoded_method(result: Result, encoder: Encoder) -> Any:
    """Return name and settings of the method; None where they cannot be had from a file."""
    if result.computed_with is None:
        return None
    method, settings = result.computed_with
    try:
        if find_method(method.name) is not method:
            return None
        excluded = ("progress", "device")
        values = Encoder()
        encoded = {
            f.name: values.encode(_without_arrays(getattr(settings, f.name)), f.name)
            for f in fields(settings)
            if f.name not in excluded
        }
    except CamError:
        # A function of the caller.
        return None
    if values.arrays:
        return None
    return {"method": method.name, "settings": encoded}


def _without_arrays(value: Any) -> Any:
    """Return a setting with lists in place of arrays."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _without_arrays(item) for key, item in value.items()}
    return type(value)(map(_without_arrays, value)) if type(value) in (list, tuple) else value


def _encoded_image(result: Result, encoder: Encoder, image: SavedImage) -> dict[str, Any]:
    about: dict[str, Any] = {"saved": image, "shape": list(result.image.shape)}
    if image == "thumbnail":
        space = len(result.geometry.size)
        sides = result.image.shape[:space]
        picture = result.image if space == 2 else result.image[sides[0] // 2]
        step = max(1, -(-max(picture.shape[:2]) // THUMBNAIL))
        encoder.arrays["thumbnail"] = np.ascontiguousarray(picture[::step, ::step])
    return about
