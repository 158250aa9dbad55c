"""The field for the source of a network, and the dialog about trust."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QFileDialog, QMenu, QMessageBox, QToolButton, QWidget

import camanim
from camanim.models import Untrusted
from napari_camanim.dock.search_field import SearchField
from napari_camanim.work.networks import TRUSTED

FILES = "Networks (*.toml *.py *.pt2);;All files (*)"


class NetworkField(SearchField):
    """Lists the networks with a name; other sources can be typed or opened."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_items((name, None) for name in camanim.list_models())
        #: Button with a menu that opens files.
        self.button = QToolButton()
        self.button.setText("…")
        self.button.setMinimumWidth(30)
        self.button.setToolTip("Open a card, a Python file, an exported network or a bundle.")
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.button)
        menu.addAction("Card, Python file or .pt2…", self.open_file)
        menu.addAction("Folder of a MONAI bundle…", self.open_folder)
        self.button.setMenu(menu)
        self.box.currentTextChanged.connect(self._set_tooltip)

    def source(self) -> str:
        """Return the source."""
        return self.value.strip()

    def choose(self, source: str) -> None:
        """Choose a source and add it to the list."""
        self.add_item(source)
        self.value = source
        # Show the end of a long path.
        self.box.lineEdit().end(False)

    def open_file(self) -> None:
        """Open a dialog for a card (.toml), a Python file or an exported network (.pt2)."""
        path, _ = QFileDialog.getOpenFileName(self.native, "Open network", "", FILES)
        if path:
            self.choose(path)

    def open_folder(self) -> None:
        """Open a dialog for the folder of a MONAI bundle."""
        path = QFileDialog.getExistingDirectory(self.native, "Open MONAI bundle")
        if path:
            self.choose(path)

    def _set_tooltip(self, source: str) -> None:
        # Long names are clipped.
        self.tooltip = f"{source}: {self.hint}" if source else self.hint

    hint = (
        "the network to explain; type to search, or enter any source such as timm/NAME or "
        "monai/NAME?spatial_dims=3&in_channels=1&out_channels=2."
    )


def confirm_trust(parent: QWidget, error: Untrusted) -> bool:
    """Return whether the user allows code to run, in a dialog; store the permission in `TRUSTED`."""
    yes, no = QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No
    text = f"{error.source} {error.why}: do you trust its origin?"
    confirmed = bool(QMessageBox.question(parent, "Run code?", text, yes | no, no) == yes)
    if confirmed:
        TRUSTED.add(str(error.source))
    return confirmed
