"""The nodes of a zarr group, checked before zarr reads any of them.

zarr creates the codecs and chunk grids that metadata name, and allocates what they state. Here, metadata
are compared with those that camanim writes, and every chunk must be there and state its size.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

#: Longest metadata of the root and of another node, in bytes.
LONGEST, LONGEST_NODE = 2**23, 2**16
#: Largest chunk, in bytes.
CHUNK = 2**20
#: Types of arrays, as zarr names them.
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
    "float32", "float64",
)  # fmt: skip
#: Most axes of an array, and longest axis.
_AXES, _SIDE = 16, 2**40
#: Longest header of a zstd frame, and its first bytes.
_HEADER, _MAGIC = 18, b"\x28\xb5\x2f\xfd"
_NODE = "zarr.json"
#: Names of chunks: that of the array, and the index along each axis.
_CHUNK_KEY = re.compile(r"(.*)/c((?:/[0-9]+)*)")


class Invalid(Exception):
    """A file is not what camanim writes."""


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the chunks of an array: a few whole planes, or parts of a large plane."""
    chunks = [max(1, n) for n in shape]
    for axis in range(len(chunks)):
        rest = math.prod(chunks[axis + 1 :]) * itemsize
        chunks[axis] = max(1, min(chunks[axis], CHUNK // max(1, rest)))
    return tuple(chunks)


def check_nodes(sizes: Mapping[str, int], head: Callable[[str, int], bytes]) -> dict[str, int]:
    """Check all nodes of a group, and return the bytes of each array by its path.

    Parameters
    ----------
    sizes : mapping of str to int
        Bytes of all files, by their paths.
    head : callable
        From a path and a number to so many first bytes of a file, or fewer.

    Raises
    ------
    Invalid
        If a node or a chunk is not as camanim writes it.
    """
    if _NODE not in sizes:
        raise Invalid("it has no metadata")
    files = Counter(match[1] for name in sizes if (match := _CHUNK_KEY.fullmatch(name)))
    arrays = {}
    for name, size in sizes.items():
        if name != _NODE and not name.endswith(f"/{_NODE}"):
            continue
        if size > (LONGEST if name == _NODE else LONGEST_NODE):
            raise Invalid(f"the metadata {name} are too long")
        document = parsed(head(name, size))
        path = name.removesuffix(_NODE).removesuffix("/")
        if document.get("node_type") == "group":
            _check_group(document, path)
        else:
            arrays[path] = _check_array(document, path, sizes, files[path], head)
    return arrays


def parsed(text: bytes) -> dict[str, Any]:
    """Return a JSON object; numbers are those that JSON has."""
    document = json.loads(text, parse_constant=_no_constant)
    if not isinstance(document, dict):
        raise Invalid("metadata are no object")
    return document


def _no_constant(name: str) -> None:
    raise Invalid(f"{name} is not a number of JSON")


def _check_group(document: Mapping[str, Any], path: str) -> None:
    if not set(document) <= {"attributes", "zarr_format", "node_type"}:
        raise Invalid(f"the group {path or '/'} has unknown metadata")
    if document.get("zarr_format") != 3:
        raise Invalid(f"the group {path or '/'} is not of zarr 3")


def _check_array(
    document: Mapping[str, Any],
    path: str,
    sizes: Mapping[str, int],
    files: int,
    head: Callable[[str, int], bytes],
) -> int:
    """Check an array with its chunks, and return its bytes."""
    shape, name = document.get("shape"), document.get("data_type")
    if name not in DTYPES or not isinstance(shape, list) or len(shape) > _AXES:
        raise Invalid(f"the array {path} has an unknown type or shape")
    if not all(type(n) is int and 0 <= n <= _SIDE for n in shape):
        raise Invalid(f"the array {path} has an unknown shape")
    itemsize = int(np.dtype(str(name)).itemsize)
    chunks = chunk_shape(tuple(shape), itemsize)
    _compare(document, path, list(chunks), itemsize)
    counts = [-(-n // c) for n, c in zip(shape, chunks, strict=True)]
    if files != math.prod(counts):
        raise Invalid(f"a chunk of {path} is missing, or one too many")
    chunk = math.prod(chunks) * itemsize
    for index in np.ndindex(*counts):
        key = "/".join([path, "c", *map(str, index)])
        # zstd adds less to what it cannot compress.
        if not 0 < sizes.get(key, 0) <= chunk + chunk // 128 + 512:
            raise Invalid(f"a chunk of {path} is missing or too large")
        if _content_size(head(key, _HEADER)) != chunk:
            raise Invalid(f"a chunk of {path} has another size")
    return math.prod(shape) * itemsize


def _compare(document: Mapping[str, Any], path: str, chunks: list[int], itemsize: int) -> None:
    """Raise `Invalid` where metadata of an array are not those that are written."""
    endian = {"configuration": {"endian": "little"}} if itemsize > 1 else {}
    codecs = document.get("codecs")
    zstd = codecs[-1] if isinstance(codecs, list) and len(codecs) == 2 else None
    settings = zstd.get("configuration") if isinstance(zstd, dict) else None
    expected = {
        "zarr_format": 3,
        "node_type": "array",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes"} | endian, {"name": "zstd", "configuration": settings}],
        "attributes": {},
        "storage_transformers": [],
    }
    keys = {*expected, "shape", "data_type", "fill_value", "dimension_names"}
    if not set(document) <= keys or any(document.get(k) != v for k, v in expected.items()):
        raise Invalid(f"{path} is stored in a way that camanim never writes")
    if not isinstance(settings, dict) or not set(settings) <= {"level", "checksum"}:
        raise Invalid(f"{path} is compressed in a way that camanim never writes")
    if document.get("fill_value") not in (0, False):
        raise Invalid(f"{path} has another value for what is missing")


def _content_size(header: bytes) -> int | None:
    """Return how many bytes a zstd frame states that it holds; see RFC 8878, 3.1.1.1."""
    if not header.startswith(_MAGIC) or len(header) < 6:
        return None
    descriptor = header[4]
    single, code = descriptor >> 5 & 1, descriptor >> 6
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    length = (single, 2, 4, 8)[code]
    if not length or len(header) < start + length:
        return None
    return int.from_bytes(header[start : start + length], "little") + (256 if code == 1 else 0)
