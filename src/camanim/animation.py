"""`animate`, and the `Animation` that it returns: a result with everything that can be done with it.

The methods are the functions of the modules that do the work, so that signature and documentation stand
once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from camanim import (
    catalogue,  # noqa: F401 (every kind of finding is registered)
    render,
    slicing,
)
from camanim import stack as stacks
from camanim import table as tables
from camanim.checks import label_randomisation, localisation, randomisation
from camanim.findings import Finding, find_kind
from camanim.pipeline import explain
from camanim.result import Result
from camanim.road import measures, scores
from camanim.road.measures import Measure

if TYPE_CHECKING:
    from torch import nn

    from camanim.checks import LabelRandomisation, Localisation, Randomisation
    from camanim.models import Model
    from camanim.road import Road

P = ParamSpec("P")
F = TypeVar("F", bound=Finding)


def _keeping(
    compute: Callable[Concatenate[Result, P], F],
) -> Callable[Concatenate[Animation, P], F]:
    """Make a method that keeps the finding it computes."""

    @wraps(compute)
    def method(self: Animation, *args: P.args, **kwargs: P.kwargs) -> F:
        finding = compute(self, *args, **kwargs)
        self.add(finding)
        return finding

    return cast("Callable[Concatenate[Animation, P], F]", method)


class Animation(Result):
    """The maps of all shown layers of one network for one image and one target; see `Result`.

    Findings are computed by `score`, `measure`, `localise`, `check_randomisation`, `check_labels`, or
    by name with `find`, and stay in `findings`.
    """

    stack = stacks.stack_maps
    plane = slicing.take_plane
    table = tables.table
    write_table = tables.write_table
    write_movie = render.write_movie
    write_picture = render.write_picture
    write_plot = render.write_plot

    score = _keeping(scores.score)
    measure = _keeping(measures.measure)
    localise = _keeping(localisation.localise)
    check_randomisation = _keeping(randomisation.check_randomisation)
    check_labels = _keeping(label_randomisation.check_labels)

    def find(self, name: str, /, **settings: Any) -> Finding:
        """Compute a finding by the name of its kind; it stays in `findings`.

        Parameters
        ----------
        name : str
            One of `camanim.finding_kinds`, such as ``"road"``.
        **settings
            Those of the kind, and ``progress``; ``mask`` where the kind compares with one.

        Returns
        -------
        Finding

        Raises
        ------
        ScoreError
            When there is no such kind, a setting is wrong, or the finding cannot be computed.
        """
        finding = find_kind(name).compute(self, **settings)
        self.add(finding)
        return finding

    @property
    def road(self) -> Road | None:
        """ROAD scores of the shown layers, once `score` was called."""
        return self.findings.get("road")  # type: ignore[return-value]

    @property
    def localisation(self) -> Localisation | None:
        """Agreement with a mask, once `localise` was called."""
        return self.findings.get("localisation")  # type: ignore[return-value]

    @property
    def randomisation(self) -> Randomisation | None:
        """How the maps change with shuffled weights, once `check_randomisation` was called."""
        return self.findings.get("randomisation")  # type: ignore[return-value]

    @property
    def labels(self) -> LabelRandomisation | None:
        """How the maps change with the class, once `check_labels` was called."""
        return self.findings.get("label_randomisation")  # type: ignore[return-value]

    @property
    def measures(self) -> dict[str, Measure]:
        """Other measures, by label, such as "deletion (blur)"; see `measure`."""
        return {key: f for key, f in self.findings.items() if isinstance(f, Measure)}


def animate(
    model: Model | nn.Module,
    image: Any,
    *,
    method: Any = "GradCAM",
    target: Any = None,
    **settings: Any,
) -> Animation:
    """Compute the class activation maps of all layers, by most methods in one forward and backward.

    Parameters
    ----------
    model : Model or torch.nn.Module
        See `camanim.load_model` and `camanim.Model`; a bare network is taken with the defaults of
        `Model`.
    image : array-like
        (H, W), (H, W, 3) or (H, W, 4), of any number type; numpy, dask, PIL. A volume (Z, Y, X) for a
        3-D network, or for a 2-D one with ``slices=True``.
    method : str, function or class
        One of `camanim.methods`, such as ``"GradCAM"``; a function of your own, or a subclass of
        grad-cam's ``BaseCAM`` (see docs/my-own-cam.md).
    target : int, str, Target, callable or None
        What is explained: a class by number or name, a contrast ``"cat - dog"``, one of
        `camanim.targets`, any function of the network's output; by default the likeliest class.
    **settings
        Those of `Settings`: ``options``, ``layers``, ``fit``, ``window``, ``slices``, ``eigen_smooth``,
        ``augment``, ``counterfactual``, ``show_1d``, ``layouts``, ``batch_size``, ``device``,
        ``precision``, ``seed``, ``progress``.

    Returns
    -------
    Animation

    Raises
    ------
    CamError
        One of its kinds, each with one sentence that says what is wrong and what to do. The network
        comes back as it was in any case.

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
    """Explain several targets of one image: one forward, and a backward for each.

    Parameters
    ----------
    model, image, method, **settings
        As for `animate`.
    targets : sequence
        Each as for `animate`.

    Returns
    -------
    list of Animation
        In the order of `targets`; fewer where the run was cancelled.

    Raises
    ------
    CamError
    """
    results = explain(model, image, targets, method=method, **settings)
    return [Animation(**{f.name: getattr(r, f.name) for f in fields(r)}) for r in results]
