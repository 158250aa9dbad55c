"""`animate` and `Animation`, the entry points of the package.

Most methods of `Animation` are functions of other modules, which hold their signature and documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from camanim import (
    catalogue,  # noqa: F401 (registers all kinds of findings)
    depth,
    export,
    figures,
    render,
    report,
    slicing,
    store,
)
from camanim import stack as stacks
from camanim import table as tables
from camanim.checks import (
    activation_test,
    label_randomisation,
    layer_test,
    localisation,
    randomisation,
    region_test,
)
from camanim.findings import Finding, find_kind
from camanim.pipeline import explain
from camanim.result import Result
from camanim.road import measures, scores
from camanim.road.measures import Measure
from camanim.settings import Blending
from camanim.windows import explain_windows

if TYPE_CHECKING:
    from torch import nn

    from camanim.checks import LabelRandomisation, Localisation, Randomisation
    from camanim.models import Model
    from camanim.road import Road

P = ParamSpec("P")
F = TypeVar("F", bound=Finding)


def _stored(
    compute: Callable[Concatenate[Result, P], F],
) -> Callable[Concatenate[Animation, P], F]:
    """Return a method that computes a finding and stores it in `findings`."""

    @wraps(compute)
    def method(self: Animation, *args: P.args, **kwargs: P.kwargs) -> F:
        finding = compute(self, *args, **kwargs)
        self.add(finding)
        return finding

    return cast("Callable[Concatenate[Animation, P], F]", method)


class Animation(Result):
    """The maps of all shown layers of one network for one image and one target; see `Result`.

    Findings are computed by `score`, `measure`, `localise`, `check_layers`, `check_activation`,
    `check_region`, `check_randomisation`, `check_labels`, or by name with `find`, and stored in
    `findings`.
    """

    stack = stacks.stack_maps
    plane = slicing.take_plane
    through_depth = depth.through_depth
    table = tables.table
    save = store.save
    to_pandas = export.to_pandas
    to_xarray = export.to_xarray
    write_table = export.write_table
    write_maps = export.write_maps
    write_dicom = export.write_dicom
    write_movie = render.write_movie
    write_picture = render.write_picture
    write_plot = render.write_plot
    figure = figures.draw_figure
    write_figure = figures.write_figure
    write_report = report.write_report
    _repr_html_ = report.notebook_html

    score = _stored(scores.score)
    measure = _stored(measures.measure)
    localise = _stored(localisation.localise)
    check_randomisation = _stored(randomisation.check_randomisation)
    check_labels = _stored(label_randomisation.check_labels)
    check_activation = _stored(activation_test.check_activation)
    check_layers = _stored(layer_test.check_layers)
    check_region = _stored(region_test.check_region)

    def find(self, name: str, /, **settings: Any) -> Finding:
        """Compute a finding by the name of its kind and store it in `findings`.

        Parameters
        ----------
        name : str
            One of `camanim.finding_kinds`, such as ``"road"``.
        **settings
            Settings of the kind, and ``progress``; ``mask`` for kinds that compare with a mask.

        Returns
        -------
        Finding

        Raises
        ------
        ScoreError
            If the kind is unknown, a setting is wrong, or the finding cannot be computed.
        """
        kind = find_kind(name)
        kind.check_names(settings)
        finding = kind.compute(self, **settings)
        self.add(finding)
        return finding

    @property
    def road(self) -> Road | None:
        """ROAD scores of the shown layers; None before `score`."""
        return self.findings.get("road")  # type: ignore[return-value]

    @property
    def localisation(self) -> Localisation | None:
        """Agreement of the maps with a mask; None before `localise`."""
        return self.findings.get("localisation")  # type: ignore[return-value]

    @property
    def randomisation(self) -> Randomisation | None:
        """Similarity to the maps of shuffled weights; None before `check_randomisation`."""
        return self.findings.get("randomisation")  # type: ignore[return-value]

    @property
    def labels(self) -> LabelRandomisation | None:
        """Similarity to the maps of other classes; None before `check_labels`."""
        return self.findings.get("label_randomisation")  # type: ignore[return-value]

    @property
    def measures(self) -> dict[str, Measure]:
        """Other measures by label, such as ``"deletion (blur)"``; see `measure`."""
        return {key: f for key, f in self.findings.items() if isinstance(f, Measure)}


def animate(
    model: Model | nn.Module,
    image: Any,
    *,
    method: Any = "GradCAM",
    target: Any = None,
    **settings: Any,
) -> Animation:
    """Compute class activation maps of all layers, by most methods in one forward and backward pass.

    Parameters
    ----------
    model : Model or torch.nn.Module
        See `camanim.load_model` and `camanim.Model`; a module is wrapped with the defaults of `Model`.
    image : array-like
        (H, W), (H, W, 3) or (H, W, 4), of any number type; numpy, dask, PIL. A volume (Z, Y, X) for a
        3-D network, or for a 2-D network with ``slices=True``. `camanim.open_image` opens
        files, with their window and their place.
    method : str, function or class
        One of `camanim.methods`, such as ``"GradCAM"``; a custom function, or a subclass of grad-cam's
        ``BaseCAM`` (see docs/my-own-cam.md).
    target : int, str, Target, callable or None
        Target function: a class by number or name, a contrast ``"cat - dog"``, one of
        `camanim.targets`, or any function of the network's output; by default the likeliest class.
    **settings
        Fields of `camanim.settings.Settings`, such as ``layers="blocks"`` or ``device="cuda"``.

    Returns
    -------
    Animation

    Raises
    ------
    CamError
        If an argument is wrong or the run fails; see `camanim.errors` for the subclasses. The state of
        the network is restored in every case.

    Examples
    --------
    >>> import numpy as np
    >>> model = load_model("demo/ultrasound")  # doctest: +SKIP
    >>> animation = animate(model, np.zeros((64, 64), np.uint8))  # doctest: +SKIP
    """
    return animate_targets(model, image, [target], method=method, **settings)[0]


def animate_targets(
    model: Model | nn.Module,
    image: Any,
    targets: Sequence[Any],
    *,
    method: Any = "GradCAM",
    **settings: Any,
) -> list[Animation]:
    """Explain several targets of one image with one forward pass, and a backward pass for each.

    Parameters
    ----------
    model, image, method, **settings
        As for `animate`.
    targets : sequence
        Each as `target` of `animate`.

    Returns
    -------
    list of Animation
        In the order of `targets`; fewer if the run was cancelled.

    Raises
    ------
    CamError
        As for `animate`.
    """
    results = explain(model, image, targets, method=method, **settings)
    return [as_animation(result) for result in results]


def animate_windows(
    model: Model | nn.Module,
    image: Any,
    *,
    size: int | Sequence[int] | None = None,
    overlap: float = 0.25,
    blending: Blending = "gaussian",
    max_cells: int = 2**23,
    method: Any = "GradCAM",
    target: Any = None,
    **settings: Any,
) -> Animation:
    """Explain an image that is larger than a network's input, window by window.

    The maps of each layer are stitched at the layer's resolution to maps of the whole image, and so are
    stack, table, movie and layers in napari. Windows are placed as in MONAI's sliding window inference,
    and weighted by its importance map. Raw values are averaged as they are; no window is normalised.

    All windows explain the same target. The class by default is the one with the highest mean
    probability over the windows, as for the slices of a volume; for a segmentation, the class predicted
    on most pixels except the background. This choice takes another forward pass for each window. Name
    the class of a small object, as the mean is that of the background. A classifier explains the class
    in each window, also where it is absent: `Animation.windows` has its probability in each. Windows in
    which a segmentation does not predict the class have maps of 0. Methods that choose further classes
    (FinerCAM) do so in each window.

    Cells of a layer that do not coincide in all windows are resampled by area: in the last windows,
    which end at the edge of the image, and where the cells divide neither step nor image. A note says
    so.

    The image is never in memory as a whole. Memory is that of one window's run, and 4 bytes per cell of
    the maps of all layers and of one set of weights for each size of maps: at most ``4 * max_cells``
    bytes for each layer. The picture has at most 2**24 pixels; of a larger image, every second, third,
    ... along each axis (`Result.placement` places it).

    Parameters
    ----------
    model : Model or torch.nn.Module
        As for `animate`.
    image : array-like
        As for `animate`; of any size: a memory map, dask, zarr, or a list of the levels of a pyramid, of
        which the first is read. Integers other than uint8 are read once before, for their limits, unless
        ``window=`` is given.
    size : int or sequence of int, optional
        Size of the windows in image pixels, one number or one for each axis; by default that of the
        network's input. Other windows are resized to that input, or keep their pixels with
        ``fit="native"``. A smaller image is padded with black, with a note.
    overlap : float
        Overlap of neighbouring windows as a fraction of their size, 0 to 0.9; rounded up so that windows
        begin at multiples of 32 pixels, or a smaller power of two.
    blending : {"gaussian", "constant"}
        Weight of a window where several overlap: highest in its centre, or the same everywhere.
    max_cells : int
        Cells of a stitched map above which it is reduced by a whole factor along every axis.
    method, target
        As for `animate`.
    **settings
        Fields of `camanim.settings.Settings`, except ``slices`` and ``show_1d``; with ``box=``, the
        windows cover this box only. If `progress` raises `Cancelled`, the windows computed so far are
        kept; the maps are 0 elsewhere, with a note, and ``Animation.cancelled`` is True.

    Returns
    -------
    Animation
        Findings that need the network's input, such as ROAD scores, are refused; `localise` is not.

    Raises
    ------
    CamError
        As for `animate`; `SettingError` also where the network has no input size and `size` is None.

    Examples
    --------
    >>> import numpy as np
    >>> model = load_model("demo/ultrasound")  # doctest: +SKIP
    >>> animation = animate_windows(model, np.zeros((500, 900), np.uint8))  # doctest: +SKIP
    >>> animation.windows.values.shape  # doctest: +SKIP
    (5, 10)
    """
    result = explain_windows(
        model,
        image,
        size=size,
        overlap=overlap,
        blending=blending,
        max_cells=max_cells,
        method=method,
        target=target,
        **settings,
    )
    return as_animation(result)


@wraps(store.load)
def load(*args: Any, **kwargs: Any) -> Animation:
    """Open a saved result; see `camanim.store.load`."""
    return as_animation(store.load(*args, **kwargs))


def as_animation(result: Result) -> Animation:
    """Return a result as an `Animation`."""
    return Animation(**{f.name: getattr(result, f.name) for f in fields(result)})
