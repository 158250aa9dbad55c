"""Pass odd images, networks, targets and settings, and count how they are answered.

    python benchmarks/soak_inputs.py

Each case has to end in a `CamError` with one line, or in a result with finite maps; afterwards, the
network has to be as it was (modes, hooks, gradients, weights). Prints the counts, and every case that
does neither; the exit status is 1 if there is one.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from soak import differences, state_of
from torch import nn

import camanim

IMAGE = np.random.default_rng(0).random((24, 20, 3)).astype(np.float32)
Case = tuple[str, Callable[[], Any]]


class Returning(nn.Module):
    """A convolution, and an output made by a function of its activation."""

    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.make = nn.Conv2d(3, 4, 3, padding=1), make

    def forward(self, x: torch.Tensor) -> Any:
        """Return what the function makes of the activation."""
        return self.make(self.conv(x))


def network() -> nn.Module:
    """Return a small classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def images(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield odd images."""
    empty = folder / "empty.png"
    empty.write_bytes(b"")
    yield "None", None
    yield "a path", str(empty)
    yield "an open file", empty.open("rb")
    yield "text", "image"
    yield "a number", 5
    yield "an empty list", []
    yield "a ragged list", [[1, 2], [3]]
    yield "a dictionary", {"image": IMAGE}
    yield "objects", np.full((8, 8), None)
    yield "texts", np.full((8, 8), "a")
    yield "complex numbers", IMAGE.astype(np.complex64)
    yield "dates", np.zeros((8, 8), "datetime64[s]")
    yield "no pixels", np.zeros((0, 8, 3))
    yield "no channels", np.zeros((8, 8, 0))
    yield "one pixel", np.zeros((1, 1, 3), np.uint8)
    yield "one row", np.zeros((1, 64, 3), np.uint8)
    yield "one axis", np.zeros(8)
    yield "seven axes", np.zeros((1,) * 7)
    yield "two channels", np.zeros((8, 8, 2))
    yield "NaN", np.full((8, 8, 3), np.nan)
    yield "infinity", np.full((8, 8, 3), np.inf)
    yield "one NaN", np.where(np.arange(24 * 20 * 3).reshape(24, 20, 3) == 7, np.nan, IMAGE)
    yield "values of 0 to 255 as floats", IMAGE * 255
    yield "negative floats", IMAGE - 0.5
    yield "a boolean image", IMAGE[..., 0] > 0.5
    yield "int64", (IMAGE * 1000).astype(np.int64)
    yield "uint64 at its limit", np.full((8, 8), 2**64 - 1, np.uint64)
    yield "a masked array", np.ma.masked_less(IMAGE, 0.5)
    yield "a structured array", np.zeros((8, 8), [("a", "f4")])
    yield "a tensor with a gradient", torch.rand(8, 8, 3, requires_grad=True)
    yield "a tensor of the meta device", torch.zeros(8, 8, 3, device="meta")
    yield "a sparse tensor", torch.eye(8).to_sparse()
    yield "a read-only array", np.broadcast_to(np.float32(0.5), (8, 8, 3))
    yield "an array in reverse order", IMAGE[::-1, ::-1]
    yield "big-endian numbers", IMAGE.astype(">f4")


def networks() -> Iterator[tuple[str, nn.Module]]:
    """Yield networks with odd outputs."""

    def fails(x: torch.Tensor) -> Any:
        raise KeyError("missing")

    yield "no output", Returning(lambda x: None)
    yield "a text", Returning(lambda x: "cat")
    yield "a number", Returning(lambda x: x.mean())
    yield "a numpy array", Returning(lambda x: x.detach().mean((2, 3)).numpy())
    yield "an empty tuple", Returning(lambda x: ())
    yield "NaN", Returning(lambda x: x.mean((2, 3)) * torch.nan)
    yield "infinity", Returning(lambda x: x.mean((2, 3)) / 0)
    yield "integers", Returning(lambda x: x.mean((2, 3)).long())
    yield "a detached output", Returning(lambda x: x.detach().mean((2, 3)))
    yield "another number of images", Returning(lambda x: x.mean((2, 3)).repeat(2, 1))
    yield "no classes", Returning(lambda x: x.mean((2, 3))[:, :0])
    yield "a failing forward", Returning(fails)
    yield "a lazy layer", nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(3))
    yield "no module", nn.Identity()
    yield "another number of channels", nn.Sequential(nn.Conv2d(7, 4, 3), nn.Flatten())


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield odd settings and targets."""
    yield "an unknown class", {"target": "cat"}
    yield "a class out of range", {"target": 99}
    yield "a negative class", {"target": -1}
    yield "a target of NaN", {"target": float("nan")}
    yield "a target that fails", {"target": lambda output: output["x"]}
    yield "a target without gradient", {"target": lambda output: torch.zeros(1)}
    yield "an unknown method", {"method": "CatCAM"}
    yield "a method that fails", {"method": lambda activation: activation["x"]}
    yield "a method of another shape", {"method": lambda activation: activation[0, :2]}
    yield "unknown layers", {"layers": "layer9"}
    yield "no layers", {"layers": []}
    yield "layers of another type", {"layers": 5}
    yield "an unknown setting", {"metod": "GradCAM"}
    yield "an unknown device", {"device": "gpu"}
    yield "a layout that does not fit", {"layouts": {"0": "tokens"}}
    yield "a progress that fails", {"progress": lambda *a: 1 / 0}


def cases(folder: Path) -> Iterator[tuple[str, nn.Module, Any, dict[str, Any]]]:
    """Yield description, network, image and settings."""
    for name, image in images(folder):
        yield f"image: {name}", network(), image, {}
    for name, net in networks():
        yield f"network: {name}", net, IMAGE, {}
    for name, keywords in settings():
        yield f"setting: {name}", network(), IMAGE, keywords


def answer(net: nn.Module, image: Any, keywords: dict[str, Any]) -> str:
    """Return how a run ends, in a word; "wrong" with the reason for what should not be."""
    try:
        animation = camanim.animate(net, image, **keywords)
    except camanim.CamError as error:
        return "refused" if str(error) and "\n" not in str(error) else f"wrong: {error!r}"
    except ZeroDivisionError:
        # An error of the caller's own progress is not changed.
        return "refused" if "progress" in keywords else "wrong: ZeroDivisionError"
    except Exception as error:  # noqa: BLE001 (this is what is counted)
        return f"wrong: {type(error).__name__}: {error}"
    finite = all(np.isfinite(raw).all() for raw in animation.maps)
    return "explained" if finite else "wrong: a map is not finite"


def main() -> int:
    """Run all cases and print the counts."""
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, net, image, keywords in cases(Path(folder)):
            lazy = "lazy" in name
            before = None if lazy else state_of(net)
            word = answer(net, image, keywords)
            if before is not None and (changed := differences(before, state_of(net))):
                word = f"wrong: changed {', '.join(changed)}"
            if word.startswith("wrong"):
                print(f"{name}: {word}")
            counts[word.partition(":")[0]] += 1
    print(f"{sum(counts.values())} inputs: {dict(counts)}")
    return int(counts["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
