"""`WhatIf`: replace regions of an image, and predict again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from camanim.animation import Animation, as_animation
from camanim.declarations import Positive, checked
from camanim.editing.picture import Intensities, edited_picture
from camanim.editing.regions import region_of, superpixels
from camanim.editing.replacement import Edit, InputContext, replacement
from camanim.errors import EditError
from camanim.findings import NO_SAVED_INPUT
from camanim.images import Preprocess
from camanim.pipeline import predict_target, recompute
from camanim.progress import Progress, silent
from camanim.writing import checked_path, write_file

if TYPE_CHECKING:
    import torch
    from torch import nn

    from camanim.editing.effect import Effect, Predicted
    from camanim.layer_selection import Layers
    from camanim.models import Model
    from camanim.result import Result
    from camanim.targets import Kind

Bools = npt.NDArray[np.bool_]


class WhatIf:
    """An image whose regions can be replaced, to see how the network's output changes.

    Regions are replaced in the network's input, so that an edit takes no preprocessing and one forward
    pass. Edits accumulate: each is applied to the input that the edits before it left. Several threads
    must not edit one object at the same time.

    Parameters
    ----------
    result : Result
        Maps of an image or a whole volume, such as an `Animation`; its input, target and settings are
        used. `of_image` needs no maps.
    top : int
        Number of classes that an `Effect` lists, before and after.
    progress : Progress
        Called while the network is prepared, or in use by another thread.

    Attributes
    ----------
    result : Result
        Of the image before the edits.
    notes : list of str
        Assumptions, such as the colours of the picture with a custom preprocessing.

    Raises
    ------
    EditError
        If the result is a plane of a volume or was computed window by window, or a setting is wrong.
    CamError
        If the network fails on the image.

    Examples
    --------
    >>> from camanim import load_model, samples
    >>> what_if = WhatIf.of_image(
    ...     load_model("demo/ultrasound"), samples.image("malignant_1")
    ... )  # doctest: +SKIP
    >>> what_if.edit(samples.mask("malignant_1"), "impute")  # doctest: +SKIP
    <Effect: malignant 0.99 -> 0.32; now likeliest: benign 0.39>
    """

    @checked(EditError)
    def __init__(self, result: Result, top: Positive = 5, *, progress: Progress = silent) -> None:
        if result.extremes is not None:
            raise EditError("The result is one plane of a volume: pass that of the whole volume.")
        if result.windows is not None:
            raise EditError(
                "The image was explained window by window, so that there is no single input to edit: "
                "explain a box of it instead."
            )
        if result.tensor.is_meta:
            raise EditError(NO_SAVED_INPUT)
        model, geometry = result.model, result.geometry
        precision = "float32" if result.computed_with is None else result.computed_with[1].precision
        self.result, self.notes = result, list(result.notes)
        self._top, self._forward = top, model.forward(precision)
        tensor = result.tensor.to(model.device, model.dtype)
        slices = len(geometry.size) == tensor.ndim - 1
        self._space = result.image.shape[: len(geometry.size)]
        values = np.asarray((tensor.movedim(1, 0) if slices else tensor[0]).float().cpu())
        if isinstance(model.preprocess, Preprocess):
            self._intensities = Intensities.of_preprocess(model.preprocess)
            black = -self._intensities.shift / self._intensities.factor
        else:
            self._intensities, black = Intensities.fitted(values, result.image, geometry), None
            self.notes.append(
                "The preprocessing is a custom one: the values of edited pixels in the picture are "
                "fitted to the image."
            )
        self._context = InputContext(geometry, slices, _tensor(black, tensor))
        self._inputs, self._edits = [tensor], list[Edit]()
        self._cells: list[Bools] = []
        self._weights: object = None
        self._before: Predicted | None = None
        self._kind: Kind = model.outputs
        self._prepare(progress)

    @classmethod
    def of_image(
        cls,
        model: Model | nn.Module,
        image: Any,
        *,
        target: Any = None,
        method: Any = "GradCAM",
        top: int = 5,
        **settings: Any,
    ) -> WhatIf:
        """Prepare an image without computing maps.

        Parameters
        ----------
        model, image, target, method, **settings
            As for `camanim.animate`; `explain` uses the method and the settings of maps.
        top : int
            As for `WhatIf`.

        Raises
        ------
        CamError
            As of `camanim.animate`.
        """
        result = predict_target(model, image, target, method=method, **settings)
        return cls(result, top, progress=settings.get("progress", silent))

    def __repr__(self) -> str:
        count = len(self._edits)
        edits = f"{count or 'no'} edit{'s' * (count != 1)}"
        return f"<WhatIf: {self.result.target.name}, {self.result.model.name}, {edits}>"

    # -- State -------------------------------------------------------------------------------------

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits, in the order in which they are applied."""
        return tuple(self._edits)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of masks: (H, W), or (Z, Y, X) of a volume."""
        return self._space

    @property
    def tensor(self) -> torch.Tensor:
        """The network's input with all edits, as `Result.tensor`."""
        return self._inputs[-1].detach().cpu().float()

    @property
    def cells(self) -> Bools:
        """The cells of the network's input that were replaced, (*S) bool."""
        replaced = np.zeros(self.result.geometry.size, bool)
        for cells in self._cells:
            replaced |= cells
        return replaced

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """The edited image, uint8, with the shape of `Result.image`.

        A pixel within a replaced cell of the network's input has the value of that cell. The others are
        those of the image, at its resolution.
        """
        values = np.asarray(self._spatial(self.tensor))
        return edited_picture(
            self.result.image, values, self.cells, self.result.geometry, self._intensities
        )

    def write_image(self, path: str | Path) -> Path:
        """Write the edited image to a file, complete or not at all.

        Parameters
        ----------
        path : path-like
            Ends in ``.png``, or in ``.tif`` as it must for a volume.

        Raises
        ------
        RenderError
            If the file cannot be written.
        """
        target = checked_path(path, self.image_suffix(path))
        content = BytesIO()
        if target.suffix.lower() == ".png":
            from PIL import Image

            Image.fromarray(self.image).save(content, "PNG")
        else:
            import tifffile

            colours = self.image.ndim > len(self.shape)
            tifffile.imwrite(content, self.image, photometric="rgb" if colours else "minisblack")
        write_file(target, content.getvalue())
        return target

    def image_suffix(self, path: str | Path) -> str:
        """Return the suffix that a file of the edited image must have."""
        volume = len(self.shape) == 3
        return ".tif" if volume or Path(path).suffix.lower() == ".tif" else ".png"

    # -- Edits -------------------------------------------------------------------------------------

    def edit(
        self,
        mask: Any,
        by: Any = "impute",
        *,
        label: int | None = None,
        progress: Progress = silent,
        **settings: Any,
    ) -> Effect:
        """Replace a region, and return the effect of all edits.

        Parameters
        ----------
        mask : array-like
            (H, W) or (Z, Y, X), bool or integer, in pixels of the image, as for
            `camanim.checks.check_region`. The cells of the network's input of which it covers half are
            replaced, or those that it covers most. An empty mask changes nothing.
        by : {"impute", "blur", "zero", "mean", "paste"}
            See `camanim.editing.Replacement`. ``"impute"`` adds the noise of ROAD and the region test,
            so that the effects agree with those; ``noise=0`` leaves it out. ``"zero"`` is black (the
            lower end of the window), and ``"mean"`` the mean of each channel of this image.
        label : int, optional
            Value of the mask that marks the region; by default any value except 0.
        progress : Progress
            Called while another thread uses the network.
        **settings
            Further fields of `camanim.editing.Replacement`, such as ``offset=(0, 40)``.

        Returns
        -------
        Effect

        Raises
        ------
        EditError
            If the mask or a setting is wrong, or the region cannot be replaced in this way. The edits
            are then as before.
        CamError
            If the network fails on the edited image; likewise.
        """
        way = replacement(by, settings)
        pixels, cells = region_of(mask, label, self.shape, self.result.geometry)
        spatial = self._spatial(self._inputs[-1])
        replaced = way.apply(spatial, cells, self._context)
        tensor = replaced.movedim(1, 0).contiguous() if self._context.slices else replaced[None]
        effect = self._effect(tensor, progress)
        self._inputs.append(tensor)
        self._cells.append(cells)
        self._edits.append(Edit.of(way, pixels, cells))
        return effect

    def predict(self, *, progress: Progress = silent) -> Effect:
        """Return the effect of all edits on the network's output.

        Raises
        ------
        CamError
            If the network fails on the edited image.
        """
        return self._effect(self._inputs[-1], progress)

    def undo(self) -> Edit | None:
        """Undo the last edit and return it; None if there is none."""
        if not self._edits:
            return None
        self._inputs.pop()
        self._cells.pop()
        return self._edits.pop()

    def clear(self) -> None:
        """Undo all edits."""
        while self.undo() is not None:
            pass

    def explain(
        self,
        *,
        target: Any = None,
        method: str | None = None,
        layers: Layers | None = None,
        progress: Progress = silent,
    ) -> Animation:
        """Compute the maps of the edited image.

        Parameters
        ----------
        target : object, optional
            As for `camanim.animate`, resolved on the edited image; by default the target of `result`.
        method : str, optional
            Replaces the method of `result`, with the defaults of its options.
        layers : optional
            Replaces the selection of layers.
        progress : Progress

        Returns
        -------
        Animation
            With the edits in its notes and in ``provenance["edits"]``.

        Raises
        ------
        ScoreError
            If the result was not computed by `camanim.animate`.
        CamError
            As of `camanim.animate`.
        """
        edits = self.edits
        record = {"edits": [edit.describe() for edit in edits]} if edits else {}
        edited = replace(
            self.result,
            tensor=self.tensor,
            image=self.image,
            provenance=self.result.provenance | record,
        )
        explained = recompute(
            edited,
            targets=None if target is None else [target],
            method=method,
            layers=layers,
            progress=progress,
        )[0]
        if edits:
            listed = "; ".join(map(str, edits))
            explained.notes.insert(0, f"The image was edited: {listed}.")
        return as_animation(explained)

    def superpixels(
        self, count: int = 100, *, compactness: float | None = None
    ) -> npt.NDArray[np.int32]:
        """Return superpixels of the image before the edits; see `camanim.editing.superpixels`."""
        return superpixels(
            self.result.image,
            count,
            compactness=compactness,
            space="volume" if len(self.shape) == 3 else "image",
        )

    # -- Predictions -------------------------------------------------------------------------------

    def _prepare(self, progress: Progress) -> None:
        """Predict the image before the edits, and load what the first edit would wait for."""
        from camanim.models.fitting import fitting_images

        tensor = self._inputs[0]
        progress("prepare", 0, 0)
        count = len(tensor)
        fitting_images(self.result.model, tensor, count, gradients=False, at_least=count)
        self._effect(tensor, progress)
        self._warm_up()

    def _warm_up(self) -> None:
        """Impute a pixel: the first imputation loads, or compiles, its loops."""
        import torch

        from camanim.road import MultigridImputer

        space = self._inputs[0].ndim - 2
        image = torch.zeros((1, *[3] * space), device=self._inputs[0].device)
        kept = torch.ones_like(image, dtype=torch.bool)
        kept.view(-1)[0] = False
        MultigridImputer()(image, kept)

    def _spatial(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return an input as (C, *S)."""
        return tensor.movedim(1, 0) if self._context.slices else tensor[0]

    def _effect(self, tensor: torch.Tensor, progress: Progress) -> Effect:
        from camanim.editing.effect import effect_of
        from camanim.exclusive import exclusively

        waiting = partial(progress, "wait", 0, 0)
        before, after = exclusively(self._forward.net, partial(self._predicted, tensor), waiting)
        return effect_of(self.result.target, before, after, self._top)

    def _predicted(self, tensor: torch.Tensor) -> tuple[Predicted, Predicted]:
        """Return what the network predicts before the edits, and for an input."""
        from camanim.models.fingerprint import fingerprint

        original = self._inputs[0]
        with self._forward.evaluating(tuple(tensor.shape)):
            weights = fingerprint(self._forward.net)
            if self._before is None or weights is None or weights != self._weights:
                # The network may have been trained since.
                self._before, self._weights = self._read(original, first=True), weights
            if tensor is original:
                return self._before, self._before
            return self._before, self._read(tensor)

    def _read(self, tensor: torch.Tensor, *, first: bool = False) -> Predicted:
        from camanim.editing.effect import read_output
        from camanim.execution.outputs import check_count
        from camanim.models.output_kind import output_kind

        output = self._forward(tensor)
        model = self.result.model
        if first:
            check_count(output, len(tensor))
            self._kind, _ = output_kind(self._forward, tensor, output, model.outputs)
        return read_output(output, self.result.target, model.classes, self._kind)


def _tensor(values: Any, like: torch.Tensor) -> torch.Tensor | None:
    import torch

    return None if values is None else torch.tensor(values).to(like)
