"""The section of the dock that writes files: movies, recordings and cards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import PushButton
from napari.utils.notifications import show_info
from qtpy.QtWidgets import QFileDialog, QWidget

from camanim.errors import CamError
from camanim.file_names import suggested_name
from camanim.writing import checked_path
from napari_camanim.dock.form import Column
from napari_camanim.session import Session, shown_plane
from napari_camanim.work.recording import Recording
from napari_camanim.work.runner import Job, Runner

if TYPE_CHECKING:
    from camanim.progress import Progress
    from napari_camanim.work.request import RunRequest

#: Formats of movies in dialogs; the suffix of the chosen name decides.
MOVIES = (
    "Movie (*.mp4 *.webm *.gif *.apng);;MP4, H.264 (*.mp4);;WebM, VP9 (*.webm);;GIF (*.gif);;"
    "Animated PNG (*.apng)"
)
MOVIE_SUFFIXES = (".mp4", ".webm", ".gif", ".apng")
#: Frames per second of recordings, as of movies by default.
FPS = 5.0


class SaveSection(Column):
    """Buttons that write a movie of the current stack, record the canvas, or write a card.

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
            tooltip="Write a movie of all layers (mp4, webm, gif, apng); of a volume, the shown plane.",
        )
        self.record_button = PushButton(
            name="record",
            text="Record canvas…",
            tooltip="Write a movie of the canvas as it is seen, while the slider moves through all "
            "layers (mp4, webm, gif, apng). Cancel stops it, and writes nothing.",
        )
        self.card_button = PushButton(
            text="Save card…", tooltip="Write the network and its settings to a card (.toml)."
        )
        self._recording: Recording | None = None
        super().__init__([self.export_button, self.record_button, self.card_button])
        self.export_button.clicked.connect(self.choose_and_export)
        self.record_button.clicked.connect(self.choose_and_record)
        self.card_button.clicked.connect(self._choose_and_save)
        runner.finished.connect(self._stop_recording)
        self.enable()

    def enable(self) -> None:
        """Enable what can be written now."""
        idle = not self._runner.running
        has_stack = self._session.current is not None
        self.export_button.enabled = self.record_button.enabled = idle and has_stack
        self.card_button.enabled = idle

    def export(self, path: str | Path) -> None:
        """Write the movie of the current stack; of a volume, of the shown plane.

        Parameters
        ----------
        path : path-like
            As for `camanim.render.write_movie`.
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

    def record(self, path: str | Path, fps: float = FPS) -> None:
        """Record the canvas as it is seen, at every layer of the current stack.

        Parameters
        ----------
        path : path-like
            As for `camanim.render.write_movie`.
        fps : float
            Frames per second.
        """
        if self._refuses():
            return
        stack = self._session.current
        if stack is None:
            self._say("No stack to record: press Run first.", True)
            return
        try:
            self._recording = Recording(self._session, stack, path, fps)
        except CamError as error:
            self._say(str(error), True)
            return
        self._runner.start(Job(self._recording.work, self._show_written, kept=False, writes=True))
        self._recording.start()

    def close(self) -> None:
        """Stop a recording; its job is cancelled with the runner."""
        self._stop_recording()

    def _stop_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.stop()

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
        self._choose("Export movie", self.suggested(), MOVIES, MOVIE_SUFFIXES, self.export)

    def choose_and_record(self) -> None:
        """Choose a file and record the canvas."""
        name = f"{self.suggested()}_canvas"
        self._choose("Record canvas", name, MOVIES, MOVIE_SUFFIXES, self.record)

    def _choose_and_save(self) -> None:
        self._choose("Save card", "network", "Card (*.toml)", (".toml",), self.save_card)

    def suggested(self) -> str:
        """Return the suggested name of a file of the current stack, without a suffix."""
        stack = self._session.current
        if stack is None:
            return "layers"
        return suggested_name(stack.data.animation, image=stack.data.run.image_name)

    def _choose(
        self,
        title: str,
        name: str,
        pattern: str,
        suffixes: Sequence[str],
        write: Callable[[str], None],
    ) -> None:
        """Choose a file and write it.

        Parameters
        ----------
        title : str
            Of the dialog.
        name : str
            Suggested name, without a suffix.
        pattern : str
            Kinds of files for the dialog.
        suffixes : sequence of str
            Suffixes that the name may have; without one of them, the first is added.
        write : callable
            Called with the path.
        """
        if self._refuses():
            return
        suggested = f"{name}{suffixes[0]}"
        path, kind = QFileDialog.getSaveFileName(self._parent, title, suggested, pattern)
        if not path:
            return
        if not path.lower().endswith(tuple(suffixes)):
            # That of the chosen kind of files, if it has a single one.
            chosen = [suffix for suffix in suffixes if f"*{suffix}" in kind]
            path += chosen[0] if chosen else suffixes[0]
        write(path)
