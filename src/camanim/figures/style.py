"""Settings that several figures share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from camanim.declarations import Check, Checked, Range
from camanim.errors import RenderError
from camanim.render.frames import Opacity
from camanim.stack import Normalization

#: Widths of a figure in a journal with two columns of text, in millimetres.
SINGLE, DOUBLE = 85.0, 174.0
Millimetres = Annotated[float, Range(40.0, 1000.0)]
#: Default colour maps, by `signed`. The lightness increases monotonically, or from the middle to both
#: ends, so that colours can be told apart with a colour vision deficiency, and in grey if not signed.
COLORMAPS = {False: "inferno", True: "berlin"}


def _are_layers(value: Any) -> bool:
    items = [value] if isinstance(value, str | int) else value
    return isinstance(items, list | tuple) and all(
        isinstance(item, str | int) and not isinstance(item, bool) for item in items
    )


LAYERS = Check(
    _are_layers,
    'layers by name ("layer1.0.conv1"), index (0) or percentile of the depth ("50%"), separated by '
    "commas or in a list",
)
#: Layers of a figure; empty for those that the figure shows by default.
PickedLayers = Annotated[Any, LAYERS]


@dataclass(frozen=True)
class PlotStyle(Checked, error=RenderError):
    """Settings of all figures.

    Attributes
    ----------
    width : float
        Width in millimetres: 85 for one column of a journal, 174 for both.
    """

    width: Millimetres = SINGLE


@dataclass(frozen=True)
class MapStyle(Checked, error=RenderError):
    """Settings of all figures that show maps.

    Attributes
    ----------
    width : float
        Width in millimetres: 85 for one column of a journal, 174 for both.
    normalization : {"local", "global"}
        Scale each map by its own maximum, or all maps of a result by theirs.
    signed : bool
        Show negative evidence too, in diverging colours.
    colormap : str, optional
        Name of a colour map of ``cmap``; by default inferno, or berlin with ``signed``.
    opacity : float
        Opacity of the map over the image, in [0, 1].
    grey : bool
        Show the image in grey below the maps, so that all hues are those of the colour bar.
    z : int, optional
        Plane of a volume; by default the middle of the range that the maps cover.
    """

    width: Millimetres = DOUBLE
    normalization: Normalization = "local"
    signed: bool = False
    colormap: str | None = None
    opacity: Opacity = 0.5
    grey: bool = True
    z: int | None = None

    @property
    def shown_colormap(self) -> str:
        """Name of the colour map."""
        return self.colormap or COLORMAPS[self.signed]
