"""Files are there when they are complete, and not before."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from camanim.errors import RenderError


def checked_path(path: str | Path, suffix: str) -> Path:
    """Check a path before any work is done for it.

    Raises
    ------
    RenderError
        For another suffix, a missing folder, or a folder of that name.
    """
    # Absolute, so that no name can look like an option or a protocol to ffmpeg.
    target = Path(path).absolute()
    if target.suffix.lower() != suffix:
        raise RenderError(f"{target.name} must end in {suffix}.")
    if not target.parent.is_dir():
        raise RenderError(f"There is no folder {target.parent}: create it first.")
    if target.is_dir():
        raise RenderError(f"{target} is a folder: give the name of a file.")
    return target


@contextmanager
def complete_or_absent(target: Path) -> Iterator[Path]:
    """Give a name beside `target` to write to; it takes the target's place if nothing is raised."""
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
    """Say that a file cannot be written, and what the system says."""
    return RenderError(
        f"{target} cannot be written ({error.strerror or error}): choose another place."
    )
