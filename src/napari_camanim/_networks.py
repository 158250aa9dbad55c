"""Networks: the field for the source, the dialog about trust, and loading."""

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

#: Files and folders with code that the user has allowed to run, until napari is closed.
TRUSTED: set[str] = set()

FILES = "Networks (*.toml *.py *.pt2);;All files (*)"


class NetworkField(QSearchableComboBox):
    """Lists the networks with a name; other sources can be typed or opened."""

    def __init__(self) -> None:
        super().__init__()
        self.addItems(camanim.list_models())
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)

    def source(self) -> str:
        """Return the source."""
        text: str = self.currentText().strip()
        return text

    def choose(self, source: str) -> None:
        """Choose a source and add it to the list."""
        self.add_source(source)
        self.setCurrentText(source)
        # Show the end of a long path.
        self.lineEdit().end(False)

    def add_source(self, source: str) -> None:
        """Add a source to the list."""
        if self.findText(source) < 0:
            typed = self.currentText()
            self.blockSignals(True)
            self.addItem(source)
            self.setEditText(typed)
            self.blockSignals(False)


class OpenButton(QPushButton):
    """Opens a dialog for a file or a folder, and chooses it in the field."""

    def __init__(self, network: NetworkField) -> None:
        super().__init__("Open…")
        self._network = network
        menu = QMenu(self)
        menu.addAction("Card, Python file or .pt2…", self.open_file)
        menu.addAction("Folder of a MONAI bundle…", self.open_folder)
        self.setMenu(menu)

    def open_file(self) -> None:
        """Open a dialog for a card (.toml), a Python file or an exported network (.pt2)."""
        path, _ = QFileDialog.getOpenFileName(self, "Open network", "", FILES)
        if path:
            self._network.choose(path)

    def open_folder(self) -> None:
        """Open a dialog for the folder of a MONAI bundle."""
        path = QFileDialog.getExistingDirectory(self, "Open MONAI bundle")
        if path:
            self._network.choose(path)


def confirm_trust(parent: QWidget, error: Untrusted) -> bool:
    """Return whether the user allows code to run, in a dialog; store the permission in `TRUSTED`."""
    yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
    text = f"{error.source} {error.why}: do you trust its origin?"
    confirmed = bool(QMessageBox.question(parent, "Run code?", text, yes | no, no) == yes)
    if confirmed:
        TRUSTED.add(str(error.source))
    return confirmed


@dataclass(frozen=True)
class ModelSpec:
    """Source and settings of a network.

    Attributes
    ----------
    source : str
    settings : dict
        Settings of `camanim.load_model`.
    """

    source: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def from_files(self) -> bool:
        """Whether any part is read from a file, which can change while napari is open."""
        weights = self.settings.get("weights")
        return (
            not has_prefix(self.source)
            or "classes" in self.settings
            or not (weights is None or published_name(weights))
        )


class Networks:
    """Loads networks and caches the last one."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self._spec: ModelSpec | None = None

    def load(self, spec: ModelSpec, progress: Progress) -> Model:
        """Return a network, from the cache if it was the last one.

        Raises
        ------
        Untrusted
            If the source contains code that the user has not allowed to run.
        ModelError
            See `camanim.load_model`.
        """
        if self.model is not None and self._spec == spec:
            return self.model
        self.release()
        progress("load", 0, 0)
        model = _load(spec, progress)
        if not spec.from_files:
            self.model, self._spec = model, spec
        return model

    def release(self) -> None:
        """Remove the network from the cache."""
        self.model = self._spec = None


def _load(spec: ModelSpec, progress: Progress) -> Model:
    try:
        return camanim.load_model(spec.source, **spec.settings, progress=progress)
    except Untrusted as error:
        if str(error.source) not in TRUSTED:
            raise
    return camanim.load_model(spec.source, **spec.settings, trust=True, progress=progress)
