"""The section of the dock that writes files: movies and cards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import PushButton
from napari.utils.notifications import show_info
from qtpy.QtWidgets import QFileDialog, QWidget

from camanim.writing import checked_path
from napari_camanim.dock.form import Column
from napari_camanim.session import Session, shown_plane
from napari_camanim.work.runner import Job, Runner

if TYPE_CHECKING:
    from camanim.progress import Progress
    from napari_camanim.work.request import RunRequest


class SaveSection(Column):
    """Buttons that write a movie of the current stack, or a card of the network.

    Parameters
    ----------
    session : Session
    runner : Runner
    request : callable
        Returns the contents of the dock; None if they are not valid, which it has shown.
    say : callable
        ``say(text, error)`` shows a message.
    parent : QWidget
        Parent of the dialogs.
    """

    def __init__(
        self,
        session: Session,
        runner: Runner,
        request: Callable[[], RunRequest | None],
        say: Callable[[str, bool], None],
        parent: QWidget,
    ) -> None:
        self._parent = parent
        self._session, self._runner, self._request, self._say = session, runner, request, say
        self.export_button = PushButton(
            name="export",
            text="Export movie…",
            tooltip="Write a movie of all layers (mp4); of a volume, the shown plane.",
        )
        self.card_button = PushButton(
            text="Save card…", tooltip="Write the network and its settings to a card (.toml)."
        )
        super().__init__([self.export_button, self.card_button])
        self.export_button.clicked.connect(self.choose_and_export)
        self.card_button.clicked.connect(self._choose_and_save)
        self.enable()

    def enable(self) -> None:
        """Enable what can be written now."""
        idle = not self._runner.running
        self.export_button.enabled = idle and self._session.current is not None
        self.card_button.enabled = idle

    def export(self, path: str | Path) -> None:
        """Write the movie of the current stack; of a volume, of the shown plane.

        Parameters
        ----------
        path : path-like
            Must end in ``.mp4``.
        """
        if self._refuses():
            return
        stack, viewer = self._session.current, self._session.viewer
        if stack is None or viewer is None:
            self._say("No stack to export: press Run first.", True)
            return
        animation, normalization = stack.data.animation, stack.data.normalization
        z = shown_plane(viewer, stack)

        def job(progress: Progress) -> Path:
            written: Path = animation.write_movie(
                path, normalization=normalization, z=z, progress=progress
            )
            return written

        self._runner.start(Job(job, self._show_written, writes=True))

    def save_card(self, path: str | Path) -> None:
        """Write the network and its settings as a card.

        Parameters
        ----------
        path : path-like
            Must end in ``.toml``.
        """
        request = None if self._refuses() else self._request()
        if request is None:
            return
        spec, networks = request.network, self._runner.networks

        def job(progress: Progress) -> Path:
            # Before the network is loaded, which may download weights.
            checked_path(path, ".toml")
            return networks.load(spec, progress).save_card(path)

        self._runner.start(Job(job, self._show_written, writes=True))

    def _refuses(self) -> bool:
        """Return whether nothing can be written now, and say so."""
        if self._runner.running:
            # Writing would replace the job.
            self._say("Wait for the end of the run, or cancel it, before a file is written.", True)
        return self._runner.running

    def _show_written(self, path: Path) -> None:
        if not self._runner.closed:
            self._say(f"Wrote {path}.", False)
            # The dock shortens a long path.
            show_info(f"Wrote {path}.")

    def choose_and_export(self) -> None:
        """Choose a file and write a movie of the current stack."""
        self._choose("Export movie", "layers.mp4", "Movie (*.mp4)", self.export)

    def _choose_and_save(self) -> None:
        self._choose("Save card", "network.toml", "Card (*.toml)", self.save_card)

    def _choose(self, title: str, name: str, pattern: str, write: Callable[[str], None]) -> None:
        if self._refuses():
            return
        path, _ = QFileDialog.getSaveFileName(self._parent, title, name, pattern)
        if path:
            suffix = Path(name).suffix
            write(path if path.lower().endswith(suffix) else f"{path}{suffix}")
