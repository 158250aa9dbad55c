"""Atomic writing of files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from camanim.errors import RenderError


def checked_path(path: str | Path, suffix: str) -> Path:
    """Return the absolute path of an output file, checked before its content is computed.

    Raises
    ------
    RenderError
        If the suffix differs, the parent folder is missing, or the path is a folder.
    """
    # ffmpeg could take a relative name for an option or a protocol.
    target = Path(path).absolute()
    if target.suffix.lower() != suffix:
        raise RenderError(f"{target.name} must end in {suffix}.")
    if not target.parent.is_dir():
        raise RenderError(f"The folder {target.parent} does not exist: create it first.")
    if target.is_dir():
        raise RenderError(f"{target} is a folder: give the name of a file.")
    return target


@contextmanager
def complete_or_absent(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file next to `target`, which replaces it unless an error occurs."""
    name = f"{target.stem[:40]}.{secrets.token_hex(4)}.part{target.suffix}"
    partial = target.with_name(name)
    try:
        try:
            partial.touch()
        except OSError as error:
            raise cannot_write(target, error) from error
        yield partial
        try:
            os.replace(partial, target)
        except OSError as error:
            raise cannot_write(target, error) from error
    finally:
        partial.unlink(missing_ok=True)


def cannot_write(target: Path, error: OSError) -> RenderError:
    """Return the error for a file that cannot be written, with the reason of the system."""
    return RenderError(
        f"{target} cannot be written ({error.strerror or error}): choose another path."
    )
