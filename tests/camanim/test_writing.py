"""Writing of files: places that cannot be written, full disks, killed processes and links."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import camanim
from camanim import samples, writing
from camanim.errors import RenderError
from camanim.render import FrameRenderer
from camanim.writing import checked_path, complete_or_absent, write_file

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals, links and limits of POSIX")
WRITERS = {
    "movie.mp4": lambda result, path: result.write_movie(path, size=64),
    "picture.png": lambda result, path: result.write_picture(path, size=64),
    "plot.png": lambda result, path: result.write_plot(path),
    "plot.pdf": lambda result, path: result.write_plot(path),
    "plot.svg": lambda result, path: result.write_plot(path),
    "table.csv": lambda result, path: result.write_table(path),
    "table.json": lambda result, path: result.write_table(path),
    "table.parquet": lambda result, path: result.write_table(path),
    "maps.tif": lambda result, path: result.write_maps(path),
    "maps.npy": lambda result, path: result.write_maps(path),
    "maps.npz": lambda result, path: result.write_maps(path),
    "maps.nii": lambda result, path: result.write_maps(path),
    "maps.nii.gz": lambda result, path: result.write_maps(path),
    "card.toml": lambda result, path: result.model.save_card(path),
}
every_writer = pytest.mark.parametrize("name", list(WRITERS))


@pytest.fixture(scope="module")
def result():
    model = camanim.load_model("demo/ultrasound")
    animation = camanim.animate(model, samples.image("benign_1"), layers=["features.norm5"])
    animation.localise(np.eye(*animation.image.shape[:2]) > 0)
    return animation


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def no_work(monkeypatch):
    """Fail if anything is drawn."""

    def drawn(*_: object, **__: object) -> None:
        pytest.fail("drawn before the place was checked")

    monkeypatch.setattr(FrameRenderer, "canvas", drawn)
    monkeypatch.setattr("camanim.render.plots.plot", drawn)
    monkeypatch.setattr("camanim.table.table", drawn)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Limit the size of files, which fails as a full disk does, for child processes too."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@every_writer
@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_read_only_place_is_noticed_before_the_work(
    result, tmp_path, monkeypatch, no_work, name, code
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    # A read-only disk refuses to remove files too, even those that do not exist.
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(RenderError, match=f"{name}.*{os.strerror(code)}"):
        WRITERS[name](result, tmp_path / name)


@every_writer
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_without_files_is_noticed_before_the_work(result, no_work, name) -> None:
    with pytest.raises(RenderError, match=name):
        WRITERS[name](result, Path("/proc/self") / name)


@posix
@every_writer
def test_a_full_disk_is_noticed_before_the_work(result, tmp_path, no_work, name) -> None:
    with largest_file(100), pytest.raises(RenderError, match=name):
        WRITERS[name](result, tmp_path / name)
    assert names(tmp_path) == []


@posix
@pytest.mark.parametrize("name", ["movie.mp4", "picture.png", "plot.png", "plot.pdf", "plot.svg"])
def test_a_disk_that_fills_leaves_the_older_file(result, tmp_path, name) -> None:
    (tmp_path / name).write_bytes(b"older")
    with largest_file(4500), pytest.raises(RenderError, match=name):
        WRITERS[name](result, tmp_path / name)
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"older"


@every_writer
@pytest.mark.parametrize(
    "where",
    [
        "file/{}", "file/below/{}", "missing/{}", "nul\0{}", "lone\ud800surrogate{}",
        "x" * 300 + "{}", "{}",
    ],
)  # fmt: skip
def test_paths_that_cannot_exist_are_render_errors(result, tmp_path, no_work, name, where) -> None:
    (tmp_path / "file").write_bytes(b"")
    if where == "{}":
        (tmp_path / name).mkdir()
    before = names(tmp_path)
    with pytest.raises(RenderError):
        WRITERS[name](result, f"{tmp_path}/{where.format(name)}")
    assert names(tmp_path) == before


@every_writer
def test_long_names_and_capital_suffixes(result, tmp_path, name) -> None:
    stem, _, suffix = name.partition(".")
    # 240 bytes in 60 characters.
    for path in (tmp_path / f"{stem}.{suffix.upper()}", tmp_path / f"{'🐈' * 60}.{suffix}"):
        assert WRITERS[name](result, path) == path
        assert path.stat().st_size > 0


@posix
def test_links_are_followed_and_kept(result, tmp_path) -> None:
    (tmp_path / "links").mkdir()
    for name, write in WRITERS.items():
        real, link = tmp_path / name, tmp_path / "links" / name
        # The first is written through a link to a file that does not exist yet.
        link.symlink_to(real)
        for _ in range(2):
            assert write(result, link) == link
            assert link.is_symlink()
            assert not real.is_symlink()
            assert real.stat().st_size > 0
    assert names(tmp_path) == sorted([*WRITERS, "links"])
    assert names(tmp_path / "links") == sorted(WRITERS)


@posix
def test_links_to_devices_and_in_circles_are_refused(tmp_path) -> None:
    (tmp_path / "null.csv").symlink_to("/dev/null")
    (tmp_path / "circle.csv").symlink_to(tmp_path / "circle.csv")
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "missing" / "x.csv")
    os.mkfifo(tmp_path / "fifo.csv")
    before = names(tmp_path)
    for name in before:
        with pytest.raises(RenderError):
            checked_path(tmp_path / name, ".csv")
    assert names(tmp_path) == before


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_protected_file_is_kept(tmp_path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"older")
    path.chmod(0o444)
    with pytest.raises(RenderError, match="protected"):
        checked_path(path, ".csv")


WRITE = """
import sys, time
from pathlib import Path
from camanim.writing import complete_or_absent
with complete_or_absent(Path(sys.argv[1])) as partial:
    partial.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def writing_process(path: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that is about to write a file, and wait until it has written half of it."""
    code = "\n".join((*before, WRITE))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", 0)])
def test_an_ended_process_leaves_no_file(tmp_path, number) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"older")
    with writing_process(path) as process:
        assert len(names(tmp_path)) == 2
        process.send_signal(number)
        # Ended by the signal, as without the handler.
        assert process.wait(30) == -number
    assert names(tmp_path) == ["table.csv"]
    assert path.read_bytes() == b"older"


@posix
def test_ignored_and_handled_signals_stay_so(tmp_path) -> None:
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    handling = "signal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))"
    with writing_process(tmp_path / "table.csv", ignoring, handling) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "mine\n"
        assert process.poll() is None


def test_handlers_are_as_before(tmp_path) -> None:
    numbers = [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
    before = [signal.getsignal(number) for number in numbers]
    with complete_or_absent(tmp_path / "outer.csv"), complete_or_absent(tmp_path / "inner.csv"):
        pass
    with pytest.raises(ZeroDivisionError), complete_or_absent(tmp_path / "outer.csv"):
        _ = 1 / 0
    assert [signal.getsignal(number) for number in numbers] == before


@posix
def test_leftovers_of_a_killed_process_are_removed_by_the_next(tmp_path) -> None:
    mine = tmp_path / "notes.part.csv"
    mine.write_bytes(b"of the user")
    with writing_process(tmp_path / "killed.csv") as killed:
        killed.kill()
        killed.wait(30)
    assert len(names(tmp_path)) == 2
    with writing_process(tmp_path / "running.csv"):
        [running] = [name for name in names(tmp_path) if name.startswith("running")]
        write_file(tmp_path / "table.csv", b"new")
        # What another process still writes is kept.
        assert names(tmp_path) == sorted(["notes.part.csv", running, "table.csv"])
    checked_path(tmp_path / "table.csv", ".csv")
    assert names(tmp_path) == ["notes.part.csv", "table.csv"]


@posix
def test_a_disk_without_locks_can_be_written(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    left = tmp_path / "table.0123abcd.part.csv"
    left.write_bytes(b"of another process, or a leftover")
    monkeypatch.setattr(writing.fcntl, "flock", refuse)
    write_file(tmp_path / "table.csv", b"new")
    assert names(tmp_path) == [left.name, "table.csv"]


def test_a_part_file_taken_for_a_leftover_is_created_again(tmp_path, monkeypatch) -> None:
    original, removed = writing._lock, []

    def lock(file: int) -> bool:
        # Another process removes the file before it is locked.
        if not removed:
            [part] = tmp_path.iterdir()
            part.unlink()
            removed.append(part)
        return original(file)

    monkeypatch.setattr(writing, "_lock", lock)
    write_file(tmp_path / "table.csv", b"new")
    assert removed
    assert names(tmp_path) == ["table.csv"]
    assert (tmp_path / "table.csv").read_bytes() == b"new"
