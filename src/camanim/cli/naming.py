"""Names of input and output files: globs, names with the name of each image, collisions."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from camanim.errors import ImageError, RenderError
from camanim.images.dicom import is_dicom
from camanim.optional import library
from camanim.render.formats import FORMATS
from camanim.render.movie import checked_movie
from camanim.render.plots import SUFFIXES as PLOTS
from camanim.store.format import SUFFIXES as SAVED
from camanim.store.format import holds_result, is_result_path
from camanim.writing import checked_folder, checked_path, make_folder

#: Suffixes of saved results.
RESULTS = (".camanim.zarr", ".camanim.zip", ".ozx")
#: Suffixes of files with a suffix before the last one.
_DOUBLE = (*RESULTS, ".ome.zarr", ".ome.tiff", ".ome.tif", ".nii.gz", ".tar.gz")
#: Suffixes of outputs, by the option that names them. The writer of an output checks them as well.
SUFFIXES: dict[str, tuple[str, ...]] = {
    "movie": tuple(FORMATS),
    "table": (".csv", ".parquet", ".json"),
    "maps": (".npz", ".npy", ".tif", ".tiff", ".nii", ".nii.gz"),
    "figure": (".pdf", ".svg", ".png"),
    "plot": PLOTS,
    "save": SAVED,
    "save_card": (".toml",),
}
#: Libraries that an output needs, by its suffix or option, and the extra that installs them.
_LIBRARIES = {
    ".parquet": (("pandas", "pyarrow"), "data"),
    ".nii": (("nibabel",), "medical"),
    ".nii.gz": (("nibabel",), "medical"),
    "dicom": (("pydicom", "highdicom"), "medical"),
}
_FIELD = re.compile(r"\{([a-z]+)\}")
#: Name of the summary in a folder of outputs.
SUMMARY = "summary.csv"

Outputs = dict[str, Path]
"""Files of one image, by the option that names them."""


def is_result_file(path: Path) -> bool:
    """Return whether a file or folder is a saved result, by its name.

    The name ``.zarr`` is also that of images, which lack the attribute of results.
    """
    return is_result_path(path) and (path.name.lower().endswith(RESULTS) or holds_result(path))


def stem(path: Path) -> str:
    """Return the name of a file without its suffix, such as ``scan`` of ``scan.nii.gz``."""
    name = path.name
    double = next((suffix for suffix in _DOUBLE if name.lower().endswith(suffix)), "")
    # A name that is only a suffix is kept.
    return name[: -len(double)] or name if double else path.stem


def input_paths(texts: Sequence[str]) -> list[Path]:
    """Return the files that arguments name: each once, those of a glob in order of their names.

    Parameters
    ----------
    texts : sequence of str
        Files, saved results or globs, which some shells do not expand; ``**`` is any number of folders.

    Raises
    ------
    ImageError
        If no file matches a glob, or an argument is empty or ``-``.
    """
    paths: dict[str, Path] = {}
    for text in texts:
        for path in _expanded(text):
            # Not resolved, as the name of a link is meant.
            paths.setdefault(os.path.normcase(os.path.abspath(path)), path)
    return list(paths.values())


def folder_or_file(out: Path | None, default: str) -> tuple[Path | None, Path]:
    """Return the folder of outputs that ``--out`` names, if any, and the name of an output.

    Parameters
    ----------
    out : Path or None
        Value of ``--out``: a folder, if it exists as one or has no suffix; with ``{stem}`` or
        ``{name}`` it is the name of an output.
    default : str
        Name of an output in a folder, or without ``--out``.
    """
    if out is None:
        return None, Path(default)
    if has_field(out):
        return None, out
    return (out, Path(default)) if out.is_dir() or not out.suffix else (None, out)


def has_field(name: Path) -> bool:
    """Return whether a name has ``{stem}``, ``{name}`` or another field."""
    return _FIELD.search(str(name)) is not None


def _expanded(text: str) -> list[Path]:
    if text in ("", "-"):
        raise ImageError(f"{text!r} is not the path of an image: give the name of a file.")
    if "\0" in text or not glob.has_magic(text) or os.path.lexists(text):
        return [Path(text)]
    found = sorted(Path(match) for match in glob.glob(text, recursive=True))
    images = [path for path in found if path.is_file() or _is_image_folder(path)]
    # The files in a folder that is an image are no further images.
    folders = {path for path in images if path.is_dir()}
    images = [path for path in images if folders.isdisjoint(path.parents)]
    images = [path for path in images if not _in_zarr(path, text)]
    if not images:
        raise ImageError(f"No file matches {text!r}.")
    return images


def _is_image_folder(path: Path) -> bool:
    """Return whether a folder is a Zarr array or a DICOM series."""
    try:
        return path.is_dir() and (path.suffix.lower() == ".zarr" or is_dicom(path))
    except OSError:
        # It cannot be read.
        return False


def _in_zarr(path: Path, text: str) -> bool:
    return any(p.suffix.lower() == ".zarr" and not text.startswith(str(p)) for p in path.parents)


def output_files(
    paths: Sequence[Path],
    arguments: Mapping[str, Path | None],
    *,
    folder: Path | None = None,
    called: str = "",
    summary: Path | None = None,
    inputs: Sequence[Path] = (),
) -> list[Outputs]:
    """Return the outputs of each image, checked before anything is computed.

    Parameters
    ----------
    paths : sequence of Path
        Images and saved results.
    arguments : mapping of str to Path or None
        Names of outputs by their option, with ``{stem}`` or ``{name}`` for those of an image.
    folder : Path, optional
        Folder of the outputs, which is created.
    called : str
        Name of the option in messages, if it is not that of the output.
    summary : Path, optional
        Another output, of all images.
    inputs : sequence of Path
        Other files that the command reads, as of `input_files`.

    Returns
    -------
    list of dict
        In the order of `paths`.

    Raises
    ------
    typer.BadParameter
        If two images would write the same file, or an output would replace an input.
    RenderError
        If a suffix is wrong, or a file cannot be written.
    """
    named = {option: name for option, name in arguments.items() if name is not None}
    for option, name in named.items():
        _check_suffix(option, name)
        if len(paths) > 1 and not _FIELD.search(str(name)):
            raise typer.BadParameter(
                f"{called or _option(option)} {name} is one file for {len(paths)} images: write "
                f"{{stem}} for the name of each, as in '{{stem}}{_suffix(option, name)}'."
            )
    outputs = [
        {o: filled(n, path, called or _option(o), folder) for o, n in named.items()}
        for path in paths
    ]
    _check_distinct(paths, outputs)
    check_kept(inputs, [file for files in outputs for file in files.values()])
    if summary is not None and any(_key(summary) == _key(f) for o in outputs for f in o.values()):
        raise typer.BadParameter(
            f"{summary} is the summary of all images: name the table otherwise."
        )
    if folder is not None:
        make_folder(folder)
    for files in outputs:
        for option, file in files.items():
            check_place(option, file)
    if summary is not None:
        checked_path(summary, ".csv")
    return outputs


def filled(name: Path, path: Path, option: str, folder: Path | None = None) -> Path:
    """Return a name with the fields ``{stem}`` and ``{name}`` replaced by those of an image.

    Raises
    ------
    typer.BadParameter
        If it has another field.
    """
    values = {"stem": stem(path), "name": path.name}

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise typer.BadParameter(f"{option} knows {{stem}} and {{name}}, not {match[0]}.")
        return values[match[1]]

    text = _FIELD.sub(value, str(name))
    return Path(text) if folder is None else folder / text


def input_files(arguments: Mapping[str, Any], paths: Sequence[Path]) -> list[Path]:
    """Return the files that a command reads: the images, masks, networks, weights and classes.

    Parameters
    ----------
    arguments : mapping
        Arguments of the command.
    paths : sequence of Path
        Images and saved results.
    """
    mask, model = arguments.get("mask"), arguments.get("model")
    masks = [] if mask is None else [filled(mask, path, "--mask") for path in paths]
    sources = [model] if isinstance(model, str) else list(model or ())
    named = [*sources, *(source.rpartition(":")[0] for source in sources)]
    named += [str(arguments.get(name) or "") for name in ("weights", "classes")]
    return [*paths, *masks, *(Path(name) for name in named if name)]


def check_kept(inputs: Sequence[Path], outputs: Sequence[Path | None]) -> None:
    """Raise `typer.BadParameter` if an output would replace a file that the command reads."""
    read = {_key(path) for path in inputs}
    for file in outputs:
        if file is not None and _key(file) in read:
            raise typer.BadParameter(f"{file} is read by this command, and would be replaced.")


def check_place(option: str, file: Path) -> None:
    """Raise an error if an output has a wrong suffix, or cannot be written.

    Raises
    ------
    typer.BadParameter
        If a file is given for a folder.
    RenderError
        If the suffix is wrong, a library is missing, or the file cannot be written.
    StoreError
        If a saved result would replace other files.
    """
    names = [key for key in _LIBRARIES if key == option or file.name.lower().endswith(key)]
    for modules, extra in map(_LIBRARIES.__getitem__, names):
        for module in modules:
            library(module, extra, RenderError)
    if option == "dicom":
        if file.suffix.lower() == ".dcm":
            raise typer.BadParameter(
                f"--dicom is a folder with a file of each layer, not {file.name}: leave out .dcm."
            )
        checked_folder(file)
        return
    if option == "frames":
        checked_movie(f"{file}/")
        return
    _check_suffix(option, file)
    if option == "save":
        # Imports torch.
        from camanim.store.saving import checked_target

        checked_target(file)
        return
    checked_path(file, file.suffix.lower())


def _check_suffix(option: str, name: Path) -> None:
    suffixes = SUFFIXES.get(option, ("",))
    if not name.name.lower().endswith(suffixes):
        listed = ", ".join(suffixes[:-1])
        one_of = f"{listed} or {suffixes[-1]}" if listed else suffixes[-1]
        raise RenderError(f"{name.name} must end in {one_of}.")


def _check_distinct(paths: Sequence[Path], outputs: Sequence[Outputs]) -> None:
    images = {_key(path) for path in paths}
    writers: dict[str, Path] = {}
    for path, files in zip(paths, outputs, strict=True):
        for file in files.values():
            if _key(file) in images:
                raise typer.BadParameter(f"{file} is an image, and would be replaced.")
            other = writers.setdefault(_key(file), path)
            if other is not path:
                raise typer.BadParameter(
                    f"{file} would be written for {other} and for {path}: write {{name}}, which "
                    "contains the suffix, or rename one of them."
                )
            if list(files.values()).count(file) > 1:
                raise typer.BadParameter(f"{file} is named for two outputs.")


def _key(path: Path) -> str:
    return os.path.normcase(os.path.realpath(path))


def _suffix(option: str, name: Path) -> str:
    return next(s for s in SUFFIXES.get(option, ("",)) if name.name.lower().endswith(s))


def _option(keyword: str) -> str:
    return "--" + keyword.replace("_", "-")
