"""Preferences of the plugin, which napari shows in its dialog (``configurations`` of the manifest)."""

from __future__ import annotations

from dataclasses import dataclass, fields

from napari.settings import get_plugin_settings

PLUGIN = "napari-camanim"


@dataclass(frozen=True)
class Preferences:
    """Values of the preferences; an empty text stands for no preference.

    Attributes
    ----------
    network, method, device : str
        First choice of the dock's fields.
    colormap : str
        Colormap of new stacks.
    cache_folder : str
        Folder of the files that are kept between sessions.
    """

    network: str = ""
    method: str = ""
    device: str = ""
    colormap: str = "turbo"
    cache_folder: str = ""


def preferences() -> Preferences:
    """Return the preferences; the defaults where napari does not know the plugin."""
    try:
        section = get_plugin_settings(PLUGIN).defaults
    except KeyError:
        # As a library, without the plugin's manifest.
        return Preferences()
    values = {field.name: getattr(section, field.name, "") for field in fields(Preferences)}
    return Preferences(**{name: str(value) for name, value in values.items() if value})
