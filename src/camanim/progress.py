"""Progress callbacks of long computations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``; `total` is 0 if unknown. The callback raises `Cancelled` to stop."""


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def console() -> Iterator[Progress]:
    """Show progress bars in the terminal (rich), one per stage, within a context.

    Yields
    ------
    Progress
        Value of ``progress=`` for `camanim.animate`, `Animation.score`, `load_model`, ...

    Examples
    --------
    >>> with console() as progress:
    ...     progress("maps", 1, 1)
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    # On standard error, so that the output of a command can be piped.
    with Bars(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield report
