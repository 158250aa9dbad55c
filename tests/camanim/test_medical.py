"""DICOM and NIfTI: values, order, orientation, aligned outputs, and no data of a patient anywhere."""

from __future__ import annotations

import gzip
import json
import logging
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import camanim
from camanim import ImageError, RenderError
from camanim.images.place import axis_codes

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
highdicom = pytest.importorskip("highdicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

RANDOM = np.random.default_rng(0)
#: An oblique place: the directions of a row and of a column, and the centre of the first pixel.
_TURN, _TILT = 0.4, 0.25
ROW = np.array([np.cos(_TURN), np.sin(_TURN), 0.0])
COLUMN = np.cross(np.array([-np.sin(_TURN) * np.sin(_TILT), np.cos(_TURN) * np.sin(_TILT),
                            np.cos(_TILT)]), ROW)  # fmt: skip
NORMAL = np.cross(ROW, COLUMN)
ORIGIN = np.array([-40.0, 25.0, 310.0])
STEP, SPACING = 2.5, (0.8, 0.6)
POSITIONS = [ORIGIN + k * STEP * NORMAL for k in range(8)]


def dataset(plane: np.ndarray, **elements) -> Dataset:
    """Return a CT slice of 12 bits."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = CTImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = (
        "1.2.3",
        "1.2.4",
        "1.2.5",
    )
    made.Modality = "CT"
    made.PatientName, made.PatientID = "Doe^Jane", "ID1"
    made.Rows, made.Columns = plane.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelSpacing = list(SPACING)
    made.ImageOrientationPatient = [float(v) for v in (*ROW, *COLUMN)]
    made.ImagePositionPatient = [float(v) for v in ORIGIN]
    made.SliceThickness = STEP
    made.PixelData = plane.astype("<u2").tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def save(made: Dataset, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, volume: np.ndarray, positions=None, **elements) -> Path:
    """Write a slice per file; names and numbers say nothing about the order."""
    folder.mkdir(exist_ok=True)
    positions = POSITIONS if positions is None else positions
    for k, plane in enumerate(volume):
        numbers = {"ImagePositionPatient": [float(v) for v in positions[k]],
                   "InstanceNumber": (k * 11) % len(volume)}  # fmt: skip
        save(dataset(plane, **(numbers | elements)), folder / f"{(k * 11) % len(volume)}.dcm")
    return folder


def lps_of(z: float, y: float, x: float) -> np.ndarray:
    """Return where an index lies in the patient, by the definition of DICOM (PS3.3 C.7.6.2.1.1)."""
    return ORIGIN + z * STEP * NORMAL + x * SPACING[1] * ROW + y * SPACING[0] * COLUMN


def to_ras(lps: np.ndarray) -> np.ndarray:
    return lps * [-1, -1, 1]


@pytest.fixture
def volume() -> np.ndarray:
    return RANDOM.integers(0, 4096, (8, 12, 10)).astype(np.uint16)


class PeakOfVolume(nn.Module):
    """The brightest block of voxels; its HiResCAM marks that block alone."""

    def __init__(self, cell: int) -> None:
        super().__init__()
        self.cells = nn.AvgPool3d(cell)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        peak = self.cells(x).flatten(1).amax(1, keepdim=True)
        return torch.cat([peak, 0 * peak], 1)


def peak_model(cell: int = 1) -> camanim.Model:
    preprocess = camanim.Preprocess(channels=1, dims=3)
    return camanim.Model(PeakOfVolume(cell), preprocess, outputs="values", name="peak")


def explained(model: camanim.Model, source: object, **settings):
    return camanim.animate(model, source, method="HiResCAM", target=0, **settings)


# --- DICOM: values ---------------------------------------------------------------------------


def test_a_series_is_sorted_by_position_and_lies_where_dicom_says(tmp_path, volume) -> None:
    source = camanim.open_image(write_series(tmp_path / "series", volume))
    np.testing.assert_array_equal(source.pixels, volume)
    assert source.pixels.dtype == np.uint16
    assert source.spacing == pytest.approx((STEP, *SPACING))
    assert (source.units, source.kind, source.dims, source.notes) == ("mm", "DICOM", 3, ())
    for index in [(0, 0, 0), (7, 11, 9), (3, 0, 9), (2, 5, 1)]:
        at = source.affine @ [*index, 1]
        np.testing.assert_allclose(at[:3], to_ras(lps_of(*index)), atol=1e-4)
    np.testing.assert_array_equal(camanim.read_image(tmp_path / "series"), volume)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, np.int16), (2, 0, np.int16), (0.5, 10, np.float32)]
)
def test_values_are_those_of_the_modality(tmp_path, volume, slope, intercept, dtype) -> None:
    path = save(
        dataset(volume[0], RescaleSlope=slope, RescaleIntercept=intercept), tmp_path / "a.dcm"
    )
    source = camanim.open_image(path)
    np.testing.assert_allclose(source.pixels, volume[0].astype(float) * slope + intercept)
    assert source.pixels.dtype == dtype
    assert source.dims == 2
    at = source.affine @ [0, 4, 3, 1]
    np.testing.assert_allclose(at[:3], to_ras(lps_of(0, 4, 3)), atol=1e-4)


def test_slices_with_their_own_slopes_are_each_rescaled(tmp_path, volume) -> None:
    for k, plane in enumerate(volume):
        made = dataset(plane, ImagePositionPatient=list(map(float, POSITIONS[k])),
                       RescaleSlope=0.1 * (k + 1), RescaleIntercept=0)  # fmt: skip
        save(made, tmp_path / f"{k}.dcm")
    factors = 0.1 * np.arange(1, 9)[:, None, None]
    np.testing.assert_allclose(camanim.open_image(tmp_path).pixels, volume * factors, rtol=1e-5)


def test_white_as_zero_is_inverted_with_its_window(tmp_path, volume) -> None:
    usual = save(dataset(volume[0], WindowCenter=1000, WindowWidth=401), tmp_path / "a.dcm")
    inverse = dataset(4095 - volume[0].astype(int), PhotometricInterpretation="MONOCHROME1",
                      WindowCenter=4095 - 999, WindowWidth=401)  # fmt: skip
    source = camanim.open_image(save(inverse, tmp_path / "b.dcm"))
    expected = camanim.open_image(usual)
    np.testing.assert_array_equal(source.pixels, expected.pixels)
    assert source.window == pytest.approx(expected.window)
    assert len(source.notes) == 1


@pytest.mark.parametrize(
    ("function", "expected"), [(None, (-160.0, 239.0)), ("LINEAR_EXACT", (-160.0, 240.0))]
)
def test_the_window_is_that_of_the_standard(tmp_path, volume, function, expected) -> None:
    """PS3.3 C.11.2.1.2: pixels <= c - 0.5 - (w - 1) / 2 are black, > c - 0.5 + (w - 1) / 2 white."""
    elements = {"WindowCenter": [40, 600], "WindowWidth": [400, 2000]}
    if function:
        elements["VOILUTFunction"] = function
    source = camanim.open_image(save(dataset(volume[0], **elements), tmp_path / "a.dcm"))
    assert source.window == expected


def test_a_window_of_one_grey_value_is_none(tmp_path, volume) -> None:
    path = save(dataset(volume[0], WindowCenter=40, WindowWidth=1), tmp_path / "a.dcm")
    assert camanim.open_image(path).window is None


def test_colours_become_rgb(tmp_path) -> None:
    rgb = RANDOM.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    flat = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8,
            "HighBit": 7, "Modality": "US"}  # fmt: skip
    made = dataset(rgb[..., 0], **flat, PhotometricInterpretation="RGB")
    made.PixelData = rgb.tobytes()
    source = camanim.open_image(save(made, tmp_path / "rgb.dcm"))
    np.testing.assert_array_equal(source.pixels, rgb)
    assert (source.dims, source.window) == (2, None)

    from PIL import Image

    ycbcr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    made = dataset(rgb[..., 0], **flat, PhotometricInterpretation="YBR_FULL")
    made.PixelData = ycbcr.tobytes()
    read = camanim.read_image(save(made, tmp_path / "ybr.dcm"))
    np.testing.assert_allclose(read.astype(int), rgb, atol=4)


def test_a_palette_becomes_its_colours(tmp_path) -> None:
    indices = RANDOM.integers(0, 256, (6, 8)).astype(np.uint8)
    tables = RANDOM.integers(0, 256, (3, 256)).astype(np.uint16)
    made = dataset(indices, BitsAllocated=8, BitsStored=8, HighBit=7,
                   PhotometricInterpretation="PALETTE COLOR")  # fmt: skip
    made.PixelData = indices.tobytes()
    for name, values in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        data = (values * 257).astype("<u2").tobytes()
        setattr(made, f"{name}PaletteColorLookupTableData", data)
    read = camanim.read_image(save(made, tmp_path / "palette.dcm"))
    np.testing.assert_array_equal(read, tables.T[indices])


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless", "JPEGLSLossless"])
def test_compressed_pixels_are_those_before(tmp_path, volume, syntax) -> None:
    made = dataset(volume[0])
    try:
        made.compress(getattr(pydicom.uid, syntax))
    except RuntimeError:
        pytest.skip("no encoder")
    np.testing.assert_array_equal(camanim.read_image(save(made, tmp_path / "a.dcm")), volume[0])


def test_a_compression_without_decoder_says_what_to_install(tmp_path, volume) -> None:
    made = dataset(volume[0])
    made.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    made.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    made["PixelData"].is_undefined_length = True
    path = save(made, tmp_path / "a.dcm")
    if pydicom.pixels.get_decoder(pydicom.uid.JPEGLosslessSV1).is_available:
        pytest.skip("pylibjpeg is installed")
    with pytest.raises(ImageError, match="pip install"):
        camanim.open_image(path)


def test_files_of_pydicom_have_the_values_of_pydicom() -> None:
    """Files of scanners, in all transfer syntaxes; those without pixels are refused."""
    from pydicom.pixels import apply_modality_lut

    opened = 0
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm")):
        try:
            source = camanim.open_image(path)
        except ImageError:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = pydicom.dcmread(path)
            expected = apply_modality_lut(read.pixel_array, read)
        kind = read.PhotometricInterpretation
        if kind not in ("MONOCHROME1", "PALETTE COLOR"):
            np.testing.assert_allclose(source, expected, err_msg=path.name)
        opened += 1
    if opened == 0:
        pytest.skip("pydicom has no test files")


# --- DICOM: several frames and files ---------------------------------------------------------


def multi_frame(volume: np.ndarray, positions, order) -> Dataset:
    """Return an enhanced image whose frames are stored in an order."""
    made = dataset(volume[0], NumberOfFrames=len(order), ImagePositionPatient=None,
                   ImageOrientationPatient=None, PixelSpacing=None, SliceThickness=None)  # fmt: skip
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    made.Modality = "MR"
    measures, plane = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), STEP
    plane.ImageOrientationPatient = [float(v) for v in (*ROW, *COLUMN)]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = (
        Sequence([measures]),
        Sequence([plane]),
    )
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in order:
        position, transform, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [float(v) for v in positions[k]]
        transform.RescaleSlope, transform.RescaleIntercept = 1 + k % 2, 0
        frame.PlanePositionSequence = Sequence([position])
        frame.PixelValueTransformationSequence = Sequence([transform])
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = Sequence(frames)
    made.PixelData = np.stack([volume[k] for k in order]).astype("<u2").tobytes()
    return made


def test_frames_of_one_file_are_sorted_and_rescaled_each(tmp_path, volume) -> None:
    order = [3, 0, 7, 1, 2, 6, 5, 4]
    path = save(multi_frame(volume, POSITIONS, order), tmp_path / "enhanced.dcm")
    source = camanim.open_image(path)
    factors = 1 + np.arange(8)[:, None, None] % 2
    np.testing.assert_array_equal(source.pixels, volume * factors)
    np.testing.assert_allclose(
        (source.affine @ [6, 2, 3, 1])[:3], to_ras(lps_of(6, 2, 3)), atol=1e-4
    )


def test_frames_without_positions_are_a_film(tmp_path, volume) -> None:
    made = dataset(volume[0], NumberOfFrames=8, Modality="US")
    made.PixelData = volume.astype("<u2").tobytes()
    source = camanim.open_image(save(made, tmp_path / "film.dcm"))
    np.testing.assert_array_equal(source.pixels, volume)
    assert source.affine is None
    assert len(source.notes) == 1


def test_points_in_time_are_chosen(tmp_path, volume) -> None:
    later = volume[::-1] // 2
    for k in range(8):
        for number, plane in enumerate((volume[k], later[k])):
            made = dataset(plane, ImagePositionPatient=list(map(float, POSITIONS[k])),
                           InstanceNumber=8 * number + k)  # fmt: skip
            save(made, tmp_path / f"{k}_{number}.dcm")
    with pytest.raises(ImageError, match="volume=0"):
        camanim.open_image(tmp_path)
    np.testing.assert_array_equal(camanim.open_image(tmp_path, volume=1).pixels, later)
    with pytest.raises(ImageError, match="0 to 1"):
        camanim.open_image(tmp_path, volume=2)


def test_one_of_several_series_is_chosen(tmp_path, volume) -> None:
    write_series(tmp_path, volume, SeriesNumber=2)
    for file in list(tmp_path.iterdir()):
        file.rename(tmp_path / f"second_{file.name}")
    write_series(tmp_path, volume // 3, SeriesNumber=1, SeriesInstanceUID="9.9")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ImageError, match="series=0") as caught:
        camanim.open_image(tmp_path)
    assert "9.9" not in str(caught.value)
    np.testing.assert_array_equal(camanim.open_image(tmp_path, series=0).pixels, volume // 3)
    np.testing.assert_array_equal(camanim.open_image(tmp_path, series="1.2.4").pixels, volume)
    with pytest.raises(ImageError, match="no series of this"):
        camanim.open_image(tmp_path, series="7.7")


@pytest.mark.parametrize(
    ("kept", "word"), [([0, 1, 2, 4, 5, 7], "2 slices"), ([0, 1, 2.3, 3, 4], "unevenly")]
)
def test_missing_and_uneven_slices_are_noted(tmp_path, volume, kept, word) -> None:
    positions = [ORIGIN + k * STEP * NORMAL for k in kept]
    source = camanim.open_image(write_series(tmp_path / "s", volume[: len(kept)], positions))
    (note,) = source.notes
    assert word in note


def test_a_tilted_gantry_is_in_the_affine(tmp_path, volume) -> None:
    positions = [ORIGIN + k * (STEP * NORMAL + 0.7 * COLUMN) for k in range(8)]
    source = camanim.open_image(write_series(tmp_path / "s", volume, positions))
    expected = to_ras(positions[7] + 3 * SPACING[1] * ROW)
    np.testing.assert_allclose((source.affine @ [7, 0, 3, 1])[:3], expected, atol=1e-4)
    assert len(source.notes) == 1


@pytest.mark.parametrize("other", ["size", "orientation"])
def test_slices_of_other_kinds_are_refused(tmp_path, volume, other) -> None:
    write_series(tmp_path / "s", volume)
    if other == "size":
        extra = dataset(volume[0, :6], ImagePositionPatient=[0.0, 0.0, 0.0])
    else:
        extra = dataset(volume[0], ImageOrientationPatient=[1.0, 0, 0, 0, 1, 0])
    save(extra, tmp_path / "s" / "extra.dcm")
    with pytest.raises(ImageError, match=f"different {other}"):
        camanim.open_image(tmp_path / "s")


# --- Damaged and hostile files ---------------------------------------------------------------


def test_a_header_that_promises_too_much_is_refused(tmp_path, volume) -> None:
    made = dataset(volume[0], Rows=65535, Columns=65535)
    with pytest.raises(ImageError, match="damaged"):
        camanim.open_image(save(made, tmp_path / "a.dcm"))
    made = dataset(volume[0], NumberOfFrames=2**31 - 1)
    with pytest.raises(ImageError, match="damaged"):
        camanim.open_image(save(made, tmp_path / "b.dcm"))
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header["vox_offset"] = 352
    (tmp_path / "a.nii").write_bytes(header.binaryblock + b"\0" * 100)
    with gzip.open(tmp_path / "b.nii.gz", "wb") as stream:
        stream.write(header.binaryblock + b"\0" * 100)
    for name in ("a.nii", "b.nii.gz"):
        with pytest.raises(ImageError, match="damaged"):
            camanim.open_image(tmp_path / name)


@pytest.mark.parametrize("length", [0, 10, 132, 200, 700, -1])
def test_truncated_files_are_image_errors(tmp_path, volume, length) -> None:
    whole = save(dataset(volume[0]), tmp_path / "a.dcm").read_bytes()
    (tmp_path / "b.dcm").write_bytes(whole[:length])
    nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "b.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:length])
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:length])
    # Without its last byte, a checksum of gzip is missing, and no voxel.
    for name in ("b.dcm", "b.nii", "b.nii.gz")[: 2 if length == -1 else 3]:
        with pytest.raises(ImageError):
            camanim.open_image(tmp_path / name)


def test_flipped_bytes_are_read_or_image_errors(tmp_path, volume) -> None:
    whole = bytearray(save(dataset(volume[0, :4, :4]), tmp_path / "a.dcm").read_bytes())
    for _ in range(150):
        damaged = bytearray(whole)
        for at in RANDOM.integers(128, len(whole), 3):
            damaged[at] = RANDOM.integers(256)
        (tmp_path / "b.dcm").write_bytes(bytes(damaged))
        try:
            camanim.open_image(tmp_path / "b.dcm")
        except ImageError as error:
            assert "b.dcm" not in str(error)  # noqa: PT017


def test_a_report_is_no_image(tmp_path, volume) -> None:
    made = dataset(volume[0])
    del made.PixelData, made.Rows, made.Columns
    with pytest.raises(ImageError, match="no pixels"):
        camanim.open_image(save(made, tmp_path / "report.dcm"))


def test_a_missing_library_is_named(tmp_path, volume, monkeypatch) -> None:
    path = save(dataset(volume[0]), tmp_path / "a.dcm")

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("camanim.optional.import_module", missing)
    with pytest.raises(ImageError, match=r"pydicom is not installed.*\[medical\]"):
        camanim.open_image(path)


# --- NIfTI -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_is_zyx_with_the_affine_of_nibabel(tmp_path, suffix) -> None:
    values = RANDOM.integers(-500, 500, (5, 6, 7)).astype(np.int16)
    affine = np.array([[-0.7, 0, 0.1, 10], [0, 0.8, 0.2, -5], [0.05, 0, 2, 7], [0, 0, 0, 1]])
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(values.astype(">i2"), affine, header)
    image.header.set_sform(affine, "mni")
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / f"brain{suffix}")
    source = camanim.open_image(tmp_path / f"brain{suffix}")
    np.testing.assert_array_equal(source.pixels, values.transpose(2, 1, 0))
    assert source.pixels.dtype == np.int16
    assert (source.name, source.space, source.units) == ("brain", "mni", "mm")
    x, y, z = 4, 1, 6
    np.testing.assert_allclose(
        (source.affine @ [z, y, x, 1])[:3], nibabel.affines.apply_affine(image.affine, (x, y, z))
    )
    assert axis_codes(source.affine) == "".join(nibabel.aff2axcodes(image.affine))[::-1]


def test_nifti_scaled_values_and_volumes(tmp_path) -> None:
    values = RANDOM.random((5, 6, 7, 3)).astype(np.float32)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(ImageError, match="volume=0"):
        camanim.open_image(tmp_path / "a.nii")
    source = camanim.open_image(tmp_path / "a.nii", volume=2)
    np.testing.assert_allclose(source.pixels, values[..., 2].transpose(2, 1, 0), atol=1e-4)
    assert source.pixels.dtype == np.float32


def test_nifti_suggests_a_window(tmp_path) -> None:
    for low, high, expected in ((-100, 300, (-100, 300)), (0, 0, None)):
        image = nibabel.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.eye(4))
        image.header["cal_min"], image.header["cal_max"] = low, high
        nibabel.save(image, tmp_path / "a.nii")
        assert camanim.open_image(tmp_path / "a.nii").window == expected


def test_nifti_slices_and_colours(tmp_path) -> None:
    plane = RANDOM.integers(0, 255, (5, 6, 1)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(plane, np.diag([2.0, 3, 4, 1])), tmp_path / "a.nii")
    source = camanim.open_image(tmp_path / "a.nii")
    np.testing.assert_array_equal(source.pixels, plane[..., 0].T)
    assert (source.dims, source.spacing) == (2, (3.0, 2.0))
    rgb = RANDOM.integers(0, 255, (5, 6, 7, 3)).astype(np.uint8)
    packed = rgb.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(packed, np.eye(4)), tmp_path / "b.nii")
    source = camanim.open_image(tmp_path / "b.nii")
    np.testing.assert_array_equal(source.pixels, rgb.transpose(2, 1, 0, 3))
    assert source.dims == 3


def test_a_nifti_without_orientation_has_no_affine(tmp_path) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), None)
    image.header.set_zooms((1, 2, 3))
    nibabel.save(image, tmp_path / "a.nii")
    source = camanim.open_image(tmp_path / "a.nii")
    assert source.affine is None
    assert source.spacing == (3, 2, 1)
    assert sum("axes" in note for note in source.notes) == 1


@pytest.mark.parametrize(
    ("code", "spacing", "units", "noted"),
    [(0, 2, "mm", 1), (1, 2000, "mm", 0), (2, 2, "mm", 0), (3, 2, "um", 0), (7, 2, "mm", 1)],
)
def test_an_unknown_unit_of_nifti_is_noted(tmp_path, code, spacing, units, noted) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.diag([2.0, 2, 2, 1]))
    # Units of time are in the same byte.
    image.header["xyzt_units"] = code + 8
    nibabel.save(image, tmp_path / "a.nii")
    source = camanim.open_image(tmp_path / "a.nii")
    assert source.spacing == pytest.approx((spacing,) * 3)
    assert source.units == units
    assert sum("unit" in note for note in source.notes) == noted


@pytest.mark.parametrize("codes", ["SPL", "RAS", "ASR", "lpi", "IRP"])
def test_reoriented_voxels_stay_where_they_are(tmp_path, codes) -> None:
    values = RANDOM.random((5, 6, 7)).astype(np.float32)
    affine = np.array([[-0.7, 0.1, 0.2, 10], [0.1, 0.1, 2, 3], [0.05, 0.8, 0.2, -5], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii")
    source = camanim.open_image(tmp_path / "a.nii")
    turned = source.reoriented(codes)
    assert axis_codes(turned.affine) == codes.upper()
    to_source = np.linalg.inv(source.affine) @ turned.affine
    for index in np.ndindex(turned.shape):
        at = np.round(to_source @ [*index, 1]).astype(int)[:3]
        assert turned.pixels[index] == source.pixels[tuple(at)]
    lengths = np.linalg.norm(turned.affine[:3, :3], axis=0)
    assert turned.spacing == pytest.approx(lengths)


@pytest.mark.parametrize("codes", ["SP", "SSS", "SPQ", "", 5, "RLS"])
def test_other_directions_are_refused(tmp_path, codes) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageError, match="codes"):
        camanim.open_image(tmp_path / "a.nii").reoriented(codes)


# --- A marked corner, through the whole run --------------------------------------------------

CORNERS = [(0, 0, 0), (7, 0, 0), (0, 11, 9), (7, 11, 0)]


def marked(corner: tuple[int, int, int], cell: int = 1) -> np.ndarray:
    """Return a volume with one bright block of voxels, which begins at `corner`."""
    values = RANDOM.integers(0, 50, (8, 12, 10)).astype(np.uint16)
    values[tuple(slice(c, c + cell) for c in corner)] = 4000
    return values


def centre_of_mass(values: np.ndarray) -> np.ndarray:
    weights = np.where(values > values.max() / 2, values, 0)
    return np.array([(at * weights).sum() / weights.sum() for at in np.indices(values.shape)])


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("codes", [None, "SPL", "RAS"])
def test_a_marked_corner_stays_in_its_place_in_nifti(tmp_path, corner, codes) -> None:
    values = marked(corner).transpose(2, 1, 0)
    affine = np.array([[-0.7, 0, 0.3, 10], [0.1, 0.8, 0.2, -5], [0.05, -0.2, 2, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), affine), tmp_path / "a.nii")
    source = camanim.open_image(tmp_path / "a.nii")
    source = source if codes is None else source.reoriented(codes)
    animation = explained(peak_model(), source)
    animation.write_maps(tmp_path / "maps.nii.gz", layers="cells")
    written = nibabel.load(tmp_path / "maps.nii.gz")
    assert written.shape[3] == 1
    at = centre_of_mass(np.asarray(written.dataobj)[..., 0])
    expected = nibabel.affines.apply_affine(affine, corner[::-1])
    np.testing.assert_allclose(
        nibabel.affines.apply_affine(written.affine, at), expected, atol=1e-3
    )
    if codes is None:
        np.testing.assert_allclose(written.affine, affine, atol=1e-5)


def dicom_frames(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the position of the first pixel and the values of each frame, along the normal."""
    read = pydicom.dcmread(path)
    values = np.frombuffer(read.FloatPixelData, "<f4").reshape(-1, read.Rows, read.Columns)
    firsts = [
        np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for groups in read.PerFrameFunctionalGroupsSequence
    ]
    return sorted(zip(firsts, values, strict=True), key=lambda frame: frame[0] @ NORMAL)


def dicom_position(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of the marked block in the patient (LPS), and the values, from a file."""
    shared = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0]
    row, column = np.array(
        shared.PlaneOrientationSequence[0].ImageOrientationPatient, float
    ).reshape(2, 3)
    between_rows, between_columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = dicom_frames(path)
    volume = np.stack([values for _, values in frames])
    total, weights = np.zeros(3), np.where(volume > volume.max() / 2, volume, 0).astype(float)
    for (first, _), plane in zip(frames, weights, strict=True):
        for (y, x), weight in np.ndenumerate(plane):
            total += weight * (first + x * between_columns * row + y * between_rows * column)
    return total / weights.sum(), volume


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("kind", ["series", "multi-frame", "reoriented"])
def test_a_marked_corner_stays_in_its_place_in_dicom(tmp_path, corner, kind) -> None:
    values = marked(corner)
    if kind == "multi-frame":
        path = save(multi_frame(values, POSITIONS, [3, 0, 7, 1, 2, 6, 5, 4]), tmp_path / "m.dcm")
    else:
        path = write_series(tmp_path / "series", values)
    source = camanim.open_image(path)
    explained_source = source.reoriented("LAI") if kind == "reoriented" else source
    animation = explained(peak_model(), explained_source)
    (written,) = animation.write_dicom(tmp_path / "map.dcm", path, layers="cells")
    at, stored = dicom_position(written)
    np.testing.assert_allclose(at, lps_of(*corner), atol=1e-2)
    assert stored.shape == values.shape
    # As a viewer places it.
    geometry = highdicom.imread(written).get_volume_geometry()
    assert geometry is not None
    read = pydicom.dcmread(written)
    assert read.FrameOfReferenceUID == "1.2.5"
    referred = {
        item.ReferencedSOPInstanceUID
        for item in read.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    files = [path] if path.is_file() else sorted(path.iterdir())
    assert referred == {pydicom.dcmread(file).SOPInstanceUID for file in files}
    assert "not for diagnosis" in read.SeriesDescription
    assert "HiResCAM" in read.SeriesDescription


def test_a_single_slice_is_written_to_its_place(tmp_path, zoo) -> None:
    plane = RANDOM.integers(0, 50, (12, 10)).astype(np.uint16)
    plane[8:10, 4:6] = 4000
    path = save(dataset(plane), tmp_path / "a.dcm")
    model = camanim.Model(zoo.Peak(2), camanim.Preprocess(channels=1), outputs="values")
    animation = explained(model, camanim.open_image(path))
    (written,) = animation.write_dicom(tmp_path / "map.dcm", path, layers="cells")
    at, _ = dicom_position(written)
    np.testing.assert_allclose(at, lps_of(0, 8.5, 4.5), atol=1e-2)
    animation.write_maps(tmp_path / "map.nii", layers="cells")
    nifti = nibabel.load(tmp_path / "map.nii")
    at = centre_of_mass(np.asarray(nifti.dataobj)[..., 0])
    np.testing.assert_allclose(
        nibabel.affines.apply_affine(nifti.affine, at), to_ras(lps_of(0, 8.5, 4.5)), atol=1e-2
    )


def test_a_box_and_a_plane_stay_in_their_place(tmp_path) -> None:
    source = camanim.open_image(write_series(tmp_path / "series", marked((4, 6, 6), cell=2)))
    animation = explained(peak_model(2), source, box=(2, 2, 2, 8, 12, 10))
    (written,) = animation.write_dicom(tmp_path / "map.dcm", source, layers="cells")
    at, stored = dicom_position(written)
    np.testing.assert_allclose(at, lps_of(4.5, 6.5, 6.5), atol=1e-2)
    assert not stored[:2].any()
    assert not stored[:, :, :2].any()
    plane = animation.plane(2)  # slice 4 of the series
    plane.write_maps(tmp_path / "plane.nii", layers="cells")
    nifti = nibabel.load(tmp_path / "plane.nii")
    at = centre_of_mass(np.asarray(nifti.dataobj)[..., 0])
    np.testing.assert_allclose(
        nibabel.affines.apply_affine(nifti.affine, at), to_ras(lps_of(4, 6.5, 6.5)), atol=1e-2
    )


def test_maps_are_not_written_to_another_series(tmp_path, volume) -> None:
    source = camanim.open_image(write_series(tmp_path / "a", volume))
    moved = [position + 10 for position in POSITIONS]
    animation = explained(peak_model(), source)
    for other in (write_series(tmp_path / "b", volume, moved),
                  write_series(tmp_path / "c", volume[:7])):  # fmt: skip
        with pytest.raises(RenderError, match="not the image"):
            animation.write_dicom(tmp_path / "map.dcm", other)
    nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(RenderError, match="no DICOM"):
        animation.write_dicom(tmp_path / "map.dcm", tmp_path / "a.nii")
    plain = explained(peak_model(), volume)
    with pytest.raises(RenderError, match="no position"):
        plain.write_dicom(tmp_path / "map.dcm", source)
    lost = write_series(tmp_path / "lost", volume, FrameOfReferenceUID=None)
    with pytest.raises(RenderError, match="frame of reference"):
        animation.write_dicom(tmp_path / "map.dcm", lost)
    assert not (tmp_path / "map.dcm").exists()


def test_a_folder_gets_a_series_for_each_layer(tmp_path, volume) -> None:
    net = nn.Sequential(
        nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()
    )
    source = camanim.open_image(write_series(tmp_path / "series", volume))
    model = camanim.Model(net.eval(), camanim.Preprocess(channels=1, dims=3), outputs="values")
    animation = camanim.animate(model, source, target=0)
    with pytest.raises(RenderError, match="folder"):
        animation.write_dicom(tmp_path / "map.dcm", source, layers=[0, 1])
    files = animation.write_dicom(tmp_path / "maps", source, normalization=None)
    assert len(files) == len(animation) == 2
    read = [pydicom.dcmread(file) for file in files]
    assert len({r.SeriesInstanceUID for r in read}) == 2
    assert len({r.StudyInstanceUID for r in read}) == 1
    for i, r in enumerate(read):
        stored = np.stack([values for _, values in dicom_frames(files[i])])
        np.testing.assert_allclose(stored, animation.maps[i], rtol=1e-5)
        assert r.SeriesDescription.rpartition("; ")[2] == animation.layers[i].label


# --- Data of a patient -----------------------------------------------------------------------

SECRETS = {
    "PatientName": "Qwxsecretname^Jane",
    "PatientID": "QwxsecretID77",
    "PatientBirthDate": "19431122",
    "PatientBirthTime": "031722",
    "OtherPatientIDs": "Qwxsecretother",
    "PatientAddress": "Qwxsecretstreet 5",
    "PatientComments": "Qwxsecretcomment",
    "PatientAge": "083Y",
    "EthnicGroup": "Qwxsecretgroup",
    "PatientMotherBirthName": "Qwxsecretmother",
    "MilitaryRank": "Qwxsecretrank",
    "InstitutionName": "Qwxsecretclinic",
    "InstitutionAddress": "Qwxsecretcity",
    "InstitutionalDepartmentName": "Qwxsecretdept",
    "ReferringPhysicianName": "Qwxsecretref^Dr",
    "PerformingPhysicianName": "Qwxsecretperf^Dr",
    "OperatorsName": "Qwxsecretoperator",
    "RequestingPhysician": "Qwxsecretrequest",
    "AccessionNumber": "Qwxsecretacc",
    "StudyID": "Qwxsecretst",
    "StudyDate": "20190417",
    "SeriesDate": "20190418",
    "AcquisitionDate": "20190419",
    "ContentDate": "20190420",
    "StudyTime": "112233.445566",
    "StudyDescription": "Qwxsecretstudy",
    "SeriesDescription": "Qwxsecretseries",
    "ProtocolName": "Qwxsecretprotocol",
    "ImageComments": "Qwxsecretimage",
    "StationName": "Qwxsecretstation",
    "DeviceSerialNumber": "Qwxsecretserial",
    "Manufacturer": "Qwxsecretmaker",
    "ManufacturerModelName": "Qwxsecretmodel",
    "AdditionalPatientHistory": "Qwxsecrethistory",
    "RequestedProcedureDescription": "Qwxsecretprocedure",
    "DerivationDescription": "Qwxsecretderivation",
    "StudyInstanceUID": "1.2.826.0.1.77777771",
    "SeriesInstanceUID": "1.2.826.0.1.77777772",
    "FrameOfReferenceUID": "1.2.826.0.1.77777773",
    # No modality: a text in its place.
    "Modality": "QWXSECRETMODULE",
}
WORDS = [text.partition("^")[0].encode() for text in SECRETS.values()] + [
    b"77777774",
    b"Qwxsecretfile",
]
#: What the standard demands of a map, as references to its source.
REFERENCES = (b"1.2.826.0.1.77777772", b"1.2.826.0.1.77777773", b"77777774")


@pytest.fixture
def secret_series(tmp_path, volume) -> Path:
    folder = tmp_path / "Qwxsecretfile" / "Qwxsecretname"
    folder.mkdir(parents=True)
    volume[:, 2:4, 2:4] = 4000
    for k, plane in enumerate(volume):
        made = dataset(plane, ImagePositionPatient=list(map(float, POSITIONS[k])), **SECRETS,
                       WindowCenter=2000, WindowWidth=4000, BurnedInAnnotation="YES",
                       SOPInstanceUID=f"1.2.826.0.1.77777774.{k}")  # fmt: skip
        made.add_new(0x00091001, "LO", "Qwxsecretprivate")
        save(made, folder / f"Qwxsecretname_{k}.dcm")
    return folder


def contents(path: Path) -> bytes:
    """Return the bytes of a file, also as they are uncompressed."""
    raw = path.read_bytes()
    if path.name.endswith(".gz"):
        raw += gzip.decompress(raw)
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            raw += b"".join(archive.read(name) for name in archive.namelist())
    if path.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        raw += repr(table.to_pydict()).encode() + repr(table.schema.metadata).encode()
    if path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as image:
            raw += repr(image.info).encode()
    return raw


def assert_no_secret(content: bytes, words=WORDS) -> None:
    lower = content.lower()
    # Times and ages are short: alone, they occur in numbers by chance.
    for word in words:
        if len(word) > 6:
            assert word.lower() not in lower, word


def test_no_data_of_a_patient_leaves_the_program(tmp_path, secret_series, caplog, recwarn) -> None:
    caplog.set_level(logging.DEBUG)
    out = tmp_path / "out"
    out.mkdir()
    net = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
                        nn.Linear(2, 2))  # fmt: skip
    model = camanim.Model(net.eval(), camanim.Preprocess(channels=1, dims=3))
    source = camanim.open_image(secret_series)
    animation = camanim.animate(model, source)
    animation.localise(np.asarray(source) > 3000)
    animation.score(repeats=1, draws=2)
    for name in ("t.csv", "t.json", "t.parquet"):
        animation.write_table(out / name)
    for name in ("m.tif", "m.npy", "m.npz", "m.nii", "m.nii.gz"):
        animation.write_maps(out / name)
    animation.write_movie(out / "m.mp4", size=64)
    animation.write_picture(out / "p.png", size=64)
    animation.write_plot(out / "p.pdf")
    animation.write_plot(out / "p.svg")
    labelled = animation.to_xarray()
    texts = [
        repr(source), source.name, source.orientation, repr(source.place), repr(animation),
        repr(animation.provenance), repr(animation.notes), repr(animation.warnings),
        repr(animation.source), json.dumps(animation.source.record()),
        *(animation.caption(i) for i in range(len(animation))), repr(animation.table()),
        repr(labelled), repr(labelled.attrs), repr(animation.to_pandas().attrs),
        repr(model.predict(source)), repr(vars(animation)),
    ]  # fmt: skip
    assert_no_secret("\n".join(texts).encode())
    for file in out.iterdir():
        assert_no_secret(contents(file))
    metadata = pytest.importorskip("napari_camanim.layers.metadata").metadata
    assert_no_secret(json.dumps(metadata(animation, "local")).encode())
    (written,) = animation.write_dicom(tmp_path / "map.dcm", source)
    anonymous = [word for word in WORDS if word not in REFERENCES]
    assert_no_secret(written.read_bytes(), anonymous)
    assert_no_secret("\n".join(r.getMessage() for r in caplog.records).encode())
    assert_no_secret("\n".join(str(w.message) for w in recwarn).encode())
    read = pydicom.dcmread(written)
    assert (read.PatientName, read.PatientID, read.PatientBirthDate) == ("", "", "")
    assert any("burned" in note for note in animation.notes)


def test_the_search_for_secrets_finds_them(tmp_path, secret_series) -> None:
    """The test above would pass if nothing were compared."""
    file = next(secret_series.iterdir())
    for word in WORDS:
        if len(word) > 6 and word not in (b"Qwxsecretfile",):
            with pytest.raises(AssertionError):
                assert_no_secret(contents(file), [word])


def test_a_map_of_the_same_study_has_its_patient(tmp_path, secret_series) -> None:
    source = camanim.open_image(secret_series)
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    model = camanim.Model(net.eval(), camanim.Preprocess(channels=1, dims=3), outputs="values")
    animation = camanim.animate(model, source, target=0)
    (written,) = animation.write_dicom(tmp_path / "map.dcm", source, anonymous=False)
    read = pydicom.dcmread(written)
    for name in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "StudyInstanceUID",
        "AccessionNumber",
    ):
        assert read[name].value == SECRETS[name]
    assert_no_secret(
        written.read_bytes(), [b"Qwxsecretclinic", b"Qwxsecretseries", b"Qwxsecretcomment"]
    )


def test_errors_quote_nothing_of_a_patient(tmp_path, secret_series, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    whole = bytearray(next(secret_series.iterdir()).read_bytes())
    for _ in range(100):
        damaged = bytearray(whole)
        for at in RANDOM.integers(140, len(whole) - 300, 6):
            damaged[at] = RANDOM.integers(256)
        (tmp_path / "b.dcm").write_bytes(bytes(damaged))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                text = repr(camanim.open_image(tmp_path / "b.dcm"))
            except ImageError as error:
                assert error.__cause__ is None  # noqa: PT017
                text = str(error)
        text += "".join(str(w.message) for w in caught)
        assert b"qwxsecret" not in text.lower().encode()
    assert "secret" not in caplog.text.lower()


@pytest.mark.parametrize("fault", ["removed", "damaged", "no study"])
def test_errors_of_maps_quote_nothing_of_a_patient(tmp_path, secret_series, fault) -> None:
    source = camanim.open_image(secret_series)
    animation = explained(peak_model(), source)
    file = sorted(secret_series.iterdir())[3]
    if fault == "removed":
        file.unlink()
    elif fault == "damaged":
        file.write_bytes(file.read_bytes()[:200])
    else:
        for each in secret_series.iterdir():
            made = pydicom.dcmread(each)
            del made.StudyInstanceUID
            save(made, each)
    with pytest.raises(RenderError) as caught:
        animation.write_dicom(tmp_path / "map.dcm", source, anonymous=fault != "no study")
    assert "secret" not in str(caught.value).lower()
    assert caught.value.__cause__ is None
    assert not (tmp_path / "map.dcm").exists()
    if fault == "no study":
        assert animation.write_dicom(tmp_path / "map.dcm", source)
