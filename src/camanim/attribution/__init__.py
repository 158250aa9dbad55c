"""Raw maps of all layers."""

from camanim.attribution.compute import attribute
from camanim.attribution.map_settings import AttributionMaps, Maps, MapSettings, selected_maps

__all__ = ["AttributionMaps", "MapSettings", "Maps", "attribute", "selected_maps"]
