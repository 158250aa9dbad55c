"""Target functions: the scalar of a network's output that maps explain.

Classes, contrasts, segmentations, detections, embeddings, and any function of the output.
"""

from camanim.targets.base import Kind, Target
from camanim.targets.choosing import against_nearest, likeliest, resolve, resolve_all
from camanim.targets.classes import ClassTarget
from camanim.targets.context import class_name
from camanim.targets.contrasts import Contrast, FinerTarget
from camanim.targets.detection import Detection
from camanim.targets.embedding import Norm, Similarity
from camanim.targets.functions import Counterfactual, FunctionTarget
from camanim.targets.outputs import class_scores, probabilities
from camanim.targets.segmentation import Segmentation

__all__ = [
    "ClassTarget",
    "Contrast",
    "Counterfactual",
    "Detection",
    "FinerTarget",
    "FunctionTarget",
    "Kind",
    "Norm",
    "Segmentation",
    "Similarity",
    "Target",
    "against_nearest",
    "class_name",
    "class_scores",
    "likeliest",
    "probabilities",
    "resolve",
    "resolve_all",
]
