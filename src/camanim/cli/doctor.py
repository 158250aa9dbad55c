"""``camanim doctor``: print what camanim depends on, and try each."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import typer

import camanim
from camanim.cache_folder import CACHE_VARIABLE, cache_folder
from camanim.cli import options
from camanim.cli.terminal import print_json, print_table, say
from camanim.cli.window import missing_window
from camanim.errors import CamError
from camanim.progress import console
from camanim.words import duration
from camanim.writing import checked_path, make_folder

OK, FAILED, MISSING = "ok", "failed", "not installed"

#: Distributions that camanim needs, with the module that is imported.
NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "scipy": "scipy",
    "scikit-image": "skimage",
    "numba": "numba",
    "matplotlib": "matplotlib.figure",
    "pillow": "PIL.Image",
    "tifffile": "tifffile",
    "grad-cam": "pytorch_grad_cam",
    "monai": "monai",
}
#: Distributions of extras, with the module and the extra.
EXTRAS = {
    "napari": ("napari", "gui"),
    "magicgui": ("magicgui", "gui"),
    "timm": ("timm", "timm"),
    "pandas": ("pandas", "data"),
    "pyarrow": ("pyarrow", "data"),
    "xarray": ("xarray", "data"),
    "pydicom": ("pydicom", "medical"),
    "highdicom": ("highdicom", "medical"),
    "nibabel": ("nibabel", "medical"),
}
#: Mean ybROAD of `_demo_run`, as computed on x86-64 by torch 2.14, and the tolerance for others.
ROAD, TOLERANCE = 0.171, 0.02
_LAYERS = ("features.denseblock2", "features.norm5")


class CheckFailed(CamError):
    """A check of ``camanim doctor`` failed; the message is the reason."""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes
    ----------
    name : str
    run : callable
        Returns details as a text, or raises `CamError`.
    remedy : str
        What to do if it fails.
    needed : bool
        Whether camanim does not work without it.
    """

    name: str
    run: Callable[[], str]
    remedy: str
    needed: bool = True


@dataclass(frozen=True)
class Finding:
    """The outcome of a check: its status, and a remedy if it failed."""

    check: str
    status: str
    detail: str
    remedy: str = ""
    needed: bool = True


@options.with_options("", options.PRINTED)
def doctor(**arguments: Any) -> None:
    """Print versions, devices, folders, fonts and programs, and try each.

    The exit code is 1 if something that camanim needs failed.
    """
    outcomes: list[Finding] = []
    with console(quiet=arguments["quiet"]) as progress:
        checks = all_checks()
        for i, check in enumerate(checks):
            progress("checks", i, len(checks))
            outcomes.append(outcome(check))
        progress("checks", len(checks), len(checks))
    failed = [each for each in outcomes if each.needed and each.status != OK]
    if arguments["as_json"]:
        print_json(outcomes)
    else:
        rows = [[each.check, each.status, each.detail] for each in outcomes]
        print_table(["check", "status", "detail"], rows, prose=("detail",))
        for each in outcomes:
            if each.status == FAILED or (each in failed):
                say(f"{each.check}: {each.remedy}")
        say(f"{len(failed)} needed checks failed." if failed else "All that is needed works.")
    if failed:
        raise typer.Exit(1)


def outcome(check: Check) -> Finding:
    """Run a check."""
    try:
        detail = _tried(check)
    except CamError as error:
        missing = isinstance(error.__cause__, PackageNotFoundError)
        status = MISSING if missing else FAILED
        return Finding(check.name, status, str(error), check.remedy, check.needed)
    return Finding(check.name, OK, detail, needed=check.needed)


def _tried(check: Check) -> str:
    try:
        return check.run()
    except CamError:
        raise
    except PackageNotFoundError as error:
        raise CheckFailed("") from error
    except Exception as error:
        # A damaged library or driver raises anything.
        raise CheckFailed(f"{type(error).__name__}: {error}") from error


def all_checks() -> list[Check]:
    """Return the checks in the order in which they are printed."""
    return [*_versions(), *_devices(), *_folders(), *_programs()]


# -- Versions --------------------------------------------------------------------------------------


def _versions() -> Iterator[Check]:
    yield Check(
        "camanim",
        lambda: f"{camanim.__version__} in {Path(camanim.__file__).parent}",
        "Install napari-camanim again.",
    )
    yield Check(
        "Python",
        lambda: f"{platform.python_version()} on {platform.platform()}",
        "Install Python 3.11 or later.",
    )
    for name, module in NEEDED.items():
        yield Check(name, _importing(name, module), f"Run: pip install --force-reinstall {name}")
    for name, (module, extra) in EXTRAS.items():
        remedy = f"Run: pip install 'napari-camanim[{extra}]'"
        yield Check(name, _importing(name, module), remedy, needed=False)
    yield Check("Qt", _qt_binding, "Run: pip install 'napari-camanim[gui]'", needed=False)


def _importing(distribution: str, module: str) -> Callable[[], str]:
    def check() -> str:
        found = version(distribution)
        importlib.import_module(module)
        return found

    return check


def _qt_binding() -> str:
    version("qtpy")
    qtpy = importlib.import_module("qtpy")
    importlib.import_module("qtpy.QtWidgets")
    return f"{qtpy.API_NAME} {qtpy.PYQT_VERSION or qtpy.PYSIDE_VERSION}, Qt {qtpy.QT_VERSION}"


# -- Devices ---------------------------------------------------------------------------------------


def _devices() -> Iterator[Check]:
    yield Check("cpu", _computing("cpu"), "Run: pip install --force-reinstall torch")
    with suppress(ImportError, OSError):
        # Without torch, its own check has failed.
        import torch

        remedy = "Update the driver, or leave --device out to compute on the CPU."
        for i in range(torch.cuda.device_count()):
            yield Check(f"cuda:{i}", _computing(f"cuda:{i}"), remedy, needed=False)
        if torch.backends.mps.is_available():
            yield Check("mps", _computing("mps"), remedy, needed=False)


def _computing(device: str) -> Callable[[], str]:
    """Return a check that compares a convolution and its gradient on a device with its formula."""

    def check() -> str:
        import torch

        x = torch.arange(16.0, device=device).reshape(1, 1, 4, 4).requires_grad_()
        y = torch.nn.functional.conv2d(x, torch.ones(1, 1, 3, 3, device=device))
        y.sum().backward()
        assert x.grad is not None
        # Sums of 3 x 3 neighbours; how many of the four sums contain each pixel.
        sums = [45.0, 54.0, 81.0, 90.0]
        counts = np.outer([1, 2, 2, 1], [1, 2, 2, 1])
        if y.flatten().tolist() != sums or (x.grad[0, 0].cpu().numpy() != counts).any():
            raise CheckFailed("A convolution has a wrong result.")
        if device == "cpu":
            return (
                f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
            )
        if device == "mps":
            return "Metal"
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"

    return check


# -- Folders ---------------------------------------------------------------------------------------


def _folders() -> Iterator[Check]:
    yield Check(
        "cache",
        lambda: _writable(cache_folder()),
        f"Set {CACHE_VARIABLE} to a folder that can be written.",
    )
    yield Check(
        "TORCH_HOME",
        lambda: _writable(_torch_home()),
        "Set TORCH_HOME to a folder that can be written, or networks cannot be downloaded.",
        needed=False,
    )


def _torch_home() -> Path:
    import torch

    # torch.hub has a folder within it.
    return Path(torch.hub.get_dir()).parent


def _writable(folder: Path) -> str:
    make_folder(folder)
    checked_path(folder / "camanim-doctor.txt", ".txt")
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            # Another process may have removed it.
            with suppress(OSError):
                size += (Path(place) / name).stat().st_size
    return f"{folder}, {size / 2**20:.1f} MiB"


# -- Programs --------------------------------------------------------------------------------------


def _programs() -> Iterator[Check]:
    yield Check("font", _font, "Run: pip install --force-reinstall pillow")
    yield Check(
        "ffmpeg",
        _ffmpeg,
        "Run: pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE.",
    )
    yield Check("display", _display, "Movies, tables and plots need none.", needed=False)
    yield Check("compiler", _compiler, "Run: pip install --force-reinstall numba llvmlite")
    yield Check(
        "demo", _demo_run, "Report this, with the output of camanim doctor --json, as an issue."
    )


def _font() -> str:
    from camanim.render.pen import Pen

    pen = Pen(1.0)
    font: Any = pen.fonts["title"]
    if font.getlength("ROAD") <= 0:
        raise CheckFailed("The font of movies has no letters.")
    return " ".join(font.getname()) if hasattr(font, "getname") else "Pillow's bitmap font"


def _ffmpeg() -> str:
    """Write a movie of two frames, and read it back."""
    import imageio_ffmpeg

    from camanim.render.encoder import encoder

    program = imageio_ffmpeg.get_ffmpeg_exe()
    frames = [np.full((64, 96, 3), value, np.uint8) for value in (40, 200)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "two.mp4"
        with encoder(path, path, (96, 64), 5) as running:
            for frame in frames:
                running.write(frame)
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        done = subprocess.run(
            [program, "-v", "error", "-i", str(path), *raw],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=True,
        )
    read = np.frombuffer(done.stdout, np.uint8)
    written = np.stack(frames)
    # Compression and the conversion of colours change values a little.
    if (
        read.size != written.size
        or abs(read.reshape(written.shape) - written.astype(int)).max() > 8
    ):
        raise CheckFailed("A movie of two frames was read back with other frames.")
    return f"{imageio_ffmpeg.get_ffmpeg_version()} in {program}"


def _display() -> str:
    missing = missing_window()
    if missing:
        raise CheckFailed(missing)
    names = [name for name in ("DISPLAY", "WAYLAND_DISPLAY") if os.environ.get(name)]
    return ", ".join(f"{name}={os.environ[name]}" for name in names) or sys.platform


def _compiler() -> str:
    import numba

    @numba.njit
    def total(values: Any) -> Any:
        result = 0.0
        for value in values:
            result += value
        return result

    if total(np.arange(5.0)) != 10:
        raise CheckFailed("A compiled loop has a wrong result.")
    return (
        f"LLVM {'.'.join(map(str, importlib.import_module('llvmlite.binding').llvm_version_info))}"
    )


def _demo_run() -> str:
    """Explain a sample by the demo network, and compare its ROAD scores with kept ones."""
    import time

    from camanim import samples

    start = time.perf_counter()
    animation = camanim.animate(
        camanim.load_model("demo/ultrasound"), samples.image("malignant_1"), layers=_LAYERS
    )
    road = animation.score(baseline=False)
    seconds = time.perf_counter() - start
    value = float(np.nanmean(road.scores))
    if not abs(value - ROAD) <= TOLERANCE:
        raise CheckFailed(f"ROAD of the demo is {value:.3f}, and {ROAD:.3f} was expected.")
    return f"ROAD {value:.3f} in {duration(seconds)}"
