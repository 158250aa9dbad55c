"""Open a saved result. What a file says is checked before it is used: it may come from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.cam_methods import find_method
from camanim.declarations import checked
from camanim.errors import CamError, StoreError
from camanim.findings import Finding, find_kind
from camanim.layer_info import LayerInfo
from camanim.models import Model
from camanim.pipeline import predict_target
from camanim.progress import Progress, silent
from camanim.result import Result
from camanim.settings import Settings
from camanim.store.container import Container, damaged, open_container
from camanim.store.encoding import decode
from camanim.store.format import FORMAT, KEY, SPECIAL, schema
from camanim.store.network import StoredModel, check_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

Array = npt.NDArray[Any]

#: Notes of a result whose image is not saved, by what is.
NO_IMAGE = {
    "thumbnail": "The image is a thumbnail: the file does not hold more of it.",
    "none": "The file does not hold the image.",
}


@checked(StoreError)
def load(
    path: str | Path,
    *,
    model: Model | nn.Module | None = None,
    image: Any = None,
    trust: bool = False,
    progress: Progress = silent,
) -> Result:
    """Open a saved result.

    The network is loaded when something new is computed, such as scores. Its weights are compared with
    the hash in the file.

    Parameters
    ----------
    path : path-like
        Of `save`.
    model : Model or torch.nn.Module, optional
        The network, where it was given as an object when the maps were computed.
    image : array-like, optional
        The image, where the file does not hold it; compared with the hash in the file.
    trust : bool
        Whether the network's files may run code, as for `camanim.load_model`.
    progress : Progress
        Called with the bytes of a download.

    Returns
    -------
    Result

    Raises
    ------
    StoreError
        If there is no such file, it is damaged, no result, or from a newer version; or if the image is
        another one.
    ModelError
        If the network has other weights than at that time.
    """
    source = Path(path).absolute()
    with open_container(source) as container:
        result = _decoded(container, trust=trust, progress=progress)
    if model is not None:
        given = model if isinstance(model, Model) else Model(model)
        check_weights(given, str(result.provenance.get("weights sha256", "")), source)
        result.model = given
    return result if image is None else _with_image(result, image)


def _decoded(container: Container, *, trust: bool, progress: Progress) -> Result:
    path, about = container.path, container.attributes.get(KEY)
    if not isinstance(about, dict):
        raise damaged(path, "it has no attribute camanim")
    if isinstance(number := about.get("format"), int) and number > FORMAT:
        raise StoreError(
            f"{path.name} was written by a newer version of napari-camanim "
            f"({about.get('version', 'unknown')}): install that version."
        )
    _check_schema(about, path)
    kept: dict[str, Array] = {}

    def array(name: str) -> Array:
        if name not in kept:
            kept[name] = container.read(name, about["arrays"][name])
        return kept[name]

    data = about["result"]
    result = _result(data, array, path, trust=trust, progress=progress)
    _check(result, path)
    return result


def _result(
    data: Mapping[str, Any],
    array: Callable[[str], Array],
    path: Path,
    *,
    trust: bool,
    progress: Progress,
) -> Result:
    layer_calls = [_layer(layer) for layer in data["layer_calls"]]
    layers = [layer_calls[k] for k in data["layers"]]
    known = {f.name for f in fields(Result)} - set(SPECIAL)
    values = {name: decode(data[name], array) for name in known if name in data}
    provenance = values["provenance"]
    notes = list(values.pop("notes"))
    image, tensor = _image_and_tensor(data, array, notes, len(values["geometry"].size))
    findings = {}
    for key, record in data["findings"].items():
        finding = _finding(record, layers, array)
        if finding is None:
            notes.append(f"The finding {record['kind']} is unknown to this version, and left out.")
        else:
            findings[key] = finding
    return Result(
        **values,
        # Copied, so that one map can be released without the others.
        maps=[np.array(array(name)[row]) for name, row in data["maps"]],
        layers=layers,
        layer_calls=layer_calls,
        target=decode(data["target"], array),
        image=image,
        tensor=tensor,
        model=StoredModel(
            data["model"],
            path,
            str(provenance.get("weights sha256", "")),
            trust=trust,
            progress=progress,
        ),
        findings=findings,
        notes=notes,
        input_gradient=decode(data["input_gradient"], array),
        guided=decode(data["guided"], array),
        computed_with=_method(data["computed_with"], array),
    )


def _layer(data: Mapping[str, Any]) -> LayerInfo:
    shape = None if data["shape"] is None else tuple(map(int, data["shape"]))
    return LayerInfo(**{**data, "shape": shape})


def _finding(
    record: Mapping[str, Any], layers: list[LayerInfo], array: Callable[[str], Array]
) -> Finding | None:
    """Return the finding of a record; None if its kind is not registered."""
    try:
        cls = find_kind(record["kind"]).finding
    except CamError:
        return None
    own = layers if record["layers"] is None else [_layer(layer) for layer in record["layers"]]
    names = {f.name for f in fields(cls)}
    values = {k: decode(v, array) for k, v in record["fields"].items() if k in names}
    return cls(own, **values)


def _method(data: Any, array: Callable[[str], Array]) -> Any:
    if data is None:
        return None
    known = {f.name for f in fields(Settings)}
    settings = {k: decode(v, array) for k, v in data["settings"].items() if k in known}
    try:
        return find_method(data["method"]), Settings(**settings)
    except CamError:
        # Of another version; the maps are as they were.
        return None


def _image_and_tensor(
    data: Mapping[str, Any], array: Callable[[str], Array], notes: list[str], space: int
) -> tuple[npt.NDArray[np.uint8], torch.Tensor]:
    """Return the image and the input of the network, as far as the file has them."""
    import torch

    about = data["image"]
    shape = tuple(map(int, about["shape"]))
    tensor = decode(data["tensor"], array)
    if tensor is None:
        tensor = torch.empty(tuple(map(int, data["input_shape"])), device="meta")
    if about["saved"] == "full":
        image = array("image/0")
        if len(shape) > space:
            image = np.ascontiguousarray(np.moveaxis(image, 0, -1))
        return image, tensor
    image = np.zeros(shape, np.uint8)
    if about["saved"] == "thumbnail":
        picture = array("thumbnail")
        rows, columns = (
            np.arange(n) * m // n
            for n, m in zip(shape[space - 2 : space], picture.shape[:2], strict=True)
        )
        image[...] = picture[rows][:, columns]
    notes.append(NO_IMAGE[about["saved"]])
    return image, tensor


@cache
def _validator() -> Any:
    from jsonschema import validators

    # Without a check of the schema itself, which takes as long as that of a file.
    return validators.validator_for(schema())(schema())


def _check_schema(about: Mapping[str, Any], path: Path) -> None:
    # The first error; a list of all of them to choose from takes longer.
    for error in _validator().iter_errors(about):
        place = "/".join(map(str, error.absolute_path)) or "camanim"
        raise damaged(path, f"{place}: {error.message[:100]}") from error


def _check(result: Result, path: Path) -> None:
    """Raise `StoreError` where parts of a result do not fit each other."""
    space, count = len(result.geometry.size), len(result.layers)
    if not count or len(result.maps) != count:
        raise damaged(path, "layers and maps differ in number")
    for values in result.maps:
        if values.dtype != np.float32 or values.ndim != space or not values.size:
            raise damaged(path, "a map has another shape than its network")
    if result.image.dtype != np.uint8 or result.image.ndim not in (space, space + 1):
        raise damaged(path, "the image is no picture")
    for i in range(count):
        # Also what findings say, as each of their arrays has a value for each layer.
        result.caption(i)
    for finding in result.findings.values():
        if any(len(values) != count for values in finding.columns().values()):
            raise damaged(path, f"{finding.kind} has another number of layers")


def _with_image(result: Result, image: Any) -> Result:
    """Return a result with the image, and with the input of the network that is made of it."""
    if result.windows is not None or result.computed_with is None:
        raise StoreError("The image of this result cannot be prepared again: leave image= out.")
    method, settings = result.computed_with
    keywords = {f.name: getattr(settings, f.name) for f in fields(settings)}
    fresh = predict_target(result.model, image, result.target, method=method, **keywords)
    if fresh.provenance["image sha256"] != result.provenance.get("image sha256"):
        raise StoreError("The image is not the one that was explained: its values differ.")
    notes = [note for note in result.notes if note not in NO_IMAGE.values()]
    return replace(result, image=fresh.image, tensor=fresh.tensor, notes=notes)
