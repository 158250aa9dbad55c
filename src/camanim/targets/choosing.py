"""Resolve a request (None, a class, a name, a target, a callable) to a target."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from camanim.errors import TargetError
from camanim.precision import as_float64
from camanim.targets.base import Kind, Target
from camanim.targets.classes import ClassTarget
from camanim.targets.context import Context
from camanim.targets.contrasts import Contrast, FinerTarget
from camanim.targets.detection import Detection, detected_classes
from camanim.targets.embedding import Norm, Similarity
from camanim.targets.functions import Counterfactual, FunctionTarget
from camanim.targets.outputs import PROBABILITIES, probabilities
from camanim.targets.segmentation import Segmentation, class_fractions

_TARGET_CLASSES = (
    ClassTarget,
    Contrast,
    Counterfactual,
    Detection,
    FinerTarget,
    FunctionTarget,
    Norm,
    Segmentation,
    Similarity,
)
#: grad-cam's targets with an equivalent `ClassTarget`, and its keywords.
_GRAD_CAM: dict[str, dict[str, Any]] = {
    "ClassifierOutputTarget": {},
    "ClassifierOutputSoftmaxTarget": {"of": "probability"},
}


def resolve(
    request: Any, output: Any, classes: Sequence[str] | None = None, kind: Kind = "auto"
) -> Target:
    """Return the target that a request describes.

    Parameters
    ----------
    request : object
        - None: the most probable class (mean over the batch), the class predicted on most pixels except
          the background, the detection with the highest score, or the first value of a regression;
        - int: a class index; negative indices count from the end;
        - str: a class name, or two as ``"cat - dog"`` or ``"cat vs dog"``. An exact name takes
          precedence over a number, and a number over a name that differs in case;
        - a target of `camanim.targets`, or any object with a `score`;
        - a target of grad-cam, which is called with each image's part of the output;
        - any other callable, which maps the whole output to (B,), or to a scalar for a single image.
    output : object
        Network output for the image, or for all slices of a volume.
    classes : sequence of str or None
        Class names.
    kind : {"auto", "softmax", "sigmoid", "values", "probabilities", "independent probabilities"}
        Meaning of the network's scores.

    Raises
    ------
    TargetError
        If the class does not exist, or the output has no class scores.
    """
    context = _context(output, classes, kind)
    if isinstance(request, str):
        request = _contrast(request, context)
    if isinstance(request, ClassTarget):
        request = _for_output(request, context)
    if isinstance(request, _TARGET_CLASSES):
        return request.bind(context)
    if hasattr(request, "score") and not isinstance(request, type):
        return _complete_custom_target(request)
    if _is_grad_cam_target(request):
        return _from_grad_cam(request, context)
    if callable(request):
        return FunctionTarget(request)
    return _class(request, context)


def resolve_all(
    requests: Sequence[Any],
    output: Any,
    classes: Sequence[str] | None = None,
    kind: Kind = "auto",
    *,
    change: Callable[[Target, Any], Target] | None = None,
    counterfactual: bool = False,
) -> list[Target]:
    """Return the targets that several requests describe; see `resolve`.

    Parameters
    ----------
    requests : sequence
    output, classes, kind
        As for `resolve`.
    change : callable, optional
        From a target and the output to the target that a method explains in its place.
    counterfactual : bool
        Return the negatives of the targets.
    """
    targets = [resolve(request, output, classes, kind) for request in requests]
    if change is not None:
        targets = [change(target, output) for target in targets]
    return [Counterfactual(target) for target in targets] if counterfactual else targets


def likeliest(
    output: Any, classes: Sequence[str] | None = None, kind: Kind = "auto", k: int = 5
) -> list[tuple[int, str, float]]:
    """Return the k most probable classes as (index, name, probability), in descending order.

    Probabilities are means over the batch; a single logit has two classes. For segmentations they are
    the fractions of pixels on which each class is predicted, and for detections the highest score of
    each detected class. Regressions have the first k values, in order.

    Raises
    ------
    TargetError
        If the output has no class scores.
    """
    context = _context(output, classes, kind)
    if context.detections is not None:
        ranked = list(detected_classes(context.detections).items())
    elif context.kind == "values":
        means = as_float64(context.scores).transpose(0, 1).flatten(1).mean(1)
        ranked = list(enumerate(means.tolist()))
    elif context.per_pixel:
        fractions = class_fractions(context.scores, context.kind)
        ranked = sorted(enumerate(fractions), key=lambda pair: -pair[1])
    else:
        mean = probabilities(context.scores, context.kind).mean(0)
        ranked = sorted(enumerate(mean.tolist()), key=lambda pair: -pair[1])
        # The default target comes first, even if other classes round to the same probability.
        first = context.likeliest()
        ranked.sort(key=lambda pair: pair[0] != first)
    return [(index, context.name(index), value) for index, value in ranked[: max(k, 0)]]


def against_nearest(
    target: Target, output: Any, alpha: float = 1.0, nearest: int = 3, weighted: bool = True
) -> Target:
    """Return the contrast of a resolved class with its nearest classes in this output, as in Finer-CAM.

    Raises
    ------
    TargetError
        If the target is not the logit of a class.
    """
    if isinstance(target, Counterfactual):
        return Counterfactual(against_nearest(target.target, output, alpha, nearest, weighted))
    kind: Kind = getattr(target, "kind", "auto")
    return FinerTarget(target, alpha, nearest, weighted).bind(_context(output, None, kind))


def _context(output: Any, classes: Sequence[str] | None, kind: Kind) -> Context:
    return Context(output, classes, kind, lambda request: resolve(request, output, classes, kind))


def _class(request: Any, context: Context) -> Target:
    return _for_output(ClassTarget(request), context).bind(context)


def _for_output(target: ClassTarget, context: Context) -> ClassTarget | Segmentation | Detection:
    """Return the class as a detection or segmentation target if the output is one."""
    if context.detections is not None:
        return Detection(target.index, name=target.name)
    if context.per_pixel:
        return Segmentation(target.index, name=target.name, kind=target.kind, of=target.of)
    return target


def _contrast(text: str, context: Context) -> Any:
    """Parse "A - B" and "A vs B" as a contrast, unless the text is a class name."""
    if context.is_class(text):
        return text
    for sign in re.finditer(r" - | vs\.? ", text):
        first, second = text[: sign.start()].strip(), text[sign.end() :].strip()
        if context.is_class(first) and context.is_class(second):
            return Contrast(first, second)
    return text


def _complete_custom_target(request: Any) -> Target:
    """Return a user-defined target, wrapped in a `FunctionTarget` if it lacks attributes of `Target`."""
    if all(hasattr(request, part) for part in ("name", "index", "unit", "value", "describe")):
        target: Target = request
        return target
    name = getattr(request, "name", None) or type(request).__name__
    value: Any = getattr(request, "value", None)
    unit: Any = getattr(request, "unit", "score")
    return FunctionTarget(request.score, name, value_function=value, unit=unit)


def _is_grad_cam_target(request: Any) -> bool:
    origins = [request, *type(request).__mro__]
    modules = [str(getattr(origin, "__module__", "")) for origin in origins]
    return callable(request) and any(m.split(".")[0] == "pytorch_grad_cam" for m in modules)


def _from_grad_cam(request: Any, context: Context) -> Target:
    if isinstance(request, type):
        raise TargetError(f"target= must be an instance of {request.__name__}, not the class.")
    counterpart = _GRAD_CAM.get(type(request).__name__)
    plain = type(request).__module__ == "pytorch_grad_cam.utils.model_targets"
    kinds: tuple[Kind, ...] = ("auto", "softmax")
    if counterpart == {} and context.kind in PROBABILITIES:
        # grad-cam explains the output as it is.
        kinds, counterpart = PROBABILITIES, {"of": "probability"}
    if (
        plain
        and counterpart is not None
        and context.kind in kinds
        and context.detections is None
        # With a single logit, grad-cam's class 0 is class 1 here.
        and not context.single_logit
        and not context.per_pixel
    ):
        return ClassTarget(request.category, **counterpart).bind(context)
    return FunctionTarget(request, type(request).__name__, per_item=True)
