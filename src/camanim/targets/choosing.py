"""From what the user asked for to a target."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
from camanim.targets.outputs import probabilities
from camanim.targets.segmentation import Segmentation, shares

_OURS = (
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
#: grad-cam's targets that have a counterpart with a name and a probability.
_GRAD_CAM: dict[str, dict[str, Any]] = {
    "ClassifierOutputTarget": {},
    "ClassifierOutputSoftmaxTarget": {"of": "probability"},
}


def resolve(
    request: Any, output: Any, classes: Sequence[str] | None = None, kind: Kind = "auto"
) -> Target:
    """Turn what the user asked for into a target.

    Parameters
    ----------
    request : object
        - None: the likeliest class (over all images of a batch), the class that covers most pixels apart
          from the background, the surest detection, or the first value of a regression;
        - int: a class, negative ones count from the end;
        - str: a class by name (its exact name goes before a number, and that before a name in other
          letters), or two as ``"cat - dog"`` or ``"cat vs dog"``;
        - a target of `camanim.targets`, or any object with a `score`;
        - a target of grad-cam, which is called for each image's part of the output;
        - any other callable, which gets the whole output and gives (B,), or a number for one image.
    output : object
        Whatever the network gave for the image, or for all slices of a volume.
    classes : sequence of str or None
    kind : {"auto", "softmax", "sigmoid", "values"}
        What the network's scores are.

    Raises
    ------
    TargetError
        When there is no such class, or the output has none.
    """
    context = _context(output, classes, kind)
    if isinstance(request, str):
        request = _contrast(request, context)
    if isinstance(request, ClassTarget):
        request = _for_output(request, context)
    if isinstance(request, _OURS):
        return request.bound(context)
    if hasattr(request, "score") and not isinstance(request, type):
        return _foreign(request)
    if _is_grad_cams(request):
        return _from_grad_cam(request, context)
    if callable(request):
        return FunctionTarget(request)
    return _class(request, context)


def likeliest(
    output: Any, classes: Sequence[str] | None = None, kind: Kind = "auto", k: int = 5
) -> list[tuple[int, str, float]]:
    """List the k likeliest classes as (index, name, probability), likeliest first.

    Means over all images of a batch. A single logit has two classes. For networks that score each pixel
    it is the share of pixels that a class is predicted on; for networks that detect, the highest score
    of each class found; for plain values, the first k values in their order.

    Raises
    ------
    TargetError
        When the output has no classes.
    """
    context = _context(output, classes, kind)
    if context.detections is not None:
        found = list(detected_classes(context.detections).items())
    elif kind == "values":
        found = list(
            enumerate(as_float64(context.scores).transpose(0, 1).flatten(1).mean(1).tolist())
        )
    elif context.over_space:
        found = sorted(enumerate(shares(context.scores, kind)), key=lambda pair: -pair[1])
    else:
        mean = probabilities(context.scores, kind).mean(0)
        found = sorted(enumerate(mean.tolist()), key=lambda pair: -pair[1])
        # First what is explained by default, also where others have rounded to the same probability.
        first = context.likeliest()
        found.sort(key=lambda pair: pair[0] != first)
    return [(index, context.name(index), value) for index, value in found[: max(k, 0)]]


def against_nearest(
    target: Target, output: Any, alpha: float = 1.0, nearest: int = 3, weighted: bool = True
) -> Target:
    """Set a resolved class against its nearest classes in this output, as Finer-CAM does.

    Raises
    ------
    TargetError
        When the target is no class by its logit.
    """
    if isinstance(target, Counterfactual):
        return Counterfactual(against_nearest(target.target, output, alpha, nearest, weighted))
    kind: Kind = getattr(target, "kind", "auto")
    return FinerTarget(target, alpha, nearest, weighted).bound(_context(output, None, kind))


def _context(output: Any, classes: Sequence[str] | None, kind: Kind) -> Context:
    def ask(request: Any) -> Target:
        return resolve(request, output, classes, kind)

    return Context(output, classes, kind, ask)


def _class(request: Any, context: Context) -> Target:
    return _for_output(ClassTarget(request), context).bound(context)


def _for_output(target: ClassTarget, context: Context) -> ClassTarget | Segmentation | Detection:
    """Return a class as a target of networks that detect or score each pixel, where it is of one."""
    if context.detections is not None:
        return Detection(target.index, name=target.name)
    if context.over_space:
        return Segmentation(target.index, name=target.name, kind=target.kind, of=target.of)
    return target


def _contrast(text: str, context: Context) -> Any:
    """Read "A - B" and "A vs B" as a contrast, where it is not itself the name of a class."""
    if context.is_class(text):
        return text
    for sign in re.finditer(r" - | vs\.? ", text):
        first, second = text[: sign.start()].strip(), text[sign.end() :].strip()
        if context.is_class(first) and context.is_class(second):
            return Contrast(first, second)
    return text


def _foreign(request: Any) -> Target:
    """Complete a target of the user's own."""
    if all(hasattr(request, part) for part in ("name", "index", "unit", "value", "describe")):
        own: Target = request
        return own
    name = getattr(request, "name", None) or type(request).__name__
    worth = getattr(request, "value", None)
    return FunctionTarget(request.score, name, worth=worth, unit=getattr(request, "unit", "score"))


def _is_grad_cams(request: Any) -> bool:
    origins = [request, *type(request).__mro__]
    modules = [str(getattr(origin, "__module__", "")) for origin in origins]
    return callable(request) and any(m.split(".")[0] == "pytorch_grad_cam" for m in modules)


def _from_grad_cam(request: Any, context: Context) -> Target:
    if isinstance(request, type):
        raise TargetError(f"Pass an instance: {request.__name__}(...).")
    counterpart = _GRAD_CAM.get(type(request).__name__)
    plain = type(request).__module__ == "pytorch_grad_cam.utils.model_targets"
    if (
        plain
        and counterpart is not None
        and context.kind in ("auto", "softmax")
        and context.detections is None
        # The sole score of its class 0 is that of our class 1.
        and not context.single_logit
        and not context.over_space
    ):
        return ClassTarget(request.category, **counterpart).bound(context)
    return FunctionTarget(request, type(request).__name__, per_item=True)
