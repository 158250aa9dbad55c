"""Groups of zarr arrays in a folder or a zip file: written as a whole, and checked before use.

A file may come from anywhere. Before zarr reads it, all of it is checked (`camanim.store.nodes`):
regular files below the folder, metadata exactly as this module writes them, and chunks that state their
size. The content of each array is compared with its hash.
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
from camanim.store.nodes import Invalid, check_nodes, chunk_shape
from camanim.writing import cannot_write, complete_or_absent, complete_or_absent_folder

if TYPE_CHECKING:
    import zarr

Array = npt.NDArray[Any]

#: Suffixes of zip files; OME-Zarr's is .ozx (RFC-9).
ARCHIVES = (".ozx", ".zip")
#: Suffix of folders.
FOLDER = ".zarr"
#: Most characters of a text of the file in a message.
_SHOWN = 60


def is_archive(path: Path) -> bool:
    """Return whether the name of a path is that of a zip file."""
    return path.suffix.lower() in ARCHIVES


def write_container(
    target: Path,
    attributes: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]],
    arrays: Mapping[str, tuple[Array | Callable[[], Iterator[Array]], Mapping[str, Any]]],
    progress: Progress = silent,
    check: Callable[[Path], None] = lambda folder: None,
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
    check : callable
        Called with an existing folder right before it is replaced; raises an error if it must not be.

    Raises
    ------
    RenderError
        If it cannot be written.
    """
    if not is_archive(target):
        with complete_or_absent_folder(target, check) as folder, _writing(target):
            _write(folder, attributes, groups, arrays, progress)
        return
    with complete_or_absent(target) as partial, _scratch_folder() as scratch:
        with _writing(scratch):
            _write(scratch, attributes, groups, arrays, progress)
        with _writing(target):
            _zip(scratch, partial)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Such as a full disk.
        raise cannot_write(target, error) from error


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Yield a folder for the parts of a zip file."""
    with _writing(Path(tempfile.gettempdir())):
        folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
            chunks=chunk_shape(values.shape, values.dtype.itemsize),
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

    def __init__(self, path: Path, nodes: Mapping[str, int], group: zarr.Group) -> None:
        self.path = path
        self._nodes, self._group = nodes, group
        self._read = 0
        self.attributes: dict[str, Any] = dict(group.attrs)

    def read(self, name: str, sha256: str) -> Array:
        """Return an array whose content has a hash.

        Raises
        ------
        StoreError
            If it is missing or damaged, or all arrays that were read are too large.
        """
        import zarr

        size = self._nodes.get(name)
        if size is None:
            raise damaged(self.path, f"the array {name} is missing")
        self._read += size
        check_memory(self.path, self._read)
        array = self._group[name]
        if not isinstance(array, zarr.Array):
            raise damaged(self.path, f"{name} is no array")
        values = np.asarray(array[...])
        if content_hash(values) != sha256:
            raise damaged(self.path, f"the content of {name} has changed")
        return values


def check_memory(path: Path, size: int) -> None:
    """Raise `StoreError` if a number of bytes is more than the computer has."""
    # Imports torch.
    from camanim.execution.memory import system_memory

    free = system_memory()
    if free is not None and size > free:
        raise StoreError(
            f"{path.name} holds arrays of {size / 1e9:.3g} GB, for which there is not enough memory: "
            "open it on a larger computer."
        )


def content_hash(values: Array) -> str:
    """Return the SHA-256 of type, shape and bytes of an array."""
    ordered = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{ordered.dtype.str} {values.shape}".encode())
    digest.update(ordered.data.cast("B") if values.size else b"")
    return digest.hexdigest()


def document_hash(document: Any) -> str:
    """Return the SHA-256 of JSON data, which does not depend on spaces and the order of keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def shown(text: object) -> str:
    """Return a text of a file for a message: one line, printable and not long."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * _SHOWN]).strip()
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."


def damaged(path: Path, reason: object) -> StoreError:
    """Return the error for a file that is not what was written."""
    why = shown(reason).rstrip(".")
    return StoreError(f"{shown(path.name)} is damaged or not a result of camanim ({why}).")


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Yield the checked group of a folder or zip file.

    Raises
    ------
    StoreError
        If there is no such file, or it cannot be read, also within the context.
    """
    import zarr

    store: zarr.storage.LocalStore | zarr.storage.ZipStore
    try:
        os.stat(path)
    except FileNotFoundError as error:
        raise StoreError(f"There is no file {path}.") from error
    except (OSError, ValueError) as error:
        # A name that the system refuses, or a folder that it does not show.
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"{shown(path.name)} cannot be opened ({shown(reason)}).") from error
    try:
        if path.is_dir():
            sizes = _entries(path)
            nodes = check_nodes(sizes, lambda name, n: _head(path / name, n))
            store = zarr.storage.LocalStore(path, read_only=True)
        else:
            nodes = _zipped(path)
            store = zarr.storage.ZipStore(path, read_only=True)
        try:
            # The metadata are those of the nodes, never consolidated ones.
            group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
            yield Container(path, nodes, group)
        finally:
            store.close()
    except StoreError:
        raise
    except MemoryError as error:
        raise StoreError(f"There is not enough memory to open {path.name}.") from error
    except Exception as error:
        # zarr, numcodecs, zipfile and json raise different errors for a damaged file.
        raise damaged(path, str(error).strip() or type(error).__name__) from error


def _entries(folder: Path) -> dict[str, int]:
    """Return the sizes of all files in a folder; refuse links and devices, which lead elsewhere."""
    sizes: dict[str, int] = {}
    for parent, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            path = Path(parent) / name
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise Invalid(f"{name} is not a regular file")
            if path.is_file():
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _zipped(path: Path) -> dict[str, int]:
    """Check a zip file, and return its arrays with their sizes."""
    if not path.is_file():
        raise Invalid("it is not a regular file")
    if not zipfile.is_zipfile(path):
        raise Invalid("it is not a zip file")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        sizes = {entry.filename: entry.file_size for entry in entries}
        if len(sizes) < len(entries):
            raise Invalid("it has two entries with the same name")
        for entry in entries:
            stored = entry.compress_type == zipfile.ZIP_STORED
            if not stored or entry.compress_size != entry.file_size or entry.flag_bits & 1:
                raise Invalid("it is a compressed zip file: pack it without compression")
        if sum(sizes.values()) > path.stat().st_size:
            raise Invalid("entries of the zip file overlap")

        def head(name: str, count: int) -> bytes:
            with archive.open(name) as file:
                return file.read(count)

        return check_nodes(sizes, head)
