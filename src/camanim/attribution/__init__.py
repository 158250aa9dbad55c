"""Raw maps of all layers."""

from camanim.attribution.compute import make_maps
from camanim.attribution.map_settings import AttributionMaps, Maps, MapSettings, selected_maps

__all__ = ["AttributionMaps", "MapSettings", "Maps", "make_maps", "selected_maps"]
