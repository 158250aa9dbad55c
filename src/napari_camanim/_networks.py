"""Networks: the field where they are chosen, the question whether their code may run, loading."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QFileDialog, QMenu, QMessageBox, QPushButton, QWidget
from superqt import QSearchableComboBox

import camanim
from camanim.models import Untrusted
from camanim.models.names import has_prefix, published_name
from camanim.progress import Progress

if TYPE_CHECKING:
    from camanim import Model

#: Files and folders whose code the user has allowed to run; forgotten when napari closes.
TRUSTED: set[str] = set()

FILES = "Networks (*.toml *.py *.pt2);;All files (*)"


class NetworkField(QSearchableComboBox):
    """The networks that are known by name; any other source can be typed or opened."""

    def __init__(self) -> None:
        super().__init__()
        self.addItems(camanim.list_models())
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)

    def source(self) -> str:
        """Return what was chosen or typed."""
        text: str = self.currentText().strip()
        return text

    def choose(self, source: str) -> None:
        """Choose a source, and list it for later."""
        self.remember(source)
        self.setCurrentText(source)
        # The end of a path says most.
        self.lineEdit().end(False)

    def remember(self, source: str) -> None:
        """List a source that worked."""
        if self.findText(source) < 0:
            typed = self.currentText()
            self.blockSignals(True)
            self.addItem(source)
            self.setEditText(typed)
            self.blockSignals(False)


class OpenButton(QPushButton):
    """Asks for a file or a folder, and puts it into the field."""

    def __init__(self, network: NetworkField) -> None:
        super().__init__("Open…")
        self._network = network
        menu = QMenu(self)
        menu.addAction("Card, Python file or .pt2…", self.open_file)
        menu.addAction("Folder of a MONAI bundle…", self.open_folder)
        self.setMenu(menu)

    def open_file(self) -> None:
        """Ask for a card (.toml), a Python file or an exported network (.pt2)."""
        path, _ = QFileDialog.getOpenFileName(self, "Open network", "", FILES)
        if path:
            self._network.choose(path)

    def open_folder(self) -> None:
        """Ask for the folder of a MONAI bundle."""
        path = QFileDialog.getExistingDirectory(self, "Open MONAI bundle")
        if path:
            self._network.choose(path)


def ask_trust(parent: QWidget, error: Untrusted) -> bool:
    """Ask whether the code may run; a yes is remembered for this file until napari closes."""
    yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
    question = f"{error.source} {error.why}: do you trust where it comes from?"
    answer = QMessageBox.question(parent, "Run code?", question, yes | no, no)
    if answer == yes:
        TRUSTED.add(str(error.source))
    return bool(answer == yes)


@dataclass(frozen=True)
class ModelSpec:
    """A network as it was asked for.

    Attributes
    ----------
    source : str
    settings : dict
        Those of `camanim.load_model`.
    """

    source: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def from_files(self) -> bool:
        """Whether any of it comes from a file, which may change while napari is open."""
        weights = self.settings.get("weights")
        return (
            not has_prefix(self.source)
            or "classes" in self.settings
            or not (weights is None or published_name(weights))
        )


class Networks:
    """Loads networks, in the thread; the last one is kept, as most runs repeat it."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self._asked: ModelSpec | None = None

    def load(self, asked: ModelSpec, progress: Progress) -> Model:
        """Load a network, or take the one that is there.

        Raises
        ------
        Untrusted
            When it comes with code that the user has not allowed to run.
        ModelError
            See `camanim.load_model`.
        """
        if self.model is not None and self._asked == asked:
            return self.model
        self.forget()
        progress("load", 0, 0)
        model = _load(asked, progress)
        if not asked.from_files:
            self.model, self._asked = model, asked
        return model

    def forget(self) -> None:
        """Let the network go."""
        self.model = self._asked = None


def _load(asked: ModelSpec, progress: Progress) -> Model:
    try:
        return camanim.load_model(asked.source, **asked.settings, progress=progress)
    except Untrusted as error:
        if str(error.source) not in TRUSTED:
            raise
    return camanim.load_model(asked.source, **asked.settings, trust=True, progress=progress)
