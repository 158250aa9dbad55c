"""Atomic writing of files: a file is complete, or unchanged.

The content is written to a part file in the same folder, which replaces the file in the end. A part file
is locked by the process that writes it, which distinguishes it from one that a killed process has left.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
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
#: Beginning of the lock file of a part folder, before the name of the folder that it replaces.
_FOLDER_MARK = b"part of a folder that camanim writes: "
#: How often a folder is moved to a place where others put theirs meanwhile.
_ATTEMPTS = 20


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
        _probe(_destination(target))
    return target


def _probe(real: Path) -> None:
    """Write a part file beside a file and remove it."""
    part = _Part(real)
    try:
        content = memoryview(bytes(_PROBE_SIZE))
        # A nearly full disk takes a part of it.
        while content:
            content = content[os.write(part.file, content) :]
    finally:
        part.discard()


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
        with _writing(target):
            real = _destination(target)
            _check_parent(real)
            # lstat, unlike exists, also raises for a name that is too long.
            if _mode(real) is not None and not real.is_dir():
                raise RenderError(f"{target} is not a folder: choose another path.")
            _probe(real.with_suffix(".lock"))
    except ValueError as error:
        raise RenderError(f"{str(path)!r} cannot be the name of a folder: {error}.") from error
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
def complete_or_absent_folder(
    target: Path, check: Callable[[Path], None] = lambda folder: None
) -> Iterator[Path]:
    """Yield the path of a part folder, which replaces `target` unless the context ends with an error.

    The folder that it replaces is removed at the end. In the main thread, SIGTERM and SIGHUP end the
    context as well. If the process is killed while the folders are exchanged, the next write to a part
    file beside them moves the older folder back.

    Parameters
    ----------
    target : pathlib.Path
    check : callable
        Called with the existing folder right before it is replaced; raises an error if it must not be.

    Raises
    ------
    RenderError
        If the part folder cannot be created, or cannot replace `target`.
    """
    real = _destination(target)
    with unwound_when_terminated():
        with _writing(target):
            # Another file is the lock, as a folder cannot be locked everywhere.
            part = _Part(real.with_suffix(".lock"), _FOLDER_MARK + os.fsencode(real.name))
        folder = part.path.with_suffix("")
        try:
            with _writing(target):
                folder.mkdir()
            yield folder
            with _writing(target):
                _sync_folder(folder)
                _replace_folder(folder, real, check)
        finally:
            _settle(folder, real)
            part.discard()


def _sync_folder(folder: Path) -> None:
    """Wait until the files of a folder have reached the disk."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            # Windows synchronises only files that are open for writing.
            file = os.open(os.path.join(parent, name), os.O_RDWR)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        _sync_entries(Path(parent))


def _sync_entries(folder: Path) -> None:
    """Wait until the names in a folder have reached the disk, where the system can do this."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _replace_folder(folder: Path, real: Path, check: Callable[[Path], None]) -> None:
    """Move a folder to the place of another one, which is moved away before; see `_settle`."""
    old = _older(folder)
    for attempt in range(_ATTEMPTS):
        try:
            if os.path.lexists(real):
                check(real)
                os.replace(real, old)
            os.replace(folder, real)
        except OSError as error:
            # Another process has put a folder there, or moved it away, in between.
            exchanged = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
            if not exchanged or not folder.is_dir() or attempt == _ATTEMPTS - 1:
                raise
            if os.path.lexists(real):
                shutil.rmtree(old, ignore_errors=True)
        else:
            _sync_entries(real.parent)
            return


def _settle(folder: Path, real: Path) -> None:
    """Remove a part folder, and the older folder, or move this back if nothing has replaced it."""
    old = _older(folder)
    if old.is_dir() and not old.is_symlink() and not os.path.lexists(real):
        with suppress(OSError):
            os.replace(old, real)
    # Links are left alone: what is behind them is not of this module.
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(real):
        shutil.rmtree(old, ignore_errors=True)


def _older(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")


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
        _check_parent(real)
        mode = _mode(real)
        if mode is None:
            return
        if stat.S_ISDIR(mode):
            raise RenderError(f"{target} is a folder: give the name of a file.")
        if not stat.S_ISREG(mode):
            # Such as a device, which must not be replaced by a file.
            raise RenderError(f"{target} is not a regular file: choose another path.")
        if not os.access(real, os.W_OK):
            raise RenderError(f"{target} is protected from writing: choose another path.")


def _check_parent(real: Path) -> None:
    if not real.parent.exists():
        raise RenderError(f"The folder {real.parent} does not exist: create it first.")
    if not real.parent.is_dir():
        raise RenderError(f"{real.parent} is not a folder: choose another path.")


def _mode(real: Path) -> int | None:
    """Return the mode of a file, or None if there is no such file."""
    try:
        return os.lstat(real).st_mode
    except FileNotFoundError:
        return None


class _Part:
    """A locked part file next to a file.

    Parameters
    ----------
    real : Path
    content : bytes
        Written to the part file.

    Attributes
    ----------
    path : Path
    file : int
        Descriptor of the open file, which holds the lock.
    """

    def __init__(self, real: Path, content: bytes = b"") -> None:
        _remove_leftovers(real.parent)
        while True:
            name = f"{real.stem[:40]}.{secrets.token_hex(4)}.part{real.suffix}"
            self.path = real.with_name(name)
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            _lock(self.file)
            # Another process may have taken the file for a leftover before it was locked.
            if self.path.exists():
                break
            os.close(self.file)
        try:
            os.write(self.file, content)
        except BaseException:
            self.discard()
            raise

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
        content = Path(path).read_bytes()[:_PROBE_SIZE] if path.endswith(".lock") else b""
        os.unlink(path)
        _settle_leftover(path, content)
        return
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if _lock(file):
            if path.endswith(".lock"):
                _settle_leftover(path, os.read(file, _PROBE_SIZE))
            os.unlink(path)
    finally:
        os.close(file)


def _settle_leftover(path: str, content: bytes) -> None:
    """Settle the part folder of a lock file that no process holds, if this module wrote the file."""
    name = os.fsdecode(content.removeprefix(_FOLDER_MARK))
    is_name = name == os.path.basename(name) and name not in ("", ".", "..") and "\0" not in name
    if content.startswith(_FOLDER_MARK) and is_name:
        _settle(Path(path.removesuffix(".lock")), Path(path).with_name(name))
