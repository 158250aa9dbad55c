"""Commands in napari's command palette and menus, and the keys that are bound while the dock is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from napari.viewer import Viewer

from napari_camanim.plots import navigation
from napari_camanim.session import Session, unwrapped

if TYPE_CHECKING:
    from napari_camanim.dock.widget import CamWidget

PLUGIN, TITLE = "napari-camanim", "CAManim"


def dock(viewer: Viewer) -> CamWidget:
    """Return the dock widget of a viewer; open it if it is closed."""
    widget: CamWidget
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, TITLE)
    return widget


def run(viewer: Viewer) -> None:
    """Explain the active image."""
    widget = dock(viewer)
    if not widget.runner.running:
        widget.run()


def cancel(viewer: Viewer) -> None:
    """Cancel what is running, and keep what was computed."""
    dock(viewer).explainer.cancel()


def run_or_cancel(viewer: Viewer) -> None:
    """Explain the active image, or cancel what is running."""
    dock(viewer).run_or_cancel()


def next_best_layer(viewer: Viewer) -> None:
    """Go to the next layer by the first finding with values; after the worst one, to the best one."""
    session = Session.of(viewer)
    stack, animation = session.current, session.animation
    if stack is None or animation is None:
        show_info("There are no maps: press Run first.")
        return
    for finding in animation.findings.values():
        index = navigation.next_best(finding, session.index, among=stack.data.indices)
        if index is not None:
            session.go_to(index)
            return
    show_info("No layer has a score: check Score every layer (ROAD), and press Run.")


def next_stage(viewer: Viewer) -> None:
    """Go to the first layer of the next stage of the network; after the last stage, to the first."""
    session = Session.of(viewer)
    stack, animation = session.current, session.animation
    if stack is None or animation is None:
        show_info("There are no maps: press Run first.")
        return
    layers, shown = animation.layers, stack.data.indices
    index = navigation.next_stage(layers, session.index, among=shown)
    if index is None:
        index = navigation.next_stage(layers, None, among=shown)
    if index is not None:
        session.go_to(index)


def show_scores(viewer: Viewer) -> None:
    """Show the panel of scores below the canvas."""
    from napari_camanim.plots.panel import show_panel

    show_panel(viewer)


def toggle_normalization(viewer: Viewer) -> None:
    """Switch between a scale for each layer and a common one."""
    session = Session.of(viewer)
    if session.current is not None:
        is_local = session.current.data.normalization == "local"
        session.set_normalization("global" if is_local else "local")


def toggle_signed(viewer: Viewer) -> None:
    """Show negative evidence, too, or only positive evidence."""
    session = Session.of(viewer)
    if session.current is not None:
        session.set_signed(not session.current.data.signed)


def toggle_badge(viewer: Viewer) -> None:
    """Show all facts about the map on the canvas, or one line."""
    from napari_camanim.canvas.badge import Badge

    badge = Badge.on(Session.of(viewer))
    if badge is not None:
        badge.whole = not badge.whole


def toggle_live(viewer: Viewer) -> None:
    """Run again whenever slice, class, method or network change, or no longer."""
    widget = dock(viewer)
    widget.live.value = not widget.live.value


def export_movie(viewer: Viewer) -> None:
    """Choose a file and write a movie of the current stack."""
    dock(viewer).saving.choose("movie")


def save_result(viewer: Viewer) -> None:
    """Choose a file and write the result of the current stack, which opens again."""
    dock(viewer).saving.choose("result")


def save_table(viewer: Viewer) -> None:
    """Choose a file and write the table of the layers of the current stack."""
    dock(viewer).saving.choose("table")


def save_report(viewer: Viewer) -> None:
    """Choose a file and write the report of the current stack, one HTML page."""
    dock(viewer).saving.choose("report")


def open_result(viewer: Viewer) -> None:
    """Choose a saved result and open it over its image."""
    dock(viewer).saving.choose_and_open()


def record_canvas(viewer: Viewer) -> None:
    """Choose a file and record the canvas as it is seen, at every layer of the current stack."""
    dock(viewer).saving.choose_and_record()


#: Keys that are bound while the dock is open; napari lists them with the docstrings.
KEYS: Mapping[str, Callable[[Viewer], None]] = {
    "Alt-R": run_or_cancel,
    "Alt-B": next_best_layer,
    "Alt-G": next_stage,
    "Alt-N": toggle_normalization,
    "Alt-M": toggle_signed,
    "Alt-D": toggle_badge,
}


def bind_keys(viewer: Any) -> list[str]:
    """Bind the keys that are free, and return them."""
    bound = []
    keymap = unwrapped(viewer).keymap
    for key, command in KEYS.items():
        before = set(keymap)
        if not any(str(known).replace("+", "-").lower() == key.lower() for known in before):
            viewer.bind_key(key, command)
            bound.append(key)
    return bound


def unbind_keys(viewer: Any, keys: list[str]) -> None:
    """Undo `bind_keys`."""
    for key in keys:
        viewer.bind_key(key, None)
