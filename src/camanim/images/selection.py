"""Which of several images of a file is opened."""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral

from camanim.errors import ImageError


@dataclass(frozen=True)
class Selection:
    """The series, volume and channel to open of a file that holds several.

    Attributes
    ----------
    series : int, str or None
        Number of a series in a folder of DICOM files, from 0 on, or its SeriesInstanceUID.
    volume : int or None
        Number of a volume or point in time, from 0 on.
    channel : int or None
        Number of a channel, from 0 on.
    """

    series: int | str | None = None
    volume: int | None = None
    channel: int | None = None

    def allow(self, kind: str, *names: str) -> None:
        """Raise an `ImageError` if something is set that a kind of file does not have."""
        for f in fields(self):
            if getattr(self, f.name) is not None and f.name not in names:
                raise ImageError(f"{kind} has no {f.name} to choose: leave out {f.name}=.")


def chosen(value: int | str | None, count: int, name: str, what: str) -> int:
    """Return an index that is in range, or raise an `ImageError` that says how to choose.

    Parameters
    ----------
    value : int or None
        What the caller chose.
    count : int
        Number of things to choose from; a single one need not be chosen.
    name : str
        Keyword of `camanim.open_image`.
    what : str
        What the file holds, such as ``"it holds 3 volumes"``.
    """
    if value is None:
        if count == 1:
            return 0
        raise ImageError(
            f"{what}: choose one by camanim.open_image(path, {name}=0) to {name}={count - 1}."
        )
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= value < count:
        raise ImageError(f"{what}: {name} must be from 0 to {count - 1}, not {value!r:.80}.")
    return int(value)
