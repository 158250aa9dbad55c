"""The layer that shows the maps of a run (a stack), and its lazy data.

A stack has the axes of its image after a first axis `layer`. If the explained region is a slice, or the
volume along the last three axes, the stack has length 1 along the other axes, and is translated to the
position of the region.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image
from napari.utils.colormaps import AVAILABLE_COLORMAPS

from camanim.stack import is_basic_index
from napari_camanim.layers.metadata import KEY, CamMetadata, metadata
from napari_camanim.layers.placement import placement, with_layer_axis
from napari_camanim.layers.run import Run
from napari_camanim.preferences import Preferences, preferences

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.utils import Colormap

    from camanim import Animation
    from camanim.stack import Normalization
    from napari_camanim.layers.views import Region

#: Memory of the planes that a stack keeps, in bytes.
KEPT = 2**26


class StackData:
    """Lazy array of a stack with all axes of its layer, and the run.

    Parameters
    ----------
    run : Run
    normalization : {"local", "global"}
    signed : bool
        Whether negative evidence is shown: values in [-1, 1] instead of [0, 1].
    indices : sequence of int, optional
        Indices of the shown layers of the animation, in ascending order; by default all.

    Attributes
    ----------
    axes : tuple of bool
        For each axis of the image, whether the maps extend along it (True) or it has length 1.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        run: Run,
        normalization: Normalization,
        *,
        signed: bool = False,
        indices: Sequence[int] | None = None,
    ) -> None:
        self.run = run
        self.normalization = normalization
        self.signed = signed
        everything = range(len(run.animation))
        self.indices = tuple(everything if indices is None else indices)
        self.axes = tuple(axis in run.region.axes for axis in range(len(run.region.shape)))
        self._stack = run.animation.stack(normalization, signed=signed)
        lengths = iter(self._stack.shape[1:])
        sides = zip(self.axes, run.region.lengths, strict=True)
        self.shape = (len(self.indices), *(next(lengths) if a else n for a, n in sides))
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape))
        self._insert = tuple(i + 1 for i, along in enumerate(self.axes) if not along)
        #: Planes that were shown last, so that a step back costs no computation.
        self._planes: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    @property
    def animation(self) -> Animation:
        """The result."""
        return self.run.animation

    @property
    def region(self) -> Region:
        """Explained region of the image."""
        return self.run.region

    @cached_property
    def peaks(self) -> npt.NDArray[np.float64]:
        """Highest value of each layer's map, as a share of the highest of all layers."""
        highest = np.array([self.animation.highest(i) for i in range(len(self.animation))])
        top = highest.max(initial=0)
        return highest / top if top > 0 else np.zeros_like(highest)

    def limits(self, index: int) -> tuple[float, float]:
        """Return the raw values that are shown as 0 and 1 in a map of the animation.

        Of signed maps, 0 is 0, and the second value is that of 1; its negative is that of -1.
        """
        return self._stack.limits(index)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if parts and len(parts) <= self.ndim and all(is_basic_index(part) for part in parts):
            # The indexing of napari, which computes only the displayed planes.
            return self._section((*parts, *[slice(None)] * (self.ndim - len(parts))))
        planes = np.expand_dims(np.asarray(self._stack[list(self.indices)]), self._insert)
        return np.broadcast_to(planes, self.shape)[key]

    def _section(self, parts: tuple[Any, ...]) -> Any:
        """Return a section by an integer or a slice along every axis."""
        along = (True, *self.axes)
        first = np.asarray(self.indices)[parts[0]]
        layer = [int(i) for i in first] if isinstance(parts[0], slice) else int(first)
        rest = [p for p, a in zip(parts[1:], self.axes, strict=True) if a]
        section = self._plane(layer, rest)
        new_axes: list[slice | None] = []
        slices: list[slice] = []
        lengths: list[int] = []
        for part, is_along, length in zip(parts, along, self.shape, strict=True):
            if isinstance(part, slice):
                new_axes.append(slice(None) if is_along else None)
                slices.append(slice(None) if is_along else part)
                lengths.append(-1 if is_along else length)
            elif not is_along:
                # Raises an IndexError outside of the axis, as in numpy.
                range(length)[part]
        section = section[tuple(new_axes)]
        shape = [n if m < 0 else m for n, m in zip(section.shape, lengths, strict=True)]
        return np.broadcast_to(section, shape)[tuple(slices)]

    def _plane(self, layer: int | list[int], rest: list[Any]) -> Any:
        """Return a section of the maps, from those that were shown last where it is a whole plane."""
        numbers = [part for part in rest if not isinstance(part, slice)]
        whole = all(part == slice(None) for part in rest if isinstance(part, slice))
        if isinstance(layer, list) or not whole or rest[: len(numbers)] != numbers:
            return self._stack[(layer, *rest)]
        key = (layer, *map(int, numbers))
        if key in self._planes:
            self._planes.move_to_end(key)
        else:
            plane = self._planes[key] = np.asarray(self._stack[(layer, *rest)])
            while len(self._planes) > max(2, KEPT // plane.nbytes):
                self._planes.popitem(last=False)
        return self._planes[key]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Any:
        return np.asarray(self[:], dtype=dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> StackData:
        # A duplicated layer shares the animation, so that the network is not copied.
        return self.altered()

    def altered(self, **changes: Any) -> StackData:
        """Return the same stack with other parameters; see the class."""
        same = {
            "run": self.run,
            "normalization": self.normalization,
            "signed": self.signed,
            "indices": self.indices,
        }
        return StackData(**{**same, **changes})

    def position_of(self, layer: int) -> int:
        """Return the position along the slider of a layer of the animation, or of the nearest one."""
        return int(np.abs(np.asarray(self.indices) - layer).argmin())


@lru_cache(maxsize=1)
def diverging_colormap() -> Colormap:
    """Return the colormap of signed values: dark at zero, so that the image stays visible."""
    from cmap import Colormap

    return Colormap("berlin").to_napari()


def name_of(run: Run) -> str:
    """Return the name of the layer of a run."""
    return f"{run.image_name} {run.animation.method} {run.animation.target.name}"


def stack_layer(data: StackData, image: Image, about: CamMetadata | None = None) -> Image:
    """Return the layer that shows a run over its image.

    Parameters
    ----------
    data : StackData
    image : napari.layers.Image
        Scale, translation, rotation, shear, affine transform, units and axis labels are copied from it.
    about : CamMetadata, optional
        Metadata of the layer; by default it is computed.

    Returns
    -------
    napari.layers.Image
    """
    about = metadata(data.animation, data.normalization) if about is None else about
    return Image(
        data,
        name=name_of(data.run),
        rgb=False,
        multiscale=False,
        opacity=0.5,
        interpolation2d="nearest",
        metadata={KEY: about},
        **_appearance(data),
        **stack_placement(data, image),
    )


def stack_placement(data: StackData, image: Image) -> dict[str, Any]:
    """Return the transform of a stack to world coordinates, as arguments of a layer."""
    place = placement(data.animation, image, data.region)
    return {
        "scale": (1, *place["scale"]),
        "translate": (0, *place["translate"]),
        "rotate": with_layer_axis(place["rotate"]),
        "shear": with_layer_axis(place["shear"]),
        "affine": with_layer_axis(place["affine"]),
        "units": ("pixel", *place["units"]),
        "axis_labels": ("layer", *place["axis_labels"]),
    }


def _appearance(data: StackData) -> dict[str, Any]:
    if data.signed:
        return {"colormap": diverging_colormap(), "contrast_limits": (-1, 1)}
    name = preferences().colormap
    known = name in AVAILABLE_COLORMAPS
    return {"colormap": name if known else Preferences.colormap, "contrast_limits": (0, 1)}


def guided_layer(run: Run, image: Image) -> Image | None:
    """Return a hidden layer of the guided gradient, summed over channels.

    Parameters
    ----------
    run : Run
    image : napari.layers.Image
        See `stack_layer`.

    Returns
    -------
    napari.layers.Image or None
        None if the method is not a guided one.
    """
    animation = run.animation
    if animation.guided is None:
        return None
    # The batch axis holds the slices of a volume, or a single image.
    pixels = animation.guided.sum(1).numpy().reshape(animation.geometry.size)
    others = tuple(axis for axis in range(image.ndim) if axis not in run.region.axes)
    highest = float(np.abs(pixels).max()) or 1.0
    return Image(
        np.expand_dims(pixels, others),
        name=f"{image.name} guided {animation.target.name}",
        rgb=False,
        multiscale=False,
        visible=False,
        colormap=diverging_colormap(),
        contrast_limits=(-highest, highest),
        interpolation2d="nearest",
        metadata={KEY: {"guided": True, "method": animation.method}},
        **placement(animation, image, run.region),
    )


def is_stack(layer: Layer) -> bool:
    """Return whether a layer shows a run."""
    return isinstance(layer, Image) and KEY in layer.metadata and isinstance(layer.data, StackData)


def is_input(layer: Layer) -> bool:
    """Return whether a layer is an image that was not added by the plugin."""
    return isinstance(layer, Image) and KEY not in layer.metadata


def set_data(stack: Image, data: StackData, about: CamMetadata | None = None) -> None:
    """Show other data in a stack: another run, normalisation or selection of layers."""
    before = stack.data
    stack.data = data
    if data.signed != before.signed:
        for name, value in _appearance(data).items():
            setattr(stack, name, value)
    about = stack.metadata[KEY] if about is None else about
    # A new dictionary, as duplicated layers share theirs.
    updated = {**about, "normalization": data.normalization}
    stack.metadata = {**stack.metadata, KEY: updated}


def set_normalization(stack: Image, normalization: Normalization) -> None:
    """Set the normalisation of a stack without computing the maps again."""
    if stack.data.normalization != normalization:
        set_data(stack, stack.data.altered(normalization=normalization))


def update_metadata(stack: Image) -> None:
    """Update the metadata of a stack after its animation has changed."""
    set_metadata(stack, metadata(stack.data.animation, stack.data.normalization))


def set_metadata(stack: Image, about: CamMetadata) -> None:
    """Set the metadata of a stack."""
    stack.metadata = {**stack.metadata, KEY: about}
