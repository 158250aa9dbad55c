"""Settings of a run: the keywords of `animate`, each declared once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from numbers import Integral
from typing import Annotated, Any, Literal

from camanim.declarations import Check, Checked, Positive, Range, Seed
from camanim.errors import SettingError
from camanim.images import Fit, Window, is_box, is_window
from camanim.layer_selection import Layers
from camanim.layout import Override
from camanim.precision import Precision
from camanim.progress import Progress, silent


def _are_options(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _are_layers(value: Any) -> bool:
    return callable(value) or isinstance(value, Iterable)


def _are_layouts(value: Any) -> bool:
    return _are_options(value) and all(isinstance(v, str) or callable(v) for v in value.values())


def _is_size(value: Any) -> bool:
    sides = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    counts = (isinstance(n, Integral) and not isinstance(n, bool) and int(n) > 0 for n in sides)
    return bool(sides) and all(counts)


def _is_device(value: Any) -> bool:
    # By the name of its module, so that torch is not imported.
    is_known_type = isinstance(value, str) or type(value).__module__ == "torch"
    return is_known_type and not str(value).startswith("meta")


Blending = Literal["gaussian", "constant"]

OPTIONS = Check(_are_options, 'a mapping of options by name, such as {"channels": 64}')
LAYERS = Check(_are_layers, '"unique", "all", "blocks", names, kinds, globs, or a function')
BOX = Check(is_box, "(y0, x0, y1, x1), or (z0, y0, x0, z1, y1, x1) of a volume, lower ends first")
SIZE = Check(_is_size, "a positive integer, or one for each axis")
WINDOW = Check(is_window, "two finite numbers, the lower one first")
LAYOUTS = Check(_are_layouts, 'a mapping of layouts by layer, such as {"blocks.*": "tokens:1"}')
DEVICE = Check(_is_device, 'a device that computes, such as "cpu", "cuda:0" or "mps"')
PROGRESS = Check(callable, "a function of stage, done and total")


@dataclass(frozen=True)
class Settings(Checked):
    """Settings of a run: the keywords of `animate`.

    Attributes
    ----------
    options : mapping
        Options of the method, such as ``{"channels": 64}``; see ``camanim methods``.
    layers : str, predicate or iterable of str
        Layers that get a map: ``"unique"`` (each output once), ``"all"``, ``"blocks"``, a name, a glob
        (``features.*``), a kind (``Conv2d``), several of these, or a predicate of `LayerInfo`.
    fit : {"stretch", "crop", "native"}
        How the image is fitted to the network's input: stretch the whole image, crop the centre as
        torchvision does, or keep the size of the image.
    box : (y0, x0, y1, x1) or (z0, y0, x0, z1, y1, x1), optional
        Region of the image to explain at its full resolution, in pixels; the rest is not read.
    window : (low, high), optional
        Intensities that are mapped to black and white; by default 0 and 1 of floating images, 0 and 255
        of 8-bit ones, and the lowest and highest value of other integers, with a note.
    slices : bool
        Explain every slice of a volume (Z, Y, X) with a 2-D network.
    eigen_smooth : bool
        Show the first principal component of the channels' contributions instead of their sum.
    augment : bool
        Average the maps of six variants of the image: mirrored or not, multiplied by 0.9, 1 and 1.1.
    counterfactual : bool
        Explain the negated score: evidence against the target.
    show_1d : bool
        Show outputs without spatial axes as stripes, one per unit.
    layouts : mapping of str to (str or callable), optional
        Layout of outputs, by glob over layer names: ``"NCHW"``, ``"NHWC"``, ``"tokens"``,
        ``"tokens:2"``, ``"1-D"``, ``"stripes"``, or a function from the output to (B, C, *s).
    batch_size : int
        Images per forward pass, of slices and of methods that run the network repeatedly.
    device : str or torch.device, optional
        Device to compute on, with a copy of the network; by default that of the network. If memory
        runs out, batches are halved, and then the CPU is used; `Animation.notes` records it.
    precision : {"float32", "bfloat16", "float16"}
        Precision of the network's arithmetic (autocast).
    seed : int
        Seed of random methods.
    progress : Progress
        Called as ``progress(stage, done, total)``. If it raises `Cancelled`, the maps computed so far
        are returned (``Animation.cancelled``); without any map, `Cancelled` is raised.

    Raises
    ------
    SettingError
        If a value is of the wrong type or out of range.
    """

    options: Annotated[Mapping[str, Any], OPTIONS] = field(default_factory=dict)
    layers: Annotated[Layers, LAYERS] = "unique"
    fit: Fit = "stretch"
    box: Annotated[Sequence[float] | None, BOX] = None
    window: Annotated[Window | None, WINDOW] = None
    slices: bool = False
    eigen_smooth: bool = False
    augment: bool = False
    counterfactual: bool = False
    show_1d: bool = False
    layouts: Annotated[Mapping[str, Override] | None, LAYOUTS] = None
    batch_size: Positive = 16
    device: Annotated[Any, DEVICE] = None
    precision: Precision = "float32"
    seed: Seed = 0
    progress: Annotated[Progress, PROGRESS] = silent

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.layers, str) and isinstance(self.layers, Iterable):
            # An iterator could be read only once.
            object.__setattr__(self, "layers", list(self.layers))

    def record(self) -> dict[str, Any]:
        """Return the settings that change the result, as plain data."""
        excluded = ("batch_size", "device", "progress")
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in excluded}
        layouts = self.layouts or {}
        return values | {
            "options": dict(self.options),
            "layers": getattr(self.layers, "__name__", str(self.layers)),
            "box": None if self.box is None else [float(v) for v in self.box],
            "window": None if self.window is None else [float(v) for v in self.window],
            "layouts": {key: getattr(v, "__name__", str(v)) for key, v in layouts.items()},
        }


@dataclass(frozen=True)
class WindowSettings(Checked):
    """Settings of the windows of `animate_windows`.

    Attributes
    ----------
    size : int or sequence of int, optional
        Size of the windows in image pixels, one number or one for each axis; by default the size of the
        network's input.
    overlap : float
        Overlap of neighbouring windows, as a fraction of their size; rounded up so that windows begin at
        multiples of the cells of the maps.
    blending : {"gaussian", "constant"}
        Weight of a window where several overlap: highest in its centre (MONAI's Gaussian, with a
        standard deviation of an eighth of the size), or the same everywhere.
    max_cells : int
        Cells of a stitched map above which it is reduced by a whole factor along every axis.

    Raises
    ------
    SettingError
        If a value is of the wrong type or out of range.
    """

    size: Annotated[int | Sequence[int] | None, SIZE] = None
    overlap: Annotated[float, Range(0.0, 0.9)] = 0.25
    blending: Blending = "gaussian"
    max_cells: Positive = 2**23


def checked_settings(keywords: Mapping[str, Any]) -> Settings:
    """Return the keywords of a call as `Settings`.

    Raises
    ------
    SettingError
        If a keyword is unknown, or a value is of the wrong type or out of range.
    """
    known = [f.name for f in fields(Settings)]
    for name in keywords:
        if name not in known:
            near = get_close_matches(name, known, n=2)
            hint = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"choose one of {', '.join(known)}."
            )
            raise SettingError(f"Unknown setting {name!r}: {hint}")
    return Settings(**keywords)
