"""Atomic writing of files: a file is complete, or unchanged.

The content is written to a part file in the same folder, which replaces the file in the end. A part file
is locked by the process that writes it, which distinguishes it from one that a killed process has left.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from camanim.errors import RenderError
from camanim.termination import unwound_when_terminated

if sys.platform != "win32":
    import fcntl

#: Names of part files.
_PART = re.compile(r"\.[0-9a-f]{8}\.part(\.\w+)?$")
#: Bytes written to check a folder, as a full disk still accepts an empty file.
_PROBE_SIZE = 4096


def checked_path(path: str | Path, suffix: str) -> Path:
    """Return the absolute path of an output file, checked before its content is computed.

    The check writes a part file to the folder and removes it.

    Raises
    ------
    RenderError
        If the suffix differs, or the file cannot be written there.
    """
    # ffmpeg could take a relative name for an option or a protocol.
    target = Path(path).absolute()
    if target.suffix.lower() != suffix:
        raise RenderError(f"{target.name} must end in {suffix}.")
    try:
        _check_target(target)
    except ValueError as error:
        # NUL or a character that the file system cannot encode.
        raise RenderError(f"{str(path)!r} cannot be the name of a file: {error}.") from error
    with _writing(target):
        part = _Part(_destination(target))
        try:
            content = memoryview(bytes(_PROBE_SIZE))
            # A nearly full disk takes a part of it.
            while content:
                content = content[os.write(part.file, content) :]
        finally:
            part.discard()
    return target


def checked_folder(path: str | Path) -> Path:
    """Return the absolute path of an output folder, which need not exist.

    The check writes a part file beside it and removes it.

    Raises
    ------
    RenderError
        If it is not a folder, or a folder cannot be written there.
    """
    target = Path(path).absolute()
    try:
        if target.exists() and not target.is_dir():
            raise RenderError(f"{target} is not a folder: choose another path.")
    except ValueError as error:
        raise RenderError(f"{str(path)!r} cannot be the name of a folder: {error}.") from error
    checked_path(target.with_suffix(".lock"), ".lock")
    return target


def make_folder(path: Path) -> Path:
    """Create a folder, with its parents, unless it exists.

    Raises
    ------
    RenderError
        If it cannot be created.
    """
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_file(target: Path, content: bytes) -> None:
    """Write a file that is complete or unchanged.

    Raises
    ------
    RenderError
        If it cannot be written.
    """
    with complete_or_absent(target) as partial, _writing(target):
        partial.write_bytes(content)


@contextmanager
def complete_or_absent(target: Path) -> Iterator[Path]:
    """Yield the path of a part file, which replaces `target` unless the context ends with an error.

    Symbolic links are followed. In the main thread, SIGTERM and SIGHUP end the context as well.

    Raises
    ------
    RenderError
        If the part file cannot be created, or cannot replace `target`.
    """
    real = _destination(target)
    with unwound_when_terminated():
        with _writing(target):
            part = _Part(real)
        try:
            yield part.path
            with _writing(target):
                part.replace(real)
        finally:
            part.discard()


@contextmanager
def complete_or_absent_folder(target: Path) -> Iterator[Path]:
    """Yield the path of a part folder, which replaces `target` unless the context ends with an error.

    The folder that it replaces is removed at the end. The caller has checked that this is meant. In the
    main thread, SIGTERM and SIGHUP end the context as well.

    Raises
    ------
    RenderError
        If the part folder cannot be created, or cannot replace `target`.
    """
    real = _destination(target)
    with unwound_when_terminated():
        with _writing(target):
            # Another file is the lock, as a folder cannot be locked everywhere.
            part = _Part(real.with_suffix(".lock"))
        folder = part.path.with_suffix("")
        try:
            with _writing(target):
                folder.mkdir()
            yield folder
            with _writing(target):
                _replace_folder(folder, real)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            part.discard()


def _replace_folder(folder: Path, real: Path) -> None:
    """Move a folder to the place of another one, which is moved away before and removed afterwards."""
    if not real.exists():
        os.replace(folder, real)
        return
    old = folder.with_name(f"{folder.name}.old")
    os.replace(real, old)
    try:
        os.replace(folder, real)
    except OSError:
        os.replace(old, real)
        raise
    shutil.rmtree(old, ignore_errors=True)


def cannot_write(target: Path, error: OSError) -> RenderError:
    """Return the error for a file that cannot be written, with the reason of the system."""
    return RenderError(
        f"{target} cannot be written ({error.strerror or error}): choose another path."
    )


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error


def _destination(target: Path) -> Path:
    """Return the file behind symbolic links, which are not to be replaced."""
    return Path(os.path.realpath(target))


def _check_target(target: Path) -> None:
    with _writing(target):
        real = _destination(target)
        if not real.parent.exists():
            raise RenderError(f"The folder {real.parent} does not exist: create it first.")
        if not real.parent.is_dir():
            raise RenderError(f"{real.parent} is not a folder: choose another path.")
        try:
            mode = os.lstat(real).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            raise RenderError(f"{target} is a folder: give the name of a file.")
        if not stat.S_ISREG(mode):
            # Such as a device, which must not be replaced by a file.
            raise RenderError(f"{target} is not a regular file: choose another path.")
        if not os.access(real, os.W_OK):
            raise RenderError(f"{target} is protected from writing: choose another path.")


class _Part:
    """A locked part file next to a file.

    Attributes
    ----------
    path : Path
    file : int
        Descriptor of the open file, which holds the lock.
    """

    def __init__(self, real: Path) -> None:
        _remove_leftovers(real.parent)
        while True:
            name = f"{real.stem[:40]}.{secrets.token_hex(4)}.part{real.suffix}"
            self.path = real.with_name(name)
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            _lock(self.file)
            # Another process may have taken the file for a leftover before it was locked.
            if self.path.exists():
                return
            os.close(self.file)

    def replace(self, real: Path) -> None:
        """Replace a file by this one, once its content has reached the disk."""
        os.fsync(self.file)
        if sys.platform == "win32":
            # An open file cannot be renamed.
            self._close()
        os.replace(self.path, real)

    def discard(self) -> None:
        """Remove the file unless it has replaced another, and release the lock."""
        if sys.platform == "win32":
            self._close()
        # What cannot be removed now is a leftover for the next write.
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.file = -1


def _lock(file: int) -> bool:
    """Lock an open file; return whether this succeeded."""
    if sys.platform == "win32":
        # An open file cannot be removed, which serves as the lock.
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_leftovers(folder: Path) -> None:
    """Remove part files that no process writes."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PART.search(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_unused(entry.path)


def _remove_if_unused(path: str) -> None:
    if sys.platform == "win32":
        os.unlink(path)
        return
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if _lock(file):
            if path.endswith(".lock"):
                shutil.rmtree(path.removesuffix(".lock"), ignore_errors=True)
            os.unlink(path)
    finally:
        os.close(file)
