"""Shows the panel of scores with the first result, imported in another thread."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any
from weakref import ref

from napari.qt.threading import create_worker

from napari_camanim.session import Session

MODULE = "napari_camanim.plots.panel"


def show_panel_once(session: Session) -> None:
    """Show the panel of scores in the window of a session, unless it was shown before.

    The user may close it. Its import takes longer than the window may be blocked.
    """
    if session.panel_shown or not hasattr(session.viewer, "window"):
        return
    session.panel_shown = True
    if MODULE in sys.modules:
        _show(session)
        return
    weak = ref(session)

    def show(imported: Any) -> None:
        later = weak()
        # The window may have been closed in the meantime, which removes its layers.
        if later is not None and later.stacks:
            _show(later)

    worker: Any = create_worker(import_module, MODULE)
    worker.returned.connect(show)
    worker.start()


def _show(session: Session) -> None:
    from napari_camanim.plots.panel import show_panel

    viewer: Any = session.viewer
    if viewer is not None:
        show_panel(viewer)
