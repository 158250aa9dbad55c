"""Repeat what wears a program down, and count what is left: docks, full disks, killed runs.

    python benchmarks/soak_files.py dock --cycles 50     # with a display, or under xvfb-run
    python benchmarks/soak_files.py disks --cycles 20    # small and read-only disks on Linux as root

Every number in the last column of the output should be 0.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

#: Name of the environment variable that marks the process in its own mount namespace.
INSIDE = "CAMANIM_SOAK_INSIDE"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["dock", "disks"])
    parser.add_argument("--cycles", type=int, default=50)
    arguments = parser.parse_args()
    failures = {"dock": dock, "disks": disks}[arguments.part](arguments.cycles)
    sys.exit(min(failures, 1))


def report(what: str, tries: int, wrong: int) -> int:
    print(f"{what:<58} {tries:>6} tries  {wrong:>4} wrong", flush=True)
    return wrong


# -- The dock --------------------------------------------------------------------------------------


def dock(cycles: int) -> int:
    """Open the dock, run and close it; every third time during the run."""
    import napari
    from qtpy.QtCore import QEvent
    from qtpy.QtWidgets import QApplication

    raised: list[str] = []
    viewer = napari.Viewer()
    sys.excepthook = lambda kind, error, _: raised.append(f"{kind.__name__}: {error}")
    ramp = np.linspace(0, 255, 96 * 128).reshape(96, 128).astype(np.uint8)
    image = viewer.add_image(ramp, name="ramp")
    counts: list[int] = []
    for cycle in range(cycles):
        window_dock, widget = viewer.window.add_plugin_dock_widget("napari-camanim", "CAManim")
        widget.form.advanced.layers.setCurrentText("blocks")
        widget.form.road.setChecked(cycle % 2 == 0)
        runner = widget.runner
        widget.run()
        if cycle % 3:
            _process_until(lambda runner=runner: not runner.running)
        else:
            _process_for(0.1 * (cycle % 7))
        for layer in [layer for layer in viewer.layers if layer is not image]:
            viewer.layers.remove(layer)
        viewer.window.remove_dock_widget(window_dock)
        _process_until(lambda runner=runner: not runner.running)
        del window_dock, widget, runner
        for _ in range(5):
            QApplication.processEvents()
            QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            gc.collect()
        counts.append(len(QApplication.allWidgets()))
        if cycle % 10 == 9 or cycle == cycles - 1:
            print(f"  cycle {cycle + 1}: {counts[-1]} widgets", flush=True)
    alive = Counter(type(o).__name__ for o in gc.get_objects())["CamWidget"]
    wrong = report("widgets more than after the second dock", cycles, counts[-1] - counts[1])
    wrong += report("docks alive after they were closed", cycles, alive)
    wrong += report("errors raised in slots", cycles, len(raised))
    print(*raised[:3], sep="\n")
    viewer.close()
    return wrong


def _process_until(done: Callable[[], bool], seconds: float = 120) -> None:
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("the run does not end")
        QApplication.processEvents()
        time.sleep(0.002)


def _process_for(seconds: float) -> None:
    end = time.monotonic() + seconds
    _process_until(lambda: time.monotonic() >= end)


# -- Disks -----------------------------------------------------------------------------------------


def disks(cycles: int) -> int:
    """Write to full and read-only places, and kill processes that write."""
    if sys.platform == "linux" and os.geteuid() == 0 and INSIDE not in os.environ:
        # With mounts that end with the process.
        command = ["unshare", "--mount", sys.executable, *sys.argv]
        if subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0:
            return subprocess.run(command, env=os.environ | {INSIDE: "1"}, check=False).returncode
    import camanim
    from camanim import samples

    model = camanim.load_model("demo/ultrasound")
    result = camanim.animate(model, samples.image("malignant_1"), layers="blocks")
    result.localise(samples.mask("malignant_1"))
    writers: dict[str, Callable[[Path], Path]] = {
        "movie.mp4": lambda path: result.write_movie(path, size=256),
        "picture.png": result.write_picture,
        "plot.png": result.write_plot,
        "plot.pdf": result.write_plot,
        "plot.svg": result.write_plot,
        "table.csv": result.write_table,
        "card.toml": model.save_card,
    }
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in ("/proc/self", "/sys", str(folder / "missing"), str(folder / "file")):
            (folder / "file").write_bytes(b"")
            wrong += _refused(f"refused: {place}", writers, Path(place))
        if INSIDE in os.environ:
            with mounted(folder / "disk", "ro") as disk:
                wrong += _refused("refused: a read-only disk", writers, disk)
            # From a disk that takes nothing to one that takes all.
            sizes = [4096 * 2**k for k in range(9)]
            for size in sizes:
                with mounted(folder / "disk", f"size={size}") as disk:
                    wrong += _complete_or_absent(f"a disk of {size} bytes", writers, disk)
        wrong += _killed(folder / "killed", cycles)
    return wrong


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small disk in memory."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "soak", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _refused(what: str, writers: dict[str, Callable[[Path], Path]], folder: Path) -> int:
    import camanim

    wrong = 0
    for name, write in writers.items():
        try:
            write(folder / name)
        except camanim.CamError:
            continue
        except Exception as error:  # noqa: BLE001 (any is a fault)
            print(f"  {name}: {type(error).__name__}: {error}")
        wrong += 1
    return report(what, len(writers), wrong)


def _complete_or_absent(what: str, writers: dict[str, Callable[[Path], Path]], disk: Path) -> int:
    """Count writers that raise anything but a `CamError`, or leave half a file."""
    import camanim

    wrong = written = 0
    for name, write in writers.items():
        path = disk / name
        path.touch()
        try:
            write(path)
            written += 1
            wrong += path.stat().st_size == 0
        except camanim.CamError:
            wrong += path.stat().st_size != 0
        except Exception as error:  # noqa: BLE001 (any is a fault)
            print(f"  {name}: {type(error).__name__}: {error}")
            wrong += 1
        wrong += [p.name for p in disk.iterdir()] != [name]
        path.unlink()
    return report(f"{what}, {written} of {len(writers)} written", len(writers), wrong)


WRITE = """
import sys
from pathlib import Path
from camanim.writing import complete_or_absent
while True:
    with complete_or_absent(Path(sys.argv[1])) as partial, partial.open("wb") as file:
        for _ in range(100):
            file.write(b"new " * 1000)
            file.flush()
            print(end=".", flush=True)
"""


def _killed(folder: Path, cycles: int) -> int:
    """End processes at random moments of writing, and write to the same folder afterwards."""
    from camanim.writing import write_file

    folder.mkdir()
    wrong = 0
    generator = np.random.default_rng(0)
    signals = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    for number in signals:
        left = bad = 0
        for _ in range(cycles):
            path = folder / "table.csv"
            path.write_bytes(b"old ")
            with subprocess.Popen(
                [sys.executable, "-c", WRITE, str(path)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            ) as process:  # fmt: skip
                assert process.stdout is not None
                process.stdout.read(1 + int(generator.integers(300)))
                process.send_signal(number)
                process.stdout.read()
            content = path.read_bytes()
            bad += content not in (b"old ", b"new " * 100_000)
            left += len(list(folder.iterdir())) - 1
            write_file(folder / "other.csv", b"after")
            bad += sorted(p.name for p in folder.iterdir()) != ["other.csv", "table.csv"]
            (folder / "other.csv").unlink()
        if number == signal.SIGKILL:
            print(f"  {left} part files left by SIGKILL, removed by the next write")
            left = 0
        wrong += report(f"files after {number.name}, and part files left", cycles, bad + left)
    return wrong


if __name__ == "__main__":
    main()
