"""What the dock asks for, as plain data that a thread can work on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from camanim.errors import ImageError
from camanim.findings import FindingRequest
from napari_camanim.layers.views import Mask, RegionData, View
from napari_camanim.work.networks import ModelSpec

if TYPE_CHECKING:
    from camanim import Model


@dataclass(frozen=True)
class RunRequest:
    """Contents of the dock when a run was requested.

    Attributes
    ----------
    network : ModelSpec
    view : View
        View of the image.
    slices : bool
        Whether a 2-D network explains every slice.
    targets : list
        Targets to explain, one stack for each.
    method : str
    settings : dict
        Settings of `camanim.animate`.
    findings : list of FindingRequest
        Findings to compute.
    mask : Mask or None
        Mask to compare the maps with.
    windows : dict, optional
        Settings of the windows of `camanim.animate_windows`; by default the image is explained as one.
    """

    network: ModelSpec
    view: View
    slices: bool = False
    targets: list[Any] = field(default_factory=lambda: [None])
    method: str = "GradCAM"
    settings: dict[str, Any] = field(default_factory=dict)
    findings: list[FindingRequest] = field(default_factory=list)
    mask: Mask | None = None
    windows: dict[str, Any] | None = None

    @property
    def is_lazy(self) -> bool:
        """Whether only parts of the slice or volume are read."""
        return self.windows is not None or self.view.box is not None

    def input_for(self, model: Model) -> tuple[RegionData, dict[str, Any]]:
        """Return the part of the image for a network, and the settings of its preprocessing.

        Raises
        ------
        ImageError
            If other channels were chosen than the network takes, or as of `View.read`.
        """
        self._check_channels(model)
        shown = self.view.read(self.space(model))
        return shown, self._preprocessing(model, shown)

    def source_for(self, model: Model) -> tuple[RegionData, dict[str, Any]]:
        """Return the same for a box or for windows, with lazy pixels, and the box as a setting."""
        shown = self.view.source(self.space(model))
        box = self.view.edges(shown.region.axes)
        return shown, self._preprocessing(model, shown) | {"box": box}

    def _check_channels(self, model: Model) -> None:
        view, taken = self.view, getattr(model.preprocess, "channels", None)
        chosen = 1 + len(view.others)
        if view.channel_axis is not None:
            chosen = view.data.shape[view.channel_axis]
        if chosen > 1 and taken is not None and chosen != taken:
            raise ImageError(
                f"The network takes {taken} channels, and {chosen} are chosen: choose as many, or set "
                "Channels to 'as shown'."
            )

    def space(self, model: Model) -> int:
        """Return the number of spatial axes of the explained region."""
        return 3 if self.slices else model.dims

    def _preprocessing(self, model: Model, shown: RegionData) -> dict[str, Any]:
        fit = self.settings.get("fit", "stretch")
        return {"fit": fit, "window": shown.window, "slices": self.slices and model.dims == 2}

    def with_view(self, view: View) -> RunRequest:
        """Return the same request for another view."""
        return replace(self, view=view)

    @property
    def key(self) -> tuple[Any, ...]:
        """What the maps depend on, for comparison; equal requests have equal maps.

        Findings and masks are excluded, and pixels that are changed in place; see `Region.checksum`.
        """
        view = self.view
        # With all slices, the volume along the last three axes is explained.
        inside = range(len(view.index) - 3, len(view.index)) if self.slices else ()
        sliced = tuple(
            at
            for axis, at in enumerate(view.index)
            if axis not in view.displayed and axis not in inside
        )
        place = (
            id(view.data),
            view.displayed,
            sliced,
            view.fixed_range or view.limits,
            view.box,
            view.box_words,
            view.channel_axis,
            tuple((id(data), limits) for data, limits in view.others),
            _frozen(self.windows),
        )
        made = (self.slices, self.method, _frozen(self.settings), _frozen(self.targets))
        return (self.network.source, _frozen(self.network.settings), *place, *made)


def _frozen(value: Any) -> Any:
    """Return a value as a hashable one; objects are compared by their text."""
    if isinstance(value, dict):
        return tuple(sorted((str(key), _frozen(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
