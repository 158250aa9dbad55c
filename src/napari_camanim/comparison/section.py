"""The section of the dock that computes several runs and shows them side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from magicgui.widgets import LineEdit, PushButton

from camanim.errors import CamError, SettingError
from napari_camanim.comparison.requests import LabelledRequest, variants
from napari_camanim.comparison.usual import compare_normalizations
from napari_camanim.comparison.view import FEWEST, MOST
from napari_camanim.dock.form import Column, Form
from napari_camanim.session import Session
from napari_camanim.work.networks import ModelSpec

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_camanim.work.request import RunRequest

#: Name of the widget with the table of runs in the manifest.
TABLE = "Compare runs"


class CompareSection(Column):
    """Methods, classes and networks to compare, beginning with what the dock has chosen.

    Parameters
    ----------
    viewer : napari.Viewer
    request : callable
        Returns the contents of the dock; None if they are not valid.
    run : callable
        Computes labelled requests and shows their results.
    say : callable
        Shows an error.
    """

    def __init__(
        self,
        viewer: Viewer,
        request: Callable[[], RunRequest | None],
        run: Callable[[list[LabelledRequest]], None],
        say: Callable[[str], None],
    ) -> None:
        self._viewer, self._request, self._run, self._say = viewer, request, run, say
        self.methods = _line("methods", "Methods", "GradCAM, LayerCAM", "Methods, with commas.")
        self.classes = _line("classes", "Classes", "cat; dog", "Classes, with semicolons.")
        self.networks = _line(
            "networks", "Networks", "torchvision/resnet18", "Sources of networks, with commas."
        )
        self.compare = PushButton(
            text="Compare",
            tooltip="Run all combinations, two to six, and show them side by side with one slider.",
        )
        self.scales = PushButton(
            text="Local | global", tooltip="Show the current stack in both scales, side by side."
        )
        self.table = PushButton(
            text="Runs…",
            tooltip="Open the table of runs: sort, rename, pin, remove, compare, subtract.",
        )
        super().__init__(
            [
                Form([self.methods, self.classes, self.networks]),
                self.compare,
                Column([self.scales, self.table], "horizontal"),
            ]
        )
        self.compare.clicked.connect(self._on_compare)
        self.scales.clicked.connect(self._on_scales)
        self.table.clicked.connect(self._on_table)

    def requests(self, request: RunRequest) -> list[LabelledRequest]:
        """Return the requests of all combinations; an empty field stands for what the dock has chosen.

        Raises
        ------
        SettingError
            If there are fewer than two or more than six runs, or one is named twice.
        """
        networks = [ModelSpec(source) for source in _parts(self.networks.value, ",")]
        labelled = variants(
            request,
            methods=_parts(self.methods.value, ","),
            targets=_parts(self.classes.value, ";"),
            networks=networks,
            most=MOST,
        )
        if sum(len(each.request.targets) for each in labelled) < FEWEST:
            raise SettingError("Enter two methods, classes or networks to compare.")
        return labelled

    def _on_compare(self) -> None:
        request = self._request()
        if request is None:
            return
        try:
            labelled = self.requests(request)
        except CamError as error:
            self._say(str(error))
            return
        self._run(labelled)

    def _on_scales(self) -> None:
        stack = Session.of(self._viewer).current
        if stack is None:
            self._say("There is no stack to compare: press Run first.")
            return
        try:
            compare_normalizations(self._viewer, stack)
        except CamError as error:
            self._say(str(error))

    def _on_table(self) -> None:
        self._viewer.window.add_plugin_dock_widget("napari-camanim", TABLE)


def _line(name: str, label: str, example: str, tooltip: str) -> LineEdit:
    line = LineEdit(name=name, label=label, tooltip=f"{tooltip} Empty: what is chosen above.")
    line.native.setPlaceholderText(example)
    return line


def _parts(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]
