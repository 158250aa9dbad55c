"""Run the methods over the classifiers of torchvision, and count the layers that have a map.

    python docs/make_matrix.py --jobs 2 --every  # all networks and methods, into docs/matrix.md: an hour
    python docs/make_matrix.py resnet18 swin_t    # these networks, to standard output

Without ``--every``, all methods run over the smallest network of each family, and Grad-CAM over the
others. Weights and image are random. The slow tests (``tests/camanim/test_matrix.py``) run the same,
most methods over fewer layers.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import textwrap
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torchvision.models import get_model

import camanim
from camanim.cam_methods import find_method
from camanim.layer_info import Status
from camanim.models.torchvision import CLASSIFIERS

PAGE = Path(__file__).with_name("matrix.md")

#: Side of the image, at which the last feature maps of most networks are two pixels wide.
USUAL_SIZE = 64
#: Networks that need more: a window of MaxViT is 7 x 7 at each scale.
SIZES = {"inception_v3": 75, "maxvit_t": 224}
#: ViTs are built for one size: here that of 4 x 4 patches.
BUILT_FOR = {"vit_b_16": 64, "vit_b_32": 128, "vit_h_14": 56, "vit_l_16": 64, "vit_l_32": 128}

#: The smallest network of each family.
FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet",
    "inception_v3", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
    "regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32", "wide_resnet50_2",
)  # fmt: skip

#: Bounds on the methods that evaluate the network many times.
OPTIONS: dict[str, dict[str, Any]] = {
    "SmoothGradCAM++": {"samples": 1},
    "ScoreCAM": {"channels": 2},
    "SS-CAM": {"channels": 1, "samples": 2},
    "IS-CAM": {"channels": 1, "samples": 2},
    "AblationCAM": {"channels": 2},
    "SESS": {"scales": 2},
}
#: Methods whose cost grows with the number of layers: they run over `FEW`.
COSTLY = frozenset({"ShapleyCAM", "ScoreCAM", "SS-CAM", "IS-CAM", "AblationCAM", "SESS"})
FEW = 4
#: The statuses of layers, without those of methods.
STATUSES = frozenset({Status.OK, Status.NOT_SPATIAL, Status.OFF_PATH, Status.NO_TENSOR})
#: Methods that have maps of some layers only.
PARTIAL = frozenset({"CAM", "FullGrad"})
NO_MAP_AT_ALL = "of a network without any map"


# --- Networks ----------------------------------------------------------------------------------


def size_of(name: str) -> int:
    """Return the side of the image for a network, in pixels."""
    return BUILT_FOR.get(name) or SIZES.get(name, USUAL_SIZE)


def network(name: str) -> nn.Module:
    """Build one of torchvision's classifiers, with random weights."""
    settings: dict[str, Any] = {}
    if name in BUILT_FOR:
        settings["image_size"] = BUILT_FOR[name]
    if name in ("googlenet", "inception_v3"):
        settings["init_weights"] = False
    with _without_initialisation():
        net: nn.Module = get_model(name, weights=None, **settings)
    _fill(net)
    return net.eval()


@contextmanager
def _without_initialisation() -> Iterator[None]:
    """Skip the initialisation of weights: `_fill` writes all of them."""
    with ExitStack() as stack:
        for name in (n for n in dir(nn.init) if n.endswith("_") and not n.startswith("_")):
            stack.enter_context(mock.patch.object(nn.init, name, lambda tensor, *_, **__: tensor))
        yield


def _fill(net: nn.Module) -> None:
    """Repeat one block of random numbers over all weights, scaled to keep activations in range."""
    block = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    for name, parameter in net.named_parameters():
        norm = parameter.ndim == 1 and name.endswith("weight")
        inputs = parameter[0].numel() if parameter.ndim > 1 else 100
        flat = parameter.data.view(-1)
        for start in range(0, len(flat), len(block)):
            part = flat[start : start + len(block)]
            torch.mul(block[: len(part)], inputs**-0.5, out=part)
        flat += norm
        # The next parameter starts elsewhere in the block.
        block = block.roll(-(len(flat) % len(block)))


def image_of(size: int) -> np.ndarray:
    """Return a random colour image."""
    return np.random.default_rng(0).random((size, size, 3), np.float32)


def checksum(net: nn.Module) -> int:
    """Return a checksum of all that a run must not change: weights, modes, hooks, gradients, flags."""
    crc = 0
    for tensor in net.state_dict().values():
        crc = zlib.crc32(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy(), crc)
    rest: list[Any] = [(p.requires_grad, p.grad is None) for p in net.parameters()]
    for module in net.modules():
        hooks = [key for key in vars(module) if "hooks" in key]
        rest.append((module.training, getattr(module, "inplace", None), len(vars(module))))
        rest.append([len(vars(module)[key] or ()) for key in hooks])
    return zlib.crc32(repr(rest).encode(), crc)


# --- Runs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """The outcome of one method on one network.

    Attributes
    ----------
    layer_calls : list of LayerInfo
    selected : int
        Number of layers that were selected.
    maps : int
        Number of these that have a map.
    without : Counter
        The statuses of the others.
    """

    layer_calls: list[camanim.LayerInfo]
    selected: int
    maps: int
    without: Counter[str]


def run(
    model: camanim.Model, size: int, method: str, only: frozenset[int] | None = None
) -> tuple[Run, camanim.Animation | None]:
    """Run a method over all layers, or over those with the given indices.

    The animation is None where none of them has a map, as with the original CAM and most networks.
    """
    layer_calls: list[camanim.LayerInfo] = []

    def chosen(layer: camanim.LayerInfo) -> bool:
        layer_calls.append(layer)
        return only is None or layer.index in only

    try:
        animation = camanim.animate(
            model,
            image_of(size),
            method=method,
            target=1,
            options=OPTIONS.get(method, {}),
            layers=chosen,
            fit="native",
        )
    except camanim.LayerError as error:
        if method not in PARTIAL or "None of the selected layers" not in str(error):
            raise
        count = len(layer_calls if only is None else only)
        return Run(layer_calls, count, 0, Counter({NO_MAP_AT_ALL: count})), None
    selected = [x for x in animation.layer_calls if only is None or x.index in only]
    without = Counter(x.status for x in selected if x.status != Status.OK)
    return Run(animation.layer_calls, len(selected), len(animation.maps), without), animation


def spread(layer_calls: list[camanim.LayerInfo], count: int) -> frozenset[int]:
    """Choose `count` of the layers that have a map, from the first to the last."""
    readable = [x.index for x in layer_calls if x.status == Status.OK and x.same_as is None]
    chosen = np.linspace(0, len(readable) - 1, min(count, len(readable))).round().astype(int)
    return frozenset(readable[i] for i in chosen)


def complaints(animation: camanim.Animation, size: int) -> list[str]:
    """Return descriptions of wrong maps of a run; empty where all are correct."""
    errors = []
    method = find_method(animation.method)
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        where = f"{animation.method} of {layer.label} {layer.shape} ({layer.layout})"
        if raw.dtype != np.float32 or raw.ndim != 2:
            errors.append(f"{where}: {raw.dtype} {raw.shape}")
        if not np.isfinite(raw).all():
            errors.append(f"{where}: not finite")
        if raw.shape[0] != raw.shape[1]:
            # The image is square: channels were read as pixels.
            errors.append(f"{where}: {raw.shape} is no square")
        of_input = method.guided == "times" or method.name in ("RefineCAM", "SESS")
        if of_input and raw.shape != (size, size):
            errors.append(f"{where}: {raw.shape} is not the image's size")
        if not of_input and not _fits(layer.shape, raw.shape):
            errors.append(f"{where}: {raw.shape} is no part of the output")
    return errors


def _fits(shape: tuple[int, ...] | None, space: tuple[int, ...]) -> bool:
    """Return whether an output is large enough for channels over this space."""
    return shape is not None and math.prod(shape) >= math.prod(space)


# --- The page ----------------------------------------------------------------------------------

KINDS = {"NCHW": "NCHW", "NHWC": "NHWC", "tokens": "tokens"}


def kind_of(layout: str) -> str:
    """Shorten ``tokens 14 x 14 after 1`` and the like to the column that counts it."""
    words = layout.split()
    return next((KINDS[word] for word in words if word in KINDS), "windows")


@dataclass(frozen=True)
class Row:
    """One network: the side of its image, and the run of each method."""

    name: str
    size: int
    runs: dict[str, Run]


def row_of(name: str, *, every: bool = False) -> Row:
    """Run all methods over a network, or Grad-CAM alone outside of `FAMILIES` unless `every` is set.

    Raises
    ------
    SystemExit
        When a map is wrong, or the network was changed.
    """
    net, size = network(name), size_of(name)
    model, before = camanim.Model(net, name=name), checksum(net)
    runs: dict[str, Run] = {}
    for method in camanim.methods() if every or name in FAMILIES else ["GradCAM"]:
        few = spread(runs["GradCAM"].layer_calls, FEW) if method in COSTLY else None
        runs[method], animation = run(model, size, method, few)
        wrong = [] if animation is None else complaints(animation, size)
        if wrong:
            raise SystemExit(f"{name}: {'; '.join(wrong)}")
    if checksum(net) != before:
        raise SystemExit(f"{name} was changed")
    return Row(name, size, runs)


def page(rows: list[Row]) -> str:
    """Return the page."""
    full = [row for row in rows if len(row.runs) > 1]
    if len(full) == len(rows):
        what, which = f"by all {len(rows[0].runs)} methods of `camanim methods`,", "all of them."
    else:
        what = f"by Grad-CAM, and {len(full)} of them by all methods of `camanim methods`,"
        which = f"\n{textwrap.fill(', '.join(row.name for row in full), 100)}."
    return f"""# Every method over every network

The {len(rows)} classifiers of torchvision {what}
with random weights, over a random image of the size given: 64 x 64, at which the last feature maps of
most are two pixels wide, or the smallest size that the network accepts (ViTs are built for 4 x 4
patches). This page is generated by `python docs/make_matrix.py`. The slow tests run Grad-CAM and each
formula over all networks; with `CAMANIM_MATRIX=families` in the environment, all methods over the
families, and with `CAMANIM_MATRIX=all` every method over every network, which takes an hour.

Every call of every module has either a map, which is finite, square and of the layer's resolution, or a
status with the reason. After all methods the network is bit for bit the same as before.

## Networks

*Calls* counts every call of every module. *Maps* are counted by the layout of the output: `NCHW`,
`NHWC`, tokens (ViT), windows (MaxViT; any rearrangement). The rest has no map: `1-D` has no space, or a
single pixel, or not that of the image (Swin V2's table of positions); *no tensor* returns none;
*off the path* does not influence the score.

{_networks(rows)}

## Methods

*Layers selected* sums over these networks: {which}
Methods that evaluate the network for each layer were given {FEW} layers of each, from the
first to the last, and bounded options. The others were given all layers, those without a map in the
first table among them.

{_methods(full)}

## Methods that do not have a map of every layer

How many layers have a map; *spatial* are those that have one by Grad-CAM.

{_partial(full)}
"""


def _table(head: list[str], lines: list[list[Any]]) -> str:
    align = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [head, align, *lines])


def _networks(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        layer_calls = row.runs["GradCAM"].layer_calls
        kinds = Counter(kind_of(x.layout) for x in layer_calls if x.status == Status.OK)
        status = Counter(x.status for x in layer_calls)
        lines.append([
            row.name,
            f"{row.size} x {row.size}",
            len(layer_calls),
            *(kinds[kind] or "" for kind in ("NCHW", "NHWC", "tokens", "windows")),
            *(status[s] or "" for s in (Status.NOT_SPATIAL, Status.NO_TENSOR, Status.OFF_PATH)),
        ])  # fmt: skip
    head = ["network", "image", "calls", "NCHW", "NHWC", "tokens", "windows"]
    return _table([*head, "1-D", "no tensor", "off the path"], lines)


def _methods(rows: list[Row]) -> str:
    lines = []
    for method in rows[0].runs:
        runs = [row.runs[method] for row in rows]
        without: Counter[str] = sum((r.without for r in runs), Counter())
        options = ", ".join(f"{k}={v}" for k, v in OPTIONS.get(method, {}).items())
        lines.append([
            method,
            sum(r.selected for r in runs),
            sum(r.maps for r in runs),
            "; ".join(f"{count} {status}" for status, count in sorted(without.items())),
            options,
        ])  # fmt: skip
    return _table(["method", "layers selected", "maps", "without", "options"], lines)


def _partial(rows: list[Row]) -> str:
    def differs(method: str) -> bool:
        return any(row.runs[method].maps != row.runs["GradCAM"].maps for row in rows)

    partial = [m for m in rows[0].runs if m not in COSTLY and differs(m)]
    lines = [
        [row.name, row.runs["GradCAM"].maps, *(row.runs[m].maps for m in partial)] for row in rows
    ]
    return _table(["network", "spatial", *partial], lines)


def main() -> None:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("network", nargs="*", help="torchvision's name; all where none is given")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time, a process each")
    parser.add_argument("--every", action="store_true", help="every method over every network")
    arguments = parser.parse_args()
    names = arguments.network
    rows = []
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, spawned, torch.set_num_threads, (1,)) as pool:
        runs = pool.map(partial(row_of, every=arguments.every), names or CLASSIFIERS)
        for i, row in enumerate(runs):
            print(f"{i + 1} / {len(names or CLASSIFIERS)} {row.name}", file=sys.stderr, flush=True)
            rows.append(row)
    text = page(rows)
    if names:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
