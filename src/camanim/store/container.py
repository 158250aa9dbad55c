"""Groups of zarr arrays in a folder or a zip file: written as a whole, and checked before use.

A file may come from anywhere. Before zarr reads it, its entries are checked: regular files below the
folder, the codecs that this module writes, and no more bytes than the computer has. The content of each
array is compared with its hash, as zarr takes a chunk that is missing for zeros.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.errors import StoreError
from camanim.progress import Progress, silent
from camanim.writing import complete_or_absent, complete_or_absent_folder

if TYPE_CHECKING:
    import zarr

Array = npt.NDArray[Any]

#: Suffixes of zip files; OME-Zarr's is .ozx (RFC-9).
ARCHIVES = (".ozx", ".zip")
#: Suffix of folders.
FOLDER = ".zarr"
#: Names of codecs of zarr that are written, and alone are read.
CODECS = {"bytes", "zstd"}
#: Longest metadata of a node, and largest part of a chunk, in bytes.
LONGEST, _CHUNK = 2**28, 2**20
#: Ratio of uncompressed to compressed bytes up to which an entry of a zip file is read.
_RATIO = 300


def is_archive(path: Path) -> bool:
    """Return whether the name of a path is that of a zip file."""
    return path.suffix.lower() in ARCHIVES


def write_container(
    target: Path,
    attributes: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]],
    arrays: Mapping[str, tuple[Array | Callable[[], Iterator[Array]], Mapping[str, Any]]],
    progress: Progress = silent,
) -> None:
    """Write a group with attributes and arrays; a folder, or a zip file by the suffix.

    Parameters
    ----------
    target : pathlib.Path
        An existing folder is replaced.
    attributes : mapping
        Attributes of the root.
    groups : mapping of str to mapping
        Attributes of further groups, by path.
    arrays : mapping of str to (array, dict)
        Arrays by path, and ``dimension_names``; in place of an array, its shape and type, and planes
        that are computed when they are written: a `Planes`.
    progress : Progress

    Raises
    ------
    RenderError
        If it cannot be written.
    """
    if not is_archive(target):
        with complete_or_absent_folder(target) as folder:
            _write(folder, attributes, groups, arrays, progress)
        return
    with complete_or_absent(target) as partial, tempfile.TemporaryDirectory() as scratch:
        _write(Path(scratch), attributes, groups, arrays, progress)
        _zip(Path(scratch), partial)


class Planes:
    """An array of which one plane after the other is computed.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype-like
    plane : callable
        From the index along the first axis to the plane.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: npt.DTypeLike, plane: Callable[[int], Array]
    ) -> None:
        self.shape, self.dtype, self.plane = shape, np.dtype(dtype), plane


def _write(
    folder: Path,
    attributes: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]],
    arrays: Mapping[str, Any],
    progress: Progress,
) -> None:
    import zarr
    from zarr.codecs import ZstdCodec

    store = zarr.storage.LocalStore(folder)
    root = zarr.create_group(store, zarr_format=3, attributes=dict(attributes))
    for path, content in groups.items():
        root.create_group(path, attributes=dict(content))
    for k, (path, (values, options)) in enumerate(arrays.items()):
        array = root.create_array(
            path,
            shape=values.shape,
            dtype=values.dtype,
            chunks=_chunks(values.shape, values.dtype.itemsize),
            compressors=ZstdCodec(level=3),
            # A chunk of zeros is written, so that a missing one is noticed.
            config={"write_empty_chunks": True},
            **options,
        )
        if isinstance(values, Planes):
            # Whole chunks, as each assignment compresses a chunk again.
            step = array.chunks[0]
            for first in range(0, values.shape[0], step):
                last = min(first + step, values.shape[0])
                array[first:last] = np.stack([values.plane(i) for i in range(first, last)])
        elif values.size:
            array[...] = values
        progress("save", k + 1, len(arrays))


def _chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return chunks of a few whole planes, or of parts of a large plane."""
    chunks = [max(1, n) for n in shape]
    for axis in range(len(chunks)):
        rest = int(np.prod(chunks[axis + 1 :])) * itemsize
        chunks[axis] = max(1, min(chunks[axis], _CHUNK // max(1, rest)))
    return tuple(chunks)


def _zip(folder: Path, target: Path) -> None:
    """Write a folder as a single-file OME-Zarr: stored, metadata first, with a comment (RFC-9)."""
    files = [path for path in folder.rglob("*") if path.is_file()]

    def order(path: Path) -> tuple[bool, int, str]:
        parts = path.relative_to(folder).parts
        return parts[-1] != "zarr.json", len(parts), path.as_posix()

    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files, key=order):
            # With the earliest date of the format: equal results are equal files.
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as sink:
                shutil.copyfileobj(source, sink)
        layout = {"version": "0.5", "zipFile": {"centralDirectory": {"jsonFirst": True}}}
        archive.comment = json.dumps({"ome": layout}).encode()


class Container:
    """An open group of a folder or zip file.

    Attributes
    ----------
    path : pathlib.Path
    attributes : dict
        Attributes of the root.
    """

    def __init__(self, path: Path, names: Mapping[str, int], group: zarr.Group) -> None:
        self.path = path
        self._names, self._group = names, group
        self.attributes: dict[str, Any] = dict(group.attrs)

    def read(self, name: str, sha256: str) -> Array:
        """Return an array whose content has a hash.

        Raises
        ------
        StoreError
            If it is missing, damaged, too large, or compressed in a way that is never written.
        """
        # Imports torch.
        from camanim.execution.memory import system_memory

        array = self._array(name)
        free = system_memory()
        if free is not None and array.nbytes > free:
            raise StoreError(
                f"{self.path.name} holds an array of {array.nbytes / 1e9:.3g} GB, for which there is "
                "not enough memory: open it on a larger computer."
            )
        values = np.asarray(array[...])
        if content_hash(values) != sha256:
            raise damaged(self.path, f"the content of {name} has changed")
        return values

    def _array(self, name: str) -> zarr.Array[Any]:
        import zarr

        text = self._names.get(f"{name}/zarr.json")
        if text is None:
            raise damaged(self.path, f"{name} is missing")
        array = self._group[name]
        if not isinstance(array, zarr.Array):
            raise damaged(self.path, f"{name} is no array")
        metadata = array.metadata.to_dict()
        codecs: Any = metadata["codecs"]
        names = {codec["name"] for codec in codecs}
        if not names <= CODECS or array.dtype.kind not in "biufc":
            raise damaged(self.path, f"{name} is stored in a way that camanim never writes")
        return array


def content_hash(values: Array) -> str:
    """Return the SHA-256 of type, shape and bytes of an array."""
    ordered = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{ordered.dtype.str} {values.shape}".encode())
    digest.update(ordered.data.cast("B") if values.size else b"")
    return digest.hexdigest()


def damaged(path: Path, reason: str) -> StoreError:
    """Return the error for a file that is not what was written."""
    return StoreError(f"{path.name} is damaged or not a result of camanim ({reason}).")


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Yield the checked group of a folder or zip file.

    Raises
    ------
    StoreError
        If there is no such file, or it cannot be read, also within the context.
    """
    import zarr

    if not path.exists():
        raise StoreError(f"There is no file {path}.")
    names: Mapping[str, int]
    store: zarr.storage.LocalStore | zarr.storage.ZipStore
    try:
        if path.is_dir():
            names, store = _entries(path), zarr.storage.LocalStore(path, read_only=True)
        else:
            names = _zipped(path)
            store = zarr.storage.ZipStore(path, read_only=True)
        if names.get("zarr.json", LONGEST + 1) > LONGEST:
            raise damaged(path, "it has no metadata")
        try:
            group = zarr.open_group(store, mode="r", zarr_format=3)
            yield Container(path, names, group)
        finally:
            store.close()
    except StoreError:
        raise
    except MemoryError as error:
        raise StoreError(f"There is not enough memory to open {path.name}.") from error
    except Exception as error:
        # zarr, numcodecs, zipfile and json raise different errors for a damaged file.
        raise damaged(path, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0][:200]
    return text.rstrip(".") or type(error).__name__


def _entries(folder: Path) -> dict[str, int]:
    """Return the sizes of all files in a folder; refuse links and devices, which lead elsewhere."""
    sizes: dict[str, int] = {}
    for parent, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            path = Path(parent) / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise damaged(folder, f"{name} is not a regular file")
            if path.is_file():
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


def _zipped(path: Path) -> dict[str, int]:
    """Return the sizes of all entries of a zip file; refuse those that grow out of proportion."""
    if not path.is_file():
        raise damaged(path, "it is not a regular file")
    if not zipfile.is_zipfile(path):
        raise damaged(path, "it is not a zip file")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    sizes = {entry.filename: entry.file_size for entry in entries}
    if len(sizes) < len(entries):
        raise damaged(path, "it has two entries with the same name")
    for entry in entries:
        if not is_in_proportion(entry):
            raise damaged(path, f"{entry.filename} is encrypted, or larger than it should be")
    return sizes


def is_in_proportion(entry: zipfile.ZipInfo) -> bool:
    """Return whether an entry of a zip file is not encrypted, and not much larger than its bytes."""
    encrypted = entry.flag_bits & 1
    return not encrypted and entry.file_size <= _RATIO * entry.compress_size + _CHUNK
