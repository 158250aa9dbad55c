"""Read DICOM images: single files, multi-frame files, and folders with a series.

A DICOM file holds data of a patient in many places. Only the elements in `_TAGS` are read, no text of a
file gets into a name, a note or an error, and what pydicom reports meanwhile is dropped, since its
warnings quote values.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from camanim.errors import ImageError
from camanim.images.geometry import format_size
from camanim.images.place import Affine
from camanim.images.selection import Selection, chosen
from camanim.images.source import SourceImage
from camanim.images.values import Window, is_window
from camanim.optional import library

#: Elements that are read, by their keywords: geometry, intensities, and what distinguishes images.
_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "Modality",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "SequenceOfUltrasoundRegions", "NumberOfFrames",
    "FrameOfReferenceUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "VOILUTSequence", "BurnedInAnnotation", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_PIXEL_TAGS = (
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
)  # fmt: skip
#: Modalities of images, by the standard; any other text could be anything.
_MODALITIES = {
    "CR", "CT", "DG", "DX", "EM", "ES", "GM", "IO", "IVOCT", "IVUS", "MG", "MR", "NM", "OCT", "OP",
    "OPT", "OT", "PT", "PX", "RF", "RG", "RTDOSE", "RTIMAGE", "SEG", "SM", "TG", "US", "XA", "XC",
}  # fmt: skip
_SUFFIXES = (".dcm", ".dicom", ".ima")
#: Bytes that one byte of compressed pixels can plausibly become, and an image that is read anyway.
_RATIO, _SMALL = 2000, 2**26
#: Deviation of a distance between slices, as a fraction of it, that is no rounding error.
_UNEVEN = 0.02
#: Cosine of the angle between the stack of slices and their normal from which it is sheared.
_SHEARED = 0.9998

_lock = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings and log records of pydicom and highdicom, as they quote values of a patient."""
    with _lock:
        loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@dataclass(frozen=True, repr=False)
class DicomReference:
    """The files of an image, in the order of its slices.

    Attributes
    ----------
    paths : tuple of pathlib.Path
        File of each slice.
    frames : tuple of int
        Frame of each slice within its file.
    shape : tuple of int
    affine : (4, 4) array or None
        Of the image as it is stored; see `SourcePlace`.
    """

    paths: tuple[Path, ...]
    frames: tuple[int, ...]
    shape: tuple[int, ...]
    affine: Affine | None


@dataclass(frozen=True, repr=False)
class _Frame:
    """One frame of a file, and the place of its plane."""

    path: Path
    index: int
    header: Any
    position: npt.NDArray[np.float64] | None
    orientation: npt.NDArray[np.float64] | None


def is_dicom(path: Path) -> bool:
    """Return whether a file, or a file in a folder, is of DICOM, by its content or its suffix."""
    if path.is_dir():
        return any(p.is_file() and is_dicom(p) for p in path.iterdir())
    if path.suffix.lower() in _SUFFIXES:
        return True
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def open_dicom(path: Path, selection: Selection) -> SourceImage:
    """Open a DICOM file, or the series in a folder.

    Raises
    ------
    ImageError
        Without any text of the files, and without their names, which may be those of patients.
    """
    library("pydicom", "medical")
    with quiet():
        try:
            return _open(path, selection)
        except ImageError as error:
            raise ImageError(f"The DICOM image cannot be opened: {error}") from None
        except Exception as error:  # noqa: BLE001 (raised again, without its cause)
            # Its message may quote the file.
            kind = type(error).__name__
            raise ImageError(
                f"The DICOM image cannot be opened: it is damaged, or of a kind that pydicom cannot "
                f"read ({kind})."
            ) from None


def _open(path: Path, selection: Selection) -> SourceImage:
    selection.allow("A DICOM image", *(["series"] if path.is_dir() else []), "volume")
    notes: list[str] = []
    headers = _series(path, selection) if path.is_dir() else [(path, _header(path))]
    frames = [frame for file, header in headers for frame in _frames(file, header)]
    sizes = sorted({(int(f.header.Rows), int(f.header.Columns)) for f in frames})
    if len(sizes) > 1:
        raise ImageError(
            f"its slices have different sizes ({', '.join(map(format_size, sizes[:4]))}): open those of "
            "one size."
        )
    frames = _sorted(frames, selection.volume, notes)
    pixels, inverted = _pixels(frames)
    header = frames[0].header
    if inverted:
        notes.append("The DICOM image is stored with white as 0 (MONOCHROME1): it was inverted.")
    if any(f.header.get("BurnedInAnnotation") == "YES" for f in frames):
        notes.append(
            "The DICOM file says that text is burned into its pixels, which may name the patient: it is "
            "in every picture of this image."
        )
    dims = 3 if len(frames) > 1 else 2
    pixels = pixels if dims == 3 else pixels[0]
    is_grey = pixels.ndim == dims
    affine, spacing = _geometry(frames, notes)
    return SourceImage(
        pixels,
        dims,
        "DICOM",
        _modality(header) or "DICOM",
        window=_window(frames, inverted, notes) if is_grey else None,
        spacing=spacing,
        units=None if spacing is None else "mm",
        affine=affine,
        space=None if affine is None else "scanner",
        notes=tuple(notes),
        reference=DicomReference(
            tuple(f.path for f in frames),
            tuple(f.index for f in frames),
            pixels.shape[:dims],
            affine,
        ),
    )


# -- Files -----------------------------------------------------------------------------------------


def _header(path: Path) -> Any:
    """Read the elements of an image without its pixels."""
    import pydicom

    force = path.suffix.lower() in _SUFFIXES
    header = pydicom.dcmread(path, stop_before_pixels=True, force=force, specific_tags=list(_TAGS))
    if "Rows" not in header or "Columns" not in header:
        raise ImageError("it holds no pixels, such as a report or a structure set.")
    if header.Rows < 1 or header.Columns < 1:
        raise ImageError("it is damaged: it has no rows or columns.")
    return header


def _series(path: Path, selection: Selection) -> list[tuple[Path, Any]]:
    """Return the files of one series in a folder."""
    import pydicom

    series: dict[str, list[tuple[Path, Any]]] = {}
    for file in sorted(p for p in path.iterdir() if p.is_file() and is_dicom(p)):
        try:
            header = _header(file)
        except (ImageError, pydicom.errors.InvalidDicomError):
            # Reports, DICOMDIR and others; a damaged image fails when its pixels are read.
            header = None
        if header is not None:
            series.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((file, header))
    if not series:
        raise ImageError("the folder holds no DICOM image.")
    uids = sorted(series, key=lambda uid: (_number(series[uid][0][1], "SeriesNumber"), uid))
    if isinstance(selection.series, str):
        if selection.series not in series:
            raise ImageError("the folder has no series of this SeriesInstanceUID.")
        return series[selection.series]
    kinds = []
    for i, uid in enumerate(uids[:8]):
        header, count = series[uid][0][1], len(series[uid])
        size = format_size((int(header.Rows), int(header.Columns)))
        kinds.append(f"{i}: {_modality(header) or 'unknown modality'}, {count} files of {size}")
    what = f"the folder holds {len(uids)} series ({'; '.join(kinds)})"
    return series[uids[chosen(selection.series, len(uids), "series", what)]]


def _modality(header: Any) -> str:
    modality = str(header.get("Modality", ""))
    return modality if modality in _MODALITIES else ""


def _number(header: Any, keyword: str) -> float:
    value = header.get(keyword)
    return float("inf") if value is None or value == "" else float(value)


def _frames(path: Path, header: Any) -> Iterator[_Frame]:
    """Yield the frames of a file, with the places of their planes."""
    count = int(header.get("NumberOfFrames") or 1)
    if count > 1 and count * int(header.Rows) * int(header.Columns) / 8 > _limit(path):
        raise ImageError("it is damaged: it promises more frames than the file has.")
    for index in range(count):
        position = _of_frame(header, index, "PlanePositionSequence", "ImagePositionPatient", 3)
        if count > 1 and "PerFrameFunctionalGroupsSequence" not in header:
            # The position at the top is that of the first frame.
            position = None
        orientation = _of_frame(
            header, index, "PlaneOrientationSequence", "ImageOrientationPatient", 6
        )
        if orientation is not None:
            lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
            is_rotation = np.abs(lengths - 1).max() < 0.01
            is_rotation &= abs(orientation[:3] @ orientation[3:]) < 0.01
            orientation = orientation if is_rotation else None
        yield _Frame(path, index, header, position, orientation)


def _limit(path: Path) -> int:
    """Return the largest plausible number of bytes of the pixels of a file."""
    return max(_SMALL, _RATIO * path.stat().st_size)


def _groups(header: Any, index: int, sequence: str) -> Iterator[Any]:
    """Yield the datasets that may hold an element of a frame, the most specific one first."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[index : index + 1], *shared[:1]):
        yield from (group.get(sequence) or [])[:1]
    yield header


def _of_frame(
    header: Any, index: int, sequence: str, keyword: str, count: int
) -> npt.NDArray[np.float64] | None:
    """Return finite numbers of a frame; None where they are missing or something else."""
    for dataset in _groups(header, index, sequence):
        value = dataset.get(keyword)
        if value is None or value == "":
            continue
        values = np.array(
            [float(v) for v in (value if hasattr(value, "__len__") else [value])], np.float64
        )
        if len(values) >= count and np.isfinite(values).all():
            return values[:count]
    return None


# -- Order and geometry ----------------------------------------------------------------------------


def _sorted(frames: list[_Frame], volume: int | None, notes: list[str]) -> list[_Frame]:
    """Return the frames of one volume, in the order of their positions along their normal."""
    if len(frames) == 1:
        chosen(volume, 1, "volume", "it holds 1 volume")
        return frames
    in_order = sorted(frames, key=lambda f: (_number(f.header, "InstanceNumber"), f.index))
    orientations = [f.orientation for f in frames]
    if any(o is None for o in orientations) or any(f.position is None for f in frames):
        chosen(volume, 1, "volume", "it holds 1 volume")
        notes.append(
            "The DICOM slices have no positions, as those of a film: they are in the order of their "
            "numbers."
        )
        return in_order
    first = orientations[0]
    assert first is not None
    if any(o is None or np.abs(o - first).max() > 0.01 for o in orientations):
        raise ImageError("its slices have different orientations: open those of one orientation.")
    normal = np.cross(first[:3], first[3:])
    at = {id(f): float(f.position @ normal) for f in frames if f.position is not None}
    groups: list[list[_Frame]] = []
    for frame in sorted(in_order, key=lambda f: at[id(f)]):
        if groups and at[id(frame)] - at[id(groups[-1][0])] < 1e-3:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    counts = {len(group) for group in groups}
    if len(counts) > 1:
        raise ImageError(
            f"some positions have {min(counts)} and others {max(counts)} slices: open those of one "
            "volume alone."
        )
    (count,) = counts
    what = f"it holds {count} volumes, as points in time"
    k = chosen(volume, count, "volume", what)
    return [group[k] for group in groups]


def _geometry(
    frames: Sequence[_Frame], notes: list[str]
) -> tuple[Affine | None, tuple[float, ...] | None]:
    """Return the affine for indices (z, y, x), and the spacing along the axes of the image."""
    first = frames[0]
    pixel = _pixel_spacing(first, notes)
    if pixel is None:
        return None, None
    plane_only = None if len(frames) > 1 else (float(pixel[0]), float(pixel[1]))
    if first.position is None or first.orientation is None:
        return None, plane_only
    along_row, along_column = first.orientation[:3], first.orientation[3:]
    normal = np.cross(along_row, along_column)
    if len(frames) > 1:
        last = frames[-1].position
        assert last is not None
        step = (last - first.position) / (len(frames) - 1)
        _note_steps(frames, normal, notes)
        if step @ normal < _SHEARED * np.linalg.norm(step):
            notes.append("The DICOM slices are shifted against each other, as by a tilted gantry.")
    else:
        thickness = _of_frame(
            first.header, first.index, "PixelMeasuresSequence", "SliceThickness", 1
        )
        step = normal * (1.0 if thickness is None or thickness[0] <= 0 else thickness[0])
    affine = np.eye(4)
    # Pixel spacing is that of the rows, and then that of the columns.
    columns = (step, along_column * pixel[0], along_row * pixel[1], first.position)
    affine[:3] = np.stack(columns, 1)
    # DICOM's axes grow to the left and to posterior.
    affine[:2] *= -1
    spacing = (float(np.linalg.norm(step)), float(pixel[0]), float(pixel[1]))
    return affine, plane_only or spacing


def _note_steps(
    frames: Sequence[_Frame], normal: npt.NDArray[np.float64], notes: list[str]
) -> None:
    """Add a note if slices are missing or unevenly spaced."""
    at = np.array([f.position @ normal for f in frames if f.position is not None])
    steps = np.diff(at)
    usual = float(np.median(steps))
    if np.abs(steps - usual).max() <= _UNEVEN * usual:
        return
    multiples = np.round(steps / usual)
    if np.abs(steps - multiples * usual).max() <= _UNEVEN * usual and multiples.min() >= 1:
        missing = int((multiples - 1).sum())
        notes.append(
            f"{missing} slices of the DICOM series are missing, by the distances of the others: the "
            "affine takes their mean."
        )
    else:
        notes.append(
            f"The DICOM slices are unevenly spaced, by {steps.min():.4g} to {steps.max():.4g} mm: the "
            "affine takes the mean."
        )


def _pixel_spacing(frame: _Frame, notes: list[str]) -> npt.NDArray[np.float64] | None:
    """Return the distances between rows and between columns in mm."""
    spacing = _of_frame(frame.header, frame.index, "PixelMeasuresSequence", "PixelSpacing", 2)
    if spacing is None:
        spacing = _of_frame(frame.header, frame.index, "", "ImagerPixelSpacing", 2)
        if spacing is not None:
            notes.append("The spacing is that at the detector, which is larger than in the body.")
    regions = frame.header.get("SequenceOfUltrasoundRegions") or []
    if spacing is None and len(regions) == 1:
        units = [regions[0].get(f"PhysicalUnits{axis}Direction") for axis in "YX"]
        deltas = [regions[0].get(f"PhysicalDelta{axis}") for axis in "YX"]
        if units == [3, 3] and None not in deltas:
            # Centimetres.
            spacing = np.abs(np.array([float(d) * 10 for d in deltas if d is not None]))
    if spacing is None or not (spacing > 0).all():
        return None
    return spacing


# -- Pixels ----------------------------------------------------------------------------------------


def _pixels(frames: Sequence[_Frame]) -> tuple[npt.NDArray[Any], bool]:
    """Return the values of frames, (N, H, W) or (N, H, W, 3), and whether white was stored as 0."""
    decoded: dict[Path, tuple[npt.NDArray[Any], Any]] = {}
    planes, inverted = [], set()
    for frame in frames:
        if frame.path not in decoded:
            # A series of many files holds one frame each.
            decoded = {frame.path: _decoded(frame.path)}
        values, dataset = decoded[frame.path]
        plane = values[frame.index]
        if plane.ndim == 2:
            plane = _modality_values(plane, dataset, frame.index)
            invert = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
            inverted.add(invert)
            if invert:
                low, high = _stored_range(dataset, frame.index)
                plane = (low + high - plane.astype(np.float64)).astype(plane.dtype)
        planes.append(plane)
    if len(inverted) > 1:
        raise ImageError("some of its slices are stored with white as 0, and others are not.")
    stacked = np.stack(planes)
    if stacked.dtype == np.float64:
        stacked = stacked.astype(np.float32)
    return stacked, inverted == {True}


def _decoded(path: Path) -> tuple[npt.NDArray[Any], Any]:
    """Return the values of all frames of a file, (N, H, W) or (N, H, W, 3), and its elements."""
    import pydicom
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    dataset = pydicom.dcmread(
        path,
        force=path.suffix.lower() in _SUFFIXES,
        specific_tags=[*_TAGS, *_PIXEL_TAGS],
    )
    if not any(name in dataset for name in _PIXEL_TAGS[:3]):
        raise ImageError("it holds no pixels, such as a report or a structure set.")
    _check_size(path, dataset)
    _check_decoder(dataset)
    try:
        values = pixel_array(dataset)
    except RuntimeError:
        # Of all decoders that are there; its text names each.
        raise ImageError(
            "its compressed pixels cannot be decoded: they are damaged, or need another decoder (pip "
            'install "pylibjpeg[all]").'
        ) from None
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
        if values.dtype != np.uint8:
            values = (values >> 8).astype(np.uint8)
    is_color = values.ndim > 2 and int(dataset.get("SamplesPerPixel", 1)) > 1
    is_color = is_color or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
    space = values.ndim - is_color
    return (values[None] if space == 2 else values), dataset


def _check_size(path: Path, dataset: Any) -> None:
    """Raise an `ImageError` if the header promises far more than the file can hold."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples = frames * int(dataset.Rows) * int(dataset.Columns)
    samples *= int(dataset.get("SamplesPerPixel", 1))
    bits = int(dataset.get("BitsAllocated", 8))
    if samples * bits / 8 > _limit(path):
        raise ImageError("it is damaged: it promises more pixels than the file has.")


def _check_decoder(dataset: Any) -> None:
    """Raise an `ImageError` that names what to install if no decoder is there for the compression."""
    from pydicom.pixels.decoders.base import get_decoder

    meta = getattr(dataset, "file_meta", None)
    syntax = None if meta is None else meta.get("TransferSyntaxUID")
    if syntax is None:
        from pydicom.uid import ImplicitVRLittleEndian

        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        return
    if not syntax.is_compressed or syntax == "1.2.840.10008.1.2.1.99":
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise ImageError(
            f"its compression ({_syntax_name(syntax)}) is not supported: save it uncompressed."
        ) from None
    if not available:
        raise ImageError(
            f"its compression ({_syntax_name(syntax)}) needs another decoder: pip install "
            '"pylibjpeg[all]".'
        )


def _syntax_name(syntax: Any) -> str:
    # Of the standard's own list: a private one could hold anything.
    return str(syntax.name) if not syntax.is_private else "a private one"


def _rescale(dataset: Any, index: int) -> tuple[float, float]:
    """Return the slope and the intercept of a frame."""
    sequence = "PixelValueTransformationSequence"
    slope = _of_frame(dataset, index, sequence, "RescaleSlope", 1)
    intercept = _of_frame(dataset, index, sequence, "RescaleIntercept", 1)
    return (
        1.0 if slope is None else float(slope[0]),
        0.0 if intercept is None else float(intercept[0]),
    )


def _stored_range(dataset: Any, index: int) -> tuple[float, float]:
    """Return the values of black and white of the stored type, after the rescaling."""
    bits, signed = int(dataset.BitsStored), int(dataset.get("PixelRepresentation", 0))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = _rescale(dataset, index)
    if "ModalityLUTSequence" in dataset:
        slope, intercept = 1.0, 0.0
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return ends[0], ends[1]


def _modality_values(values: npt.NDArray[Any], dataset: Any, index: int) -> npt.NDArray[Any]:
    """Return the values in the units of the modality, such as Hounsfield units; integers if possible."""
    from pydicom.pixels.processing import apply_modality_lut

    if "ModalityLUTSequence" in dataset:
        return np.asarray(apply_modality_lut(values, dataset))
    slope, intercept = _rescale(dataset, index)
    if (slope, intercept) == (1.0, 0.0):
        return values
    if slope == int(slope) and intercept == int(intercept) and values.dtype.kind in "iu":
        low, high = _stored_range(dataset, index)
        for dtype in (np.uint8, np.int16, np.uint16, np.int32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                exact = values.astype(np.int64) * int(slope) + int(intercept)
                return exact.astype(dtype)
    return (values * slope + intercept).astype(np.float32)


def _window(frames: Sequence[_Frame], inverted: bool, notes: list[str]) -> Window | None:
    """Return the first window of the middle slice, as the limits of black and white."""
    frame = frames[len(frames) // 2]
    windows = [_window_of(f) for f in (frame, frames[0], frames[-1])]
    window = windows[0]
    if window is None:
        if "VOILUTSequence" in frame.header:
            notes.append("The DICOM image has a table of grey values, which was not applied.")
        return None
    if any(other != window for other in windows):
        notes.append("The DICOM slices have different windows: that of the middle slice was taken.")
    if inverted:
        low, high = _stored_range(frame.header, frame.index)
        window = (low + high - window[1], low + high - window[0])
    return window


def _window_of(frame: _Frame) -> Window | None:
    sequence = "FrameVOILUTSequence"
    center, width = (
        _of_frame(frame.header, frame.index, sequence, name, 1)
        for name in ("WindowCenter", "WindowWidth")
    )
    if center is None or width is None:
        return None
    functions = [d.get("VOILUTFunction") for d in _groups(frame.header, frame.index, sequence)]
    c, w = float(center[0]), float(width[0])
    if "LINEAR_EXACT" not in functions:
        # DICOM PS3.3 C.11.2.1.2.1: the ends are pixels, and not edges.
        c, w = c - 0.5, w - 1
    window = (c - w / 2, c + w / 2)
    return window if is_window(window) else None
