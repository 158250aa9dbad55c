"""Write maps as DICOM Parametric Maps that are aligned with the series that was explained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from camanim._version import __version__
from camanim.declarations import checked
from camanim.errors import RenderError
from camanim.export.common import NOT_A_DIAGNOSIS, LayerChoice, check_maps, chosen_layers
from camanim.export.grid import Grid, native_map
from camanim.export.maps import ANY_LAYERS
from camanim.images import SourceImage, open_image
from camanim.images.dicom import DicomReference, quiet
from camanim.images.place import SourcePlace
from camanim.optional import library
from camanim.progress import Progress, silent
from camanim.result import Result
from camanim.stack import FloatMap, Normalization, stack_maps
from camanim.writing import checked_path, make_folder, write_file

#: What a Parametric Map needs of its source, besides the patient: references and geometry.
_KEPT = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "Rows",
    "Columns", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "ImagePositionPatient",
    "ImageOrientationPatient", "NumberOfFrames", "InstanceNumber", "ImageType",
)  # fmt: skip
#: Functional groups of a multi-frame source with its geometry.
_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
#: Attributes of patient and study, which are those of the source unless the output is anonymous.
_PATIENT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
#: Bytes of the pixels of a DICOM file.
_LARGEST = 2**32 - 2
#: Largest distance in pixels between corners of the same image.
_SAME = 0.05
#: First number of the series, far from those of a scanner.
_FIRST_SERIES = 9000


@checked(RenderError)
def write_dicom(
    result: Result,
    path: str | Path,
    source: Any,
    *,
    layers: Annotated[LayerChoice, ANY_LAYERS] = None,
    normalization: Normalization | None = "local",
    signed: bool = False,
    anonymous: bool = True,
    progress: Progress = silent,
) -> list[Path]:
    """Write maps as DICOM Parametric Maps on the slices of the series that was explained.

    Each layer is a file and a series, with the frame of reference, the positions and orientation of the
    source, so that viewers show it over the source. Values are float32; the description of the series
    names method, network, class and layer, and says "not for diagnosis". Slices that the network's input
    does not cover are 0.

    Every map refers to the SOP instances of its source by their UIDs, as the standard demands: whoever
    has the source can find the patient by them. With ``anonymous=True``, patient, study and institution
    are empty, and the study is a new one. With False, patient and study are copied from the source, as
    the standard demands of series in the same study. No other function of this package writes data of a
    patient.

    Parameters
    ----------
    result : Result
        Of a `SourceImage` that was opened from DICOM files.
    path : path-like
        A file ending in ``.dcm`` for one layer, or a folder for a file of each layer, which is created.
    source : SourceImage or path-like
        The image that was explained, or its file or folder. `SourceImage.reoriented` ones are accepted.
    layers : int, str or iterable of these, optional
        Indices, labels, globs or kinds of layers; by default the layer to show first for a file, and all
        for a folder.
    normalization : {"local", "global", None}
        Scale of the maps, as for `Animation.stack`; None for the raw values with their sign.
    signed : bool
        Keep negative evidence of normalised maps, in [-1, 1].
    anonymous : bool
        Leave patient and study empty.
    progress : Progress
        Called after every layer.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    RenderError
        If the source is another image than that of the result or has no place in a patient, a library is
        missing (``napari-camanim[medical]``), or a file cannot be written.
    LayerError
        If no layer matches.
    """
    library("highdicom", "medical", RenderError)
    check_maps(result)
    is_file = Path(path).suffix.lower() == ".dcm"
    indices = chosen_layers(result, result.initial_index if is_file and layers is None else layers)
    if is_file and len(indices) > 1:
        raise RenderError(
            f"{len(indices)} layers are {len(indices)} series: pass a folder, or one layer."
        )
    target = checked_path(path, ".dcm") if is_file else Path(path).absolute()
    with quiet():
        datasets, grid = _source(result, source, anonymous)
        if 4 * int(np.prod(grid.shape)) > _LARGEST:
            raise RenderError("The image is too large for a DICOM file: write .nii instead.")
    if not is_file:
        make_folder(target)
    is_raw = normalization is None
    stack = stack_maps(result, normalization, signed=signed or is_raw)
    unit = "Raw relevance" if is_raw else f"Relevance, {normalization} scale,"
    written = []
    for done, i in enumerate(indices):
        values = grid.place(np.asarray(native_map(stack, i, is_raw), np.float32))
        label = result.layers[i].label
        file = target if is_file else target / f"{i:04d}_{_file_name(label)}.dcm"
        with quiet():
            content = _parametric_map(result, i, values, datasets, unit)
        write_file(checked_path(file, ".dcm"), content)
        written.append(file)
        progress("maps", done + 1, len(indices))
    return written


def _file_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", label)[:80]


# -- Source ----------------------------------------------------------------------------------------


def _source(result: Result, source: Any, anonymous: bool) -> tuple[_Source, Grid]:
    """Return the datasets of the source, and the grid of its pixels."""
    image = source if isinstance(source, SourceImage) else open_image(source)
    reference = image.reference
    if not isinstance(reference, DicomReference):
        raise RenderError("The source is no DICOM image: write the maps as .nii or .tif.")
    explained = result.source
    if explained is None or explained.matrix is None or reference.affine is None:
        raise RenderError(
            "The image has no position in a patient: explain camanim.open_image(...) of a DICOM image "
            "with positions, or write the maps as .nii or .tif."
        )
    to_source = _same_image(reference, explained)
    grid = Grid(reference.shape, result.source_geometry, to_source=to_source)
    return _read(reference, anonymous), grid


def _same_image(reference: DicomReference, explained: SourcePlace) -> npt.NDArray[np.float64]:
    """Return the matrix from indices of the stored image to those of the explained one.

    Raises
    ------
    RenderError
        Unless they have the same pixels, at most in another order of the axes.
    """
    stored, matrix, axes = reference.affine, explained.matrix, len(explained.shape)
    assert stored is not None
    assert matrix is not None
    to_source = np.linalg.solve(matrix, stored)
    rounded = np.round(to_source)
    turn = np.abs(rounded[:3, :3])
    longest = max(explained.shape)
    is_same = len(reference.shape) == axes and (turn.sum(0) == 1).all() and (turn.sum(1) == 1).all()
    is_same = is_same and np.abs(to_source[:3, :3] - rounded[:3, :3]).max() * longest < _SAME
    is_same = is_same and np.abs(to_source[:3, 3] - rounded[:3, 3]).max() < _SAME
    if is_same:
        ends = np.array([[0, 0, 0], np.array(_three(reference.shape)) - 1]).T
        ends = np.sort(rounded[:3, :3] @ ends + rounded[:3, 3:], 1)
        is_same = np.array_equal(ends, [[0, n - 1] for n in _three(explained.shape)])
    if not is_same:
        raise RenderError(
            "The source is not the image that was explained: its pixels lie elsewhere."
        )
    kept = slice(3 - axes, 3)
    return np.concatenate([rounded[kept, kept], rounded[kept, 3:]], 1)


def _three(shape: Sequence[int]) -> tuple[int, ...]:
    return (*[1] * (3 - len(shape)), *shape)


@dataclass(frozen=True, repr=False)
class _Source:
    """The datasets of a source, with references, geometry and patient, and nothing else.

    Attributes
    ----------
    datasets : list of pydicom.Dataset
        One for each slice, or one for all frames.
    geometry : dict
        Geometry of the frames of a multi-frame source.
    """

    datasets: list[Any]
    geometry: dict[str, Any]


def _read(reference: DicomReference, anonymous: bool) -> _Source:
    """Read the elements of the source that a map needs."""
    import pydicom

    study = pydicom.uid.generate_uid(prefix=None)
    datasets = []
    for path in dict.fromkeys(reference.paths):
        try:
            datasets.append(_kept_of(path, study, anonymous))
        except RenderError:
            raise
        except Exception as error:  # noqa: BLE001 (raised again, without its cause)
            # Its message may name the file, or quote it.
            raise RenderError(
                f"A file of the source cannot be read any more ({type(error).__name__}): open the "
                "source again, and pass that."
            ) from None
    if len(datasets) == len(reference.paths):
        return _Source(datasets, {})
    if len(datasets) > 1:
        raise RenderError("The source has several files of several frames: write .nii instead.")
    return _Source(datasets, _frame_geometry(reference))


def _kept_of(path: Path, study: str, anonymous: bool) -> Any:
    """Return the elements of a file that a map needs."""
    import pydicom

    whole = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    if not whole.get("FrameOfReferenceUID"):
        raise RenderError(
            "The source has no frame of reference for a Parametric Map: write .nii instead."
        )
    if not anonymous and not whole.get("StudyInstanceUID"):
        raise RenderError(
            "The source has no StudyInstanceUID to copy: leave out anonymous=False, or write .nii."
        )
    kept = pydicom.Dataset()
    kept.file_meta = pydicom.dataset.FileMetaDataset()
    kept.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    for keyword in _KEPT:
        if keyword in whole:
            kept[keyword] = whole[keyword]
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if keyword in whole:
            setattr(kept, keyword, [_geometry_of(pydicom, g) for g in getattr(whole, keyword)])
    for keyword in _PATIENT:
        setattr(kept, keyword, "" if anonymous else whole.get(keyword, ""))
    kept.StudyInstanceUID = study if anonymous else whole.StudyInstanceUID
    if not anonymous and "SpecificCharacterSet" in whole:
        kept.SpecificCharacterSet = whole.SpecificCharacterSet
    return kept


def _geometry_of(pydicom: Any, group: Any) -> Any:
    """Return the geometry in a functional group, and nothing else of it."""
    kept = pydicom.Dataset()
    for keyword in _GROUPS:
        if keyword in group:
            kept[keyword] = group[keyword]
    return kept


def _frame_geometry(reference: DicomReference) -> dict[str, Any]:
    """Return the geometry of frames, from the affine and the positions of the slices."""
    import highdicom

    assert reference.affine is not None
    affine = reference.affine.copy()
    # DICOM's axes grow to the left and to posterior.
    affine[:2] *= -1
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / lengths
    system = highdicom.CoordinateSystemNames.PATIENT
    positions = [affine[:3, 3] + affine[:3, 0] * z for z in range(len(reference.paths))]
    return {
        "pixel_measures": highdicom.PixelMeasuresSequence(
            pixel_spacing=[float(lengths[1]), float(lengths[2])],
            slice_thickness=float(lengths[0]),
            spacing_between_slices=float(lengths[0]),
        ),
        "plane_orientation": highdicom.PlaneOrientationSequence(
            system, [float(v) for v in (*directions[:, 2], *directions[:, 1])]
        ),
        "plane_positions": [
            highdicom.PlanePositionSequence(system, [float(v) for v in position])
            for position in positions
        ],
    }


# -- Output ----------------------------------------------------------------------------------------


def _parametric_map(result: Result, i: int, values: FloatMap, source: _Source, unit: str) -> bytes:
    """Return a file with the map of one layer."""
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    layer = result.layers[i]
    words = [
        result.method,
        str(result.provenance.get("model", "")),
        result.target.name,
        layer.label,
    ]
    low, high = float(values.min()), float(values.max())
    high = max(high, float(np.nextafter(np.float32(low), np.float32(np.inf))))
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=_text(layer.label, 16) or "layer",
        lut_explanation=_text(f"{unit} of layer {layer.label}", 64),
        unit=codes.UCUM.NoUnits,
        value_range=(low, high),
        intercept=0,
        slope=1,
    )
    # Of constant values as well: a width must be positive.
    window = highdicom.VOILUTTransformation(
        window_center=(low + high) / 2, window_width=max(high - low, 1e-6)
    )
    try:
        made = highdicom.pm.ParametricMap(
            source_images=source.datasets,
            pixel_array=values if values.ndim == 3 else values[None],
            series_instance_uid=pydicom.uid.generate_uid(prefix=None),
            series_number=_FIRST_SERIES + i,
            sop_instance_uid=pydicom.uid.generate_uid(prefix=None),
            instance_number=1,
            manufacturer="napari-camanim",
            manufacturer_model_name="camanim",
            software_versions=__version__,
            device_serial_number="0",
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[mapping],
            voi_lut_transformations=[window],
            content_label="RELEVANCE",
            content_description=_fitted([NOT_A_DIAGNOSIS, *words], 64),
            series_description=_fitted([NOT_A_DIAGNOSIS, *words], 64),
            image_flavor="VOLUME",
            derived_pixel_contrast="NONE",
            **source.geometry,
        )
        made.ImageComments = _text("; ".join([NOT_A_DIAGNOSIS, unit, *words]), 10_000)
        content = BytesIO()
        made.save_as(content, enforce_file_format=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Its message may quote the source.
        raise RenderError(
            "The source lacks elements that a Parametric Map needs "
            f"({type(error).__name__}): write the maps as .nii instead."
        ) from None
    return content.getvalue()


def _fitted(parts: list[str], length: int) -> str:
    """Return parts in one text of a length; the longest parts but the first are shortened."""
    parts = [_text(part, length) for part in parts]
    while len("; ".join(parts)) > length:
        longest = max(range(1, len(parts)), key=lambda k: len(parts[k]))
        parts[longest] = parts[longest][:-2].rstrip(".") + "."
    return "; ".join(parts)


def _text(text: str, length: int) -> str:
    """Return a text as DICOM stores it: in ASCII, without a backslash, and short."""
    ascii_only = text.encode("ascii", "replace").decode().replace("\\", "/")
    return ascii_only if len(ascii_only) <= length else f"{ascii_only[: length - 3]}..."
