"""Write maps as TIFF, NumPy arrays and NIfTI volumes."""

from __future__ import annotations

import gzip
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from camanim.declarations import Check, checked
from camanim.errors import RenderError
from camanim.export.common import (
    NOT_A_DIAGNOSIS,
    LayerChoice,
    check_maps,
    checked_suffix,
    chosen_layers,
    complete_file,
    record,
    to_json,
)
from camanim.export.grid import Grid, grid_of, native_map
from camanim.optional import library
from camanim.progress import Progress, silent
from camanim.result import Result
from camanim.stack import FloatMap, Normalization, Stack, stack_maps

SUFFIXES = (".tif", ".tiff", ".npy", ".npz", ".nii", ".nii.gz")
#: Bytes of a TIFF file of ImageJ, whose offsets have 32 bits.
_LARGEST_TIFF = 2**32 - 2**20
#: Longest side of an image of NIfTI-1.
_LONGEST_SIDE = 2**15 - 1
_XFORMS = {"scanner": 1, "aligned": 2, "talairach": 3, "mni": 4}
#: Check of ``layers=``, whose choices are resolved by `chosen_layers`.
ANY_LAYERS = Check(lambda value: True, "indices, labels or kinds of layers")


@checked(RenderError)
def write_maps(
    result: Result,
    path: str | Path,
    normalization: Normalization | None = None,
    *,
    signed: bool = False,
    layers: Annotated[LayerChoice, ANY_LAYERS] = None,
    progress: Progress = silent,
) -> Path:
    """Write the maps of the layers as float32.

    - ``.tif``: a hyperstack of ImageJ at the size of the network's input, one frame for each layer with
      its name as label, slices of a volume as z; the size of a pixel, where it is known.
    - ``.npy``: an array (L, H, W) or (L, D, H, W) at the size of the network's input.
    - ``.npz``: the map of each layer at its own resolution, under its label, and ``metadata``, a text
      of JSON.
    - ``.nii``, ``.nii.gz``: the maps on the pixels of the image, (x, y, z, layer), with the affine of
      the image if it is a `SourceImage` that has one. The names of the layers are in a header extension.
      Pixels that the network's input does not cover are 0. Needs nibabel (``napari-camanim[medical]``).

    No file holds data of a patient or the name of the image file. Maps are written one after the other,
    so that memory is that of one layer.

    Parameters
    ----------
    result : Result
    path : path-like
    normalization : {"local", "global", None}
        Scale of the maps, as for `Animation.stack`; None for the raw values with their sign.
    signed : bool
        Keep negative evidence of normalised maps, in [-1, 1].
    layers : int, str or iterable of these, optional
        Indices, labels, globs or kinds of layers; by default all shown ones.
    progress : Progress
        Called after every layer.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    RenderError
        If the suffix is another one, a library is missing, the format cannot hold as much, or the file
        cannot be written.
    LayerError
        If no layer matches.
    """
    target, suffix = checked_suffix(path, SUFFIXES)
    check_maps(result)
    indices = chosen_layers(result, layers)
    maps = _Maps(result, normalization, signed, indices, progress)
    write = _WRITERS[suffix]
    write(maps, target)
    return target


class _Maps:
    """The chosen maps of a result, one after the other."""

    def __init__(
        self,
        result: Result,
        normalization: Normalization | None,
        signed: bool,
        indices: list[int],
        progress: Progress,
    ) -> None:
        self.result, self.indices, self._progress = result, indices, progress
        self.is_raw = normalization is None
        self.stack: Stack = stack_maps(result, normalization, signed=signed or self.is_raw)
        self.labels = [result.layers[i].label for i in indices]
        self.metadata = record(result, indices) | {
            "normalization": normalization,
            "signed": signed or self.is_raw,
        }

    def native(self) -> Iterator[FloatMap]:
        """Yield the maps at their own resolutions."""
        for done, i in enumerate(self.indices):
            yield np.asarray(native_map(self.stack, i, self.is_raw), np.float32)
            self._progress("maps", done + 1, len(self.indices))

    def resized(self) -> Iterator[FloatMap]:
        """Yield the maps at the size of the network's input."""
        for done, i in enumerate(self.indices):
            yield self.stack.plane(i)
            self._progress("maps", done + 1, len(self.indices))

    def on_grid(self, grid: Grid) -> Iterator[FloatMap]:
        """Yield the maps on the pixels of the image."""
        for raw in self.native():
            yield grid.place(raw)


def _write_tiff(maps: _Maps, target: Path) -> None:
    import tifffile

    size, result = maps.stack.shape[1:], maps.result
    shape = (len(maps.indices), *size)
    if 4 * math.prod(shape) > _LARGEST_TIFF:
        raise RenderError(
            f"{len(maps.indices)} maps are more than a TIFF file of ImageJ can hold: choose some by "
            "layers=, or write .npy or .nii."
        )
    planes = size[0] if len(size) == 3 else 1
    metadata: dict[str, Any] = {
        "axes": "TYX" if len(size) == 2 else "TZYX",
        "Labels": [label for label in maps.labels for _ in range(planes)],
        "Info": to_json(maps.metadata),
        "mode": "grayscale",
    }
    extra: dict[str, Any] = {}
    source = result.source
    if source is not None and source.spacing is not None and len(source.spacing) == len(size):
        pixel = [s * f for s, f in zip(source.spacing, result.source_geometry.scale, strict=True)]
        extra["resolution"] = (1 / pixel[-1], 1 / pixel[-2])
        metadata["unit"] = source.units or "pixel"
        if len(size) == 3:
            metadata["spacing"] = pixel[0]
    with complete_file(target) as partial:
        tifffile.imwrite(
            partial,
            (plane for resized in maps.resized() for plane in resized.reshape(-1, *size[-2:])),
            shape=shape,
            dtype=np.float32,
            imagej=True,
            metadata=metadata,
            **extra,
        )


def _write_npy(maps: _Maps, target: Path) -> None:
    shape = (len(maps.indices), *maps.stack.shape[1:])
    with complete_file(target) as partial, partial.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, _header(shape))
        for resized in maps.resized():
            stream.write(np.ascontiguousarray(resized, "<f4").data)


def _header(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"descr": "<f4", "fortran_order": False, "shape": shape}


def _write_npz(maps: _Maps, target: Path) -> None:
    names = {"metadata"}
    with (
        complete_file(target) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for label, raw in zip(maps.labels, maps.native(), strict=True):
            name, number = label, 1
            while name in names:
                number += 1
                name = f"{label} ({number})"
            names.add(name)
            _write_member(archive, name, raw)
        _write_member(archive, "metadata", np.array(to_json(maps.metadata)))


def _write_member(archive: zipfile.ZipFile, name: str, values: npt.NDArray[Any]) -> None:
    # A fixed time, so that equal results are equal files.
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, values, allow_pickle=False)


# -- NIfTI -----------------------------------------------------------------------------------------


def _write_nifti(maps: _Maps, target: Path) -> None:
    library("nibabel", "medical", RenderError)
    grid = grid_of(maps.result)
    header = _nifti_header(maps, grid)
    with complete_file(target) as partial, partial.open("wb") as stream:
        if target.suffix.lower() == ".gz":
            # Without the name of the part file and the time; floats gain little by more compression.
            with gzip.GzipFile("", "wb", 1, stream, mtime=0) as compressed:
                _write_volumes(maps, grid, header, compressed)
        else:
            _write_volumes(maps, grid, header, stream)


def _write_volumes(maps: _Maps, grid: Grid, header: Any, stream: BinaryIO | Any) -> None:
    header.write_to(stream)
    # The header ends where the voxels begin; the first axis is the fastest, (x, y, z, layer).
    stream.write(b"\0" * (int(header["vox_offset"]) - stream.tell()))
    for placed in maps.on_grid(grid):
        stream.write(np.ascontiguousarray(placed, "<f4").data)


def _nifti_header(maps: _Maps, grid: Grid) -> Any:
    """Return the header: the affine for (x, y, z), and the layers in an extension."""
    from nibabel.nifti1 import Nifti1Extension, Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    sizes = (*reversed(grid.shape), *[1] * (3 - len(grid.shape)), len(maps.indices))
    kind = Nifti1Header if max(sizes) <= _LONGEST_SIDE else Nifti2Header
    header = kind(endianness="<")
    header.set_data_dtype(np.float32)
    header.set_data_shape(sizes)
    header.set_xyzt_units({"mm": "mm", "um": "micron"}.get(grid.units or "", 0), 0)
    spacing = grid.spacing or (1.0,) * len(grid.shape)
    zooms = (*reversed(spacing), *[1.0] * (3 - len(spacing)), 1.0)
    if grid.affine is not None:
        affine = grid.affine[:, [2, 1, 0, 3]]
        zooms = (*(float(v) for v in np.linalg.norm(affine[:3, :3], axis=0)), 1.0)
        header.set_zooms(zooms)
        code = _XFORMS.get(grid.space or "", 2)
        header.set_sform(affine, code)
        # A quaternion cannot hold a shear; without a code it is not used.
        header.set_qform(affine, code, strip_shears=True)
        if not np.allclose(header.get_qform(), affine, atol=1e-4):
            header["qform_code"] = 0
    else:
        header.set_zooms(zooms)
    header["descrip"] = f"camanim {maps.result.method}; {NOT_A_DIAGNOSIS}"[:79].encode(
        "ascii", "replace"
    )
    # Code 6 is a comment, which other programs skip.
    comment = to_json(maps.metadata).encode()
    header.extensions.append(Nifti1Extension(6, comment))
    return header


_WRITERS = {
    ".tif": _write_tiff,
    ".tiff": _write_tiff,
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".nii": _write_nifti,
    ".nii.gz": _write_nifti,
}
