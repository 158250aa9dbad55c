"""Settings of a run: the keywords of `animate`, each declared once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Annotated, Any

from camanim.declarations import Check, Checked, Positive, Seed
from camanim.errors import SettingError
from camanim.images import Fit, Window, is_window
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


def _is_device(value: Any) -> bool:
    # By the name of its module, so that torch is not imported.
    is_known_type = isinstance(value, str) or type(value).__module__ == "torch"
    return is_known_type and not str(value).startswith("meta")


OPTIONS = Check(_are_options, 'a mapping of options by name, such as {"channels": 64}')
LAYERS = Check(_are_layers, '"unique", "all", "blocks", names, kinds, globs, or a function')
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
            "window": None if self.window is None else [float(v) for v in self.window],
            "layouts": {key: getattr(v, "__name__", str(v)) for key, v in layouts.items()},
        }


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
