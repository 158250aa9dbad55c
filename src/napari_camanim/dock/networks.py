"""The field for the source of a network, and the dialog about trust."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QFileDialog, QMenu, QMessageBox, QPushButton, QWidget
from superqt import QSearchableComboBox

import camanim
from camanim.models import Untrusted
from napari_camanim.work.networks import TRUSTED

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
