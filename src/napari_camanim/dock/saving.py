"""The section of the dock that writes files and opens results.

What can be written of a stack is listed in `OUTPUTS`: an entry there is a button or a line of the menu,
a dialog and a job. `SaveSection` knows none of them by name, except that results are opened as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import PushButton
from napari.utils.notifications import show_info
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QFileDialog, QMenu, QWidget

from camanim.errors import CamError, StoreError
from camanim.figures import FigureKind, figure_kinds
from camanim.figures.picking import names_of
from camanim.file_names import suggested_name
from camanim.progress import silent
from camanim.render import write_grid_movie
from camanim.writing import checked_path
from napari_camanim.dock.form import Column
from napari_camanim.files.opened import Opened, add_opened, read_result
from napari_camanim.files.writer import SUFFIX, named
from napari_camanim.session import Session, shown_plane, unwrapped
from napari_camanim.work.recording import Recording
from napari_camanim.work.runner import Job, Runner
from napari_camanim.work.task import Task

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from camanim import Animation
    from camanim.progress import Progress
    from camanim.stack import Normalization
    from napari_camanim.work.request import RunRequest

#: Filter of the dialog that opens results; of a folder, the file in it is chosen.
RESULTS = "Results (*.ozx *.zip zarr.json);;All files (*)"


@dataclass(frozen=True)
class Shown:
    """How a stack is shown when it is written.

    Attributes
    ----------
    normalization : {"local", "global"}
    z : int or None
        The shown plane of a volume; None for images, or if several are shown.
    progress : Progress
    layers : tuple of str
        The layers that are ticked in the tree; empty if all are shown.
    compared : tuple of Animation
        The results of the open comparison, the current one first; only that without a comparison.
    """

    normalization: Normalization
    z: int | None
    progress: Progress
    layers: tuple[str, ...] = ()
    compared: tuple[Animation, ...] = ()


@dataclass(frozen=True)
class Output:
    """One kind of file that is written of the current stack.

    Attributes
    ----------
    name : str
        Name in `SaveSection.choose` and `SaveSection.write`.
    title : str
        Title of the button or of the line in the menu, such as ``"Table…"``.
    tooltip : str
    suffixes : mapping of str to str
        From a suffix to what such a file is, in a few words; the first suffix is the default.
    write : callable
        ``write(animation, path, shown)``, called in a thread.
    beside_a_run : bool
        Whether it can be written while maps or scores are computed. It must use no network.
    is_button : bool
        Whether it is a button, and not a line in the menu.
    compares : bool
        Whether it shows an open comparison, and nothing without one.
    group : str
        Title of the menu within the menu that it belongs to; empty for none.
    """

    name: str
    title: str
    tooltip: str
    suffixes: Mapping[str, str]
    write: Callable[[Animation, Path, Shown], Any]
    beside_a_run: bool = False
    is_button: bool = False
    compares: bool = False
    group: str = ""

    @property
    def filters(self) -> str:
        """The filters of Qt's dialog."""
        return ";;".join(f"{what} (*{suffix})" for suffix, what in self.suffixes.items())

    def named(self, path: str, chosen: str) -> Path:
        """Return the path with a suffix; without one, with that of the chosen filter.

        Raises
        ------
        StoreError
            If the name with the suffix exists already, which the dialog has not asked about.
        """
        if path.lower().endswith(tuple(self.suffixes)):
            return Path(path)
        ends = [suffix for suffix in self.suffixes if f"(*{suffix})" in chosen]
        return named(path, [*ends, *self.suffixes][0])


def _figure(kind: FigureKind) -> Output:
    """Return the output of a figure: as the stack is shown, with the runs of an open comparison."""

    def write(animation: Animation, path: Path, shown: Shown) -> Any:
        known: dict[str, Any] = {"normalization": shown.normalization, "z": shown.z}
        if shown.layers:
            known["layers"] = shown.layers
        used = {name: value for name, value in known.items() if name in kind.settings}
        results = [animation] if kind.takes == "one" else list(shown.compared)
        if kind.takes == "pair":
            results.sort(key=lambda each: bool(each.provenance.get("counterfactual")))
        first, *others = results
        return first.write_figure(path, kind.name, *others, **used)

    suffixes = {".pdf": "PDF", ".svg": "SVG", ".png": "Picture"}
    name = f"figure {kind.name}"
    tooltip = f"{kind.help} Its caption is a text file beside it. Shows {kind.needs}"
    tooltip += "." if kind.takes == "one" else ": those of the open comparison."
    return Output(
        name,
        f"{kind.title}…",
        tooltip,
        suffixes,
        write,
        beside_a_run=True,
        compares=kind.takes == "pair",
        group="Figure",
    )


#: Formats of movies; the first one is suggested.
MOVIES = {".mp4": "H.264", ".webm": "VP9", ".gif": "GIF", ".apng": "Animated PNG"}
#: Frames per second of recordings, as of movies by default.
FPS = 5.0

OUTPUTS = (
    Output(
        "result",
        "Save result…",
        "Write maps, layers, scores and image to a file that opens again.",
        {
            SUFFIX: "Result in one file, OME-Zarr",
            ".camanim.zarr": "Result in a folder, OME-Zarr",
            ".camanim.zip": "Result in one file, zip",
        },
        lambda animation, path, shown: animation.save(path, progress=shown.progress),
        beside_a_run=True,
        is_button=True,
    ),
    Output(
        "report",
        "Report…",
        "Write a page with the maps of all layers, scores, checks and settings; it needs no server.",
        {".html": "Report"},
        lambda animation, path, shown: animation.write_report(
            path, normalization=shown.normalization, progress=shown.progress
        ),
        beside_a_run=True,
    ),
    *map(_figure, figure_kinds().values()),
    Output(
        "table",
        "Table…",
        "Write a row for each layer, with its scores.",
        {".csv": "Table", ".json": "JSON", ".parquet": "Parquet"},
        lambda animation, path, shown: animation.write_table(path),
        beside_a_run=True,
    ),
    Output(
        "maps",
        "Maps…",
        "Write the raw maps of all layers for other programs.",
        {
            ".npz": "NumPy, each map at its own resolution",
            ".tif": "TIFF of ImageJ, with names of layers",
            ".nii.gz": "NIfTI, at the place of the image",
            ".npy": "NumPy, one array",
        },
        lambda animation, path, shown: animation.write_maps(path, progress=shown.progress),
        beside_a_run=True,
    ),
    Output(
        "movie",
        "Movie…",
        "Write a movie of all layers; of a volume, the shown plane.",
        MOVIES,
        lambda animation, path, shown: animation.write_movie(
            path, normalization=shown.normalization, z=shown.z, progress=shown.progress
        ),
    ),
    Output(
        "comparison",
        "Movie of the comparison…",
        "Write a movie of all runs side by side, with one cursor; open a comparison first.",
        MOVIES,
        lambda animation, path, shown: write_grid_movie(
            dict(zip(names_of(shown.compared), shown.compared, strict=True)),
            path,
            normalization=shown.normalization,
            z=shown.z,
            progress=shown.progress,
        ),
        compares=True,
    ),
)


class SaveSection(Column):
    """Buttons that write and open results, and a menu of what else can be written.

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

    Attributes
    ----------
    folder : str
        Folder of the last dialog; empty before.
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
        self.folder = ""
        self._outputs = {output.name: output for output in OUTPUTS}
        #: Jobs beside that of the runner.
        self._tasks: list[Task] = []
        self.open_button = PushButton(
            name="open_result",
            text="Open result…",
            tooltip="Open a saved result over its image; of a folder, choose zarr.json in it.",
        )
        self.menu_button = PushButton(
            name="export",
            text="Export",
            tooltip="Write a report, figures, tables, maps or a movie.",
        )
        menu = QMenu(self.menu_button.native)
        menu.setToolTipsVisible(True)
        #: Buttons and lines of the menu by the name of their output.
        self.controls: dict[str, Any] = {}
        groups: dict[str, QMenu] = {}
        for output in OUTPUTS:
            if output.is_button:
                control = PushButton(text=output.title, tooltip=output.tooltip)
                control.clicked.connect(partial(self.choose, output.name))
            else:
                if output.group and output.group not in groups:
                    groups[output.group] = menu.addMenu(output.group)
                    groups[output.group].setToolTipsVisible(True)
                control = groups.get(output.group, menu).addAction(output.title)
                control.setToolTip(output.tooltip)
                control.setData(output.name)
            self.controls[output.name] = control
        self.record_action = menu.addAction("Canvas as it is seen…")
        self.record_action.setToolTip(
            "Write a movie of the canvas while the slider moves through all layers. Cancel stops it, "
            "and writes nothing."
        )
        self._recording: Recording | None = None
        self.card_action = menu.addAction("Card…")
        self.card_action.setToolTip("Write the network and its settings to a card.")
        # A method, to which Qt holds no reference.
        menu.triggered.connect(self._on_chosen)
        # A comparison can have been opened or closed meanwhile.
        menu.aboutToShow.connect(self.enable)
        self.menu_button.native.setMenu(menu)
        buttons = [self.controls[output.name] for output in OUTPUTS if output.is_button]
        super().__init__([Column([*buttons, self.open_button], "horizontal"), self.menu_button])
        self.open_button.clicked.connect(self.choose_and_open)
        runner.finished.connect(self._stop_recording)
        self.enable()

    @property
    def busy(self) -> bool:
        """Whether a file is being read or written beside the runner's job."""
        return bool(self._tasks)

    def enable(self) -> None:
        """Enable what can be written now."""
        stack, viewer = self._session.current, self._session.viewer
        idle, has_stack = not self._runner.running, stack is not None
        compares = stack is not None and viewer is not None and len(self._compared(stack)) > 1
        for name, control in self.controls.items():
            output = self._outputs[name]
            enabled = has_stack and (idle or output.beside_a_run)
            enabled = enabled and (compares or not output.compares)
            if isinstance(control, PushButton):
                control.enabled = enabled
            else:
                control.setEnabled(enabled)
        self.record_action.setEnabled(idle and has_stack)
        self.card_action.setEnabled(idle)

    # -- Files of the current stack ----------------------------------------------------------------

    def write(self, name: str, path: str | Path) -> None:
        """Write one of `OUTPUTS` for the current stack; of scores in progress, those computed so far.

        Parameters
        ----------
        name : str
        path : path-like
            With one of the suffixes.
        """
        output = self._outputs[name]
        if not output.beside_a_run and self._refuses():
            return
        stack, viewer = self._session.current, self._session.viewer
        if stack is None or viewer is None:
            self._say("There is nothing to save: press Run first.", True)
            return
        work = partial(_write, output, stack.data.animation, Path(path), self._shown(stack, viewer))
        self._start(work, self._show_written)

    def _shown(self, stack: Image, viewer: ViewerModel) -> Shown:
        """Return how a stack is shown, without a callback for progress."""
        data, animation = stack.data, stack.data.animation
        picked = len(data.indices) < len(animation)
        layers = tuple(animation.layers[i].label for i in data.indices) if picked else ()
        compared = self._compared(stack)
        if len({each.provenance.get("model") for each in compared}) > 1:
            # Other networks have other layers.
            layers = ()
        plane = shown_plane(viewer, stack)
        return Shown(data.normalization, plane, silent, layers, compared)

    def _compared(self, stack: Image) -> tuple[Animation, ...]:
        """Return the results of the comparison that shows a stack, its own first; else that alone."""
        animation, comparison = stack.data.animation, self._session.comparison
        results = [] if comparison is None else [each.data.animation for each in comparison.stacks]
        others = [each for each in results if each is not animation]
        return (animation, *others) if len(others) < len(results) else (animation,)

    def choose(self, name: str) -> None:
        """Choose a file, and write one of `OUTPUTS` for the current stack."""
        output, run = self._outputs[name], self._session.run
        if not output.beside_a_run and self._refuses():
            return
        if run is None:
            self._say("There is nothing to save: press Run first.", True)
            return
        title = output.title.rstrip("…")
        suggested = suggested_name(run.animation, next(iter(output.suffixes)), run.image_name)
        path = self._asked(title, suggested, output.filters, output.named)
        if path is not None:
            self.write(name, path)

    def export(self, path: str | Path) -> None:
        """Write the movie of the current stack; of a volume, of the shown plane."""
        self.write("movie", path)

    # -- Results -----------------------------------------------------------------------------------

    def open(self, path: str | Path) -> None:
        """Open a saved result over its image; nothing is computed, and no network is loaded."""
        source = Path(path)
        # A dialog for files cannot choose a folder.
        source = source.parent if source.name == "zarr.json" else source
        self._say(f"Opening {source.name}…", False)
        # Beside whatever runs, or is started meanwhile.
        self._start_beside(partial(_open, source), self._add)

    def choose_and_open(self) -> None:
        """Choose a saved result, and open it."""
        path, _ = QFileDialog.getOpenFileName(self._parent, "Open result", self.folder, RESULTS)
        if path:
            chosen = Path(path)
            inside = chosen.name == "zarr.json"
            self.folder = str(chosen.parents[1] if inside else chosen.parent)
            self.open(chosen)

    def _add(self, opened: Opened) -> None:
        viewer = self._session.viewer
        if viewer is None or self._runner.closed:
            return
        # The dock says what it is, as also for files that napari opens.
        add_opened(unwrapped(viewer), opened)

    # -- Cards -------------------------------------------------------------------------------------

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

        self._start(job, self._show_written)

    def _on_chosen(self, action: QAction) -> None:
        """Write what was chosen in the menu."""
        if action is self.card_action:
            self._choose_card()
        elif action is self.record_action:
            self.choose_and_record()
        else:
            self.choose(action.data())

    def _choose_card(self) -> None:
        if self._refuses():
            return
        path = self._asked(
            "Save card", "network.toml", "Card (*.toml)", lambda path, _: named(path, ".toml")
        )
        if path is not None:
            self.save_card(path)

    # -- Recordings of the canvas ------------------------------------------------------------------

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
            self._say("There is nothing to record: press Run first.", True)
            return
        try:
            self._recording = Recording(self._session, stack, path, fps)
        except CamError as error:
            self._say(str(error), True)
            return
        self._runner.start(Job(self._recording.work, self._show_written, kept=False, writes=True))
        self._recording.start()

    def choose_and_record(self) -> None:
        """Choose a file and record the canvas."""
        run = self._session.run
        if self._refuses():
            return
        if run is None:
            self._say("There is nothing to record: press Run first.", True)
            return
        name = suggested_name(run.animation, "_canvas.mp4", run.image_name)
        movie = self._outputs["movie"]
        path = self._asked("Record canvas", name, movie.filters, movie.named)
        if path is not None:
            self.record(path)

    def _stop_recording(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.stop()

    # -- Jobs --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop a recording, and what is being written beside a run; no file of it is left."""
        self._stop_recording()
        for task in self._tasks:
            task.cancel()

    def _asked(
        self, title: str, name: str, filters: str, complete: Callable[[str, str], Path]
    ) -> Path | None:
        """Return the path that the user chooses in a dialog; None if there is none."""
        path, chosen = QFileDialog.getSaveFileName(
            self._parent, title, str(Path(self.folder) / name), filters
        )
        if not path:
            return None
        self.folder = str(Path(path).parent)
        try:
            return complete(path, chosen)
        except CamError as error:
            self._say(str(error), True)
            return None

    def _start(self, work: Callable[[Progress], Any], done: Callable[[Any], None]) -> None:
        """Start a job that writes a file; while maps or scores are computed, beside them."""
        if self._runner.running:
            self._start_beside(work, done)
        else:
            self._runner.start(Job(work, done, writes=True))

    def _start_beside(self, work: Callable[[Progress], Any], done: Callable[[Any], None]) -> None:
        """Start a job that nothing else replaces."""
        task = Task(work)
        task.succeeded.connect(done)
        task.failed.connect(self._on_failed)
        task.finished.connect(self._on_finished)
        self._tasks.append(task)
        task.start()

    def _on_failed(self, error: CamError) -> None:
        if not self._runner.closed:
            self._say(str(error), True)

    def _on_finished(self) -> None:
        self._tasks = [task for task in self._tasks if not task.ended]

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


# Functions of a module, which hold no reference to the dock while napari keeps the worker.


def _write(
    output: Output, animation: Animation, path: Path, shown: Shown, progress: Progress
) -> Path:
    output.write(animation, path, replace(shown, progress=progress))
    return path


def _open(path: Path, progress: Progress) -> Opened:
    if not path.exists():
        raise StoreError(f"There is no file {path}.")
    progress("open", 0, 0)
    return read_result(path)
