"""Progress callbacks of long computations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Progress = Callable[[str, int, int], None]
"""``progress(stage, done, total)``; `total` is 0 if unknown. The callback raises `Cancelled` to stop."""

#: Stage around all others, one step for each image. Each step begins the other stages anew.
IMAGES = "images"


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


@contextmanager
def console(*, quiet: bool = False) -> Iterator[Progress]:
    """Show progress bars in the terminal (rich), one per stage, within a context.

    Bars are written to standard error, and only if that is a terminal, or to a notebook. The total of a
    stage may be an estimate: when the next stage begins, and when the context ends without an error, its
    bar is completed. The bars of a computation that failed or was cancelled stay where they are.

    Parameters
    ----------
    quiet : bool
        Show nothing.

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
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    # On standard error, so that the output of a command can be piped.
    terminal = Console(stderr=True)
    if quiet or not (terminal.is_terminal or terminal.is_jupyter):
        yield silent
        return
    with Bars(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=terminal,
    ) as bars:
        stages = Stages(bars)
        yield stages.report
        stages.complete()


class Stages:
    """Progress bars, one for each stage.

    Parameters
    ----------
    bars : rich.progress.Progress
    """

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._current = ""

    def report(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage; see `Progress`."""
        if stage == IMAGES:
            for other in [name for name in self._tasks if name != IMAGES]:
                self._bars.remove_task(self._tasks.pop(other))
            self._current = ""
        elif stage != self._current:
            self.complete()
            self._current = stage
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=None)
        self._bars.update(self._tasks[stage], completed=done, total=total or None)

    def complete(self) -> None:
        """Complete the bar of the current stage."""
        if self._current in self._tasks:
            task = self._bars.tasks[self._bars.task_ids.index(self._tasks[self._current])]
            # A stage without a total, such as waiting, is one step.
            total = task.total or max(task.completed, 1)
            self._bars.update(task.id, completed=total, total=total)
