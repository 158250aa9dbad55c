"""The raw maps of all layers, by whatever a method asks of the network."""

from camanim.maps.make import make_maps
from camanim.maps.recipe import Made, Maps, Recipe, selected_maps

__all__ = ["Made", "Maps", "Recipe", "make_maps", "selected_maps"]
