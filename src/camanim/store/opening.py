"""Open a saved result. What a file says is checked before it is used: it may come from anywhere."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.cam_methods import find_method, find_registered
from camanim.declarations import checked
from camanim.errors import CamError, StoreError
from camanim.findings import Finding, find_kind
from camanim.layer_info import LayerInfo
from camanim.models import Model
from camanim.pipeline import predict_target
from camanim.progress import Progress, silent
from camanim.result import NO_IMAGE, Result
from camanim.settings import Settings
from camanim.store.checking import check_result
from camanim.store.container import (
    Container,
    check_memory,
    content_hash,
    document_hash,
    open_container,
    shown,
)
from camanim.store.encoding import decode
from camanim.store.format import FORMAT, KEY, SPECIAL, validator
from camanim.store.network import StoredModel, check_weights
from camanim.store.nodes import Invalid

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.cam_methods import Method

Array = npt.NDArray[Any]

#: Notes of a result of which the file does not say enough to compute it again.
NO_HASH = "The file holds no hash of the network's weights: they are not compared."
NO_METHOD = "Method or settings are unknown to this version: nothing can be computed again."
UNTRUSTED = (
    "The method runs code that the file names: nothing can be computed again unless the file is opened "
    "with trust=True."
)


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
        Whether the network's files may run code, as for `camanim.load_model`, and modules that a method
        or its options name may be imported.
    progress : Progress
        Called with the bytes of a download.

    Returns
    -------
    Result

    Raises
    ------
    StoreError
        If there is no such file, it is damaged, no result, or from a newer version; or if the image is
        another one, or is prepared in another way.
    ModelError
        If the network has other weights than at that time.
    """
    source = _source(path)
    with open_container(source) as container:
        about = _about(container)
        result = _decoded(container, about, trust=trust, progress=progress)
    if model is not None:
        given = model if isinstance(model, Model) else Model(model)
        check_weights(given, str(result.provenance.get("weights sha256", "")), source)
        result.model = given
    if image is None:
        return result
    return _with_image(result, image, about["result"]["input_sha256"])


def _source(path: object) -> Path:
    """Return the absolute path of a file; raise `StoreError` for what is no path."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise StoreError(f"A result is opened by the path of its file, not by {shown(repr(path))}.")
    return Path(text).absolute()


def _about(container: Container) -> dict[str, Any]:
    """Return what a file says about its result, once it has the form of the schema and its hash."""
    about = container.attributes.get(KEY)
    if not isinstance(about, dict):
        raise Invalid("it has no attribute camanim")
    number = about.get("format")
    if isinstance(number, int) and not isinstance(number, bool) and number > FORMAT:
        raise StoreError(
            f"{container.path.name} was written by a newer version of napari-camanim "
            f"({shown(about.get('version', 'unknown'))}): install that version."
        )
    check_schema(about)
    if document_hash(about["result"]) != about["sha256"]:
        raise Invalid("its metadata have changed")
    return about


def _decoded(
    container: Container, about: Mapping[str, Any], *, trust: bool, progress: Progress
) -> Result:
    path = container.path
    kept: dict[str, Array] = {}

    def array(name: str) -> Array:
        if name not in kept:
            kept[name] = container.read(name, about["arrays"][name])
        return kept[name]

    data = about["result"]
    check_memory(path, math.prod(data["image"]["shape"]))
    return decoded_result(data, array, path, trust=trust, progress=progress)


def decoded_result(
    data: Mapping[str, Any],
    array: Callable[[str], Array],
    path: Path,
    *,
    trust: bool = False,
    progress: Progress = silent,
) -> Result:
    """Return the checked result of its JSON data.

    Parameters
    ----------
    data : mapping
        As the schema says.
    array : callable
        From the name of an array to its values.
    path : pathlib.Path
        The file, to which paths of the network are relative.
    trust, progress
        See `load`.

    Raises
    ------
    Exception
        Of any type, if the data are not those of a result.
    """
    places = [(name, row) for name, row in data["maps"]]
    if len(set(places)) < len(places) or list(data["layers"]) != sorted(set(data["layers"])):
        raise Invalid("a map or a layer is used twice, or in another order")
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
    sha256 = str(provenance.get("weights sha256", ""))
    model = StoredModel(data["model"], path, sha256, trust=trust, progress=progress)
    model.input_sha256 = data["input_sha256"]
    if not sha256 and NO_HASH not in notes:
        notes.append(NO_HASH)
    computed_with, note = _method(data["computed_with"], array, trust=trust)
    if note and note not in notes:
        notes.append(note)
    result = Result(
        **values,
        # Copied, so that one map can be released without the others.
        maps=[np.array(array(name)[row]) for name, row in places],
        layers=layers,
        layer_calls=layer_calls,
        target=decode(data["target"], array),
        image=image,
        tensor=tensor,
        model=model,
        findings=findings,
        notes=notes,
        input_gradient=decode(data["input_gradient"], array),
        guided=decode(data["guided"], array),
        computed_with=computed_with,
    )
    check_result(result)
    return result


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


def _method(
    data: Any, array: Callable[[str], Array], *, trust: bool
) -> tuple[tuple[Method, Settings] | None, str]:
    """Return method and settings, or None and a note where they are not known, or not trusted."""
    if data is None:
        return None, ""
    known = {f.name for f in fields(Settings)}
    settings = {k: decode(v, array) for k, v in data["settings"].items() if k in known}
    named = any(":" in text for text in _texts([data["method"], settings.get("options")]))
    if named and not trust:
        return None, UNTRUSTED
    find = find_method if trust else find_registered
    try:
        return (find(data["method"]), Settings(**settings)), ""
    except CamError:
        # Of another version; the maps are as they were.
        return None, NO_METHOD


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in nested values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _image_and_tensor(
    data: Mapping[str, Any], array: Callable[[str], Array], notes: list[str], space: int
) -> tuple[npt.NDArray[np.uint8], torch.Tensor]:
    """Return the image and the input of the network, as far as the file has them."""
    import torch

    about = data["image"]
    shape = tuple(map(int, about["shape"]))
    tensor = decode(data["tensor"], array)
    input_shape = tuple(map(int, data["input_shape"]))
    if tensor is None:
        tensor = torch.empty(input_shape, device="meta")
    elif tuple(tensor.shape) != input_shape:
        raise Invalid("the input of the network has another shape than its metadata")
    if about["saved"] == "full":
        image = array("image/0")
        if len(shape) > space:
            image = np.ascontiguousarray(np.moveaxis(image, 0, -1))
        if image.shape != shape:
            raise Invalid("the image has another shape than its metadata")
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


def check_schema(about: Mapping[str, Any]) -> None:
    """Raise `Invalid` with the first place where data are not as the schema says."""
    error = next(validator().iter_errors(about), None)
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or KEY
        raise Invalid(f"{error.validator} of {place}")


def input_hash(result: Result) -> str | None:
    """Return the SHA-256 of the network's input; None if the result does not have it."""
    if not result.tensor.is_meta:
        return content_hash(result.tensor.detach().cpu().float().numpy())
    return result.model.input_sha256 if isinstance(result.model, StoredModel) else None


def _with_image(result: Result, image: Any, input_sha256: str | None) -> Result:
    """Return a result with the image, and with the input of the network that is made of it."""
    is_whole = result.windows is None and result.extremes is None
    if not is_whole or result.computed_with is None:
        raise StoreError("The image of this result cannot be prepared again: leave image= out.")
    method, settings = result.computed_with
    keywords = {f.name: getattr(settings, f.name) for f in fields(settings)}
    fresh = predict_target(result.model, image, result.target, method=method, **keywords)
    if fresh.provenance["image sha256"] != result.provenance.get("image sha256"):
        raise StoreError("The image is not the one that was explained: its values differ.")
    places = [(r.geometry, r.placement, r.image.shape) for r in (fresh, result)]
    if places[0] != places[1] or input_sha256 not in (None, input_hash(fresh)):
        raise StoreError(
            "The image is prepared in another way than at that time: pass the network with its "
            "preprocessing, as camanim.load(path, model=camanim.Model(net, preprocess), image=...)."
        )
    notes = [note for note in result.notes if note not in NO_IMAGE.values()]
    return replace(result, image=fresh.image, tensor=fresh.tensor, notes=notes)
