"""Seconds of methods over a network's blocks, against grad-cam's, on the same layers in the same run.

    python benchmarks/methods.py [--model mobilenet_v2] [--methods EigenCAM AblationCAM ScoreCAM]
                                 [--layers blocks] [--every 1] [--threads 2]

grad-cam gets one object and one call per layer, as its documentation has it, on a network whose in-place
operations are switched off (they would spoil its activations). `--every 4` takes every fourth layer, for
the slow ones. Random weights, 224 x 224. Prints the layers, both times, and their ratio: only ratios
taken in one run mean anything.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import time

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchvision.models import get_model

import camanim

IMAGE = np.random.default_rng(0).random((224, 224, 3)).astype(np.float32)


def theirs(net: torch.nn.Module, name: str, layers: list[str], x: torch.Tensor) -> float:
    cls = getattr(pytorch_grad_cam, name.replace("++", "PlusPlus").replace("KPCA-CAM", "KPCA_CAM"))
    target = [ClassifierOutputTarget(int(net(x).argmax()))]
    start = time.perf_counter()
    for layer in layers:
        with (
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
            cls(model=net, target_layers=[net.get_submodule(layer)]) as cam,
        ):
            cam(input_tensor=x, targets=target)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--methods", nargs="+", default=["EigenCAM", "AblationCAM", "ScoreCAM"])
    parser.add_argument("--layers", default="blocks")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    model = camanim.Model(get_model(asked.model, weights=None).eval())
    plain = copy.deepcopy(model.net)
    for module in plain.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    x = model.prepare(IMAGE).tensor
    shown = camanim.animate(model, IMAGE, layers=asked.layers).layers
    layers = [layer.name for layer in shown if not layer.call][:: asked.every]
    for method in asked.methods:
        # What is imported on first use is no part of either.
        camanim.animate(model, IMAGE, method=method, layers=layers[-1:])
        start = time.perf_counter()
        animation = camanim.animate(model, IMAGE, method=method, layers=layers)
        ours = time.perf_counter() - start
        reference = theirs(plain, method, layers, x)
        print(
            f"{asked.model} {method}: {len(animation)} layers ({asked.layers}, every {asked.every}), "
            f"camanim {ours:.2f} s, grad-cam {reference:.2f} s, {reference / ours:.1f} times",
            flush=True,
        )


if __name__ == "__main__":
    main()
