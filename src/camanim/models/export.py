"""Archives of ``torch.export``, with their modules restored, so that layers can be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from camanim.errors import ModelError
from camanim.images import Preprocess
from camanim.models.base import Model
from camanim.models.building import Untrusted, first_line
from camanim.models.files import load_into, read_weights

if TYPE_CHECKING:
    from torch import nn


def load(path: Path, weights: str | Path | None, trust: bool) -> Model:
    """Load a ``.pt2`` archive.

    ``torch.export.load`` unpickles parts of it and evaluates expressions in it, so it must be trusted.
    The network takes what it was exported for: a fixed size, and one image at a time, unless these
    were dynamic.
    """
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    if not trust:
        raise Untrusted(path, "is an archive of torch.export, which can hold code")
    import torch

    try:
        program = torch.export.load(path)
        net = torch.export.unflatten(program)
        shape, extra = _inputs(program)
    except ModelError:
        raise
    except Exception as error:
        # Its readers raise anything for a damaged archive.
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    _name_kinds(net, program)
    net.eval()
    if weights is not None and weights != "DEFAULT":
        load_into(net, read_weights(weights), weights, path.name)
    return Model(net, _preprocess(shape), name=path.stem, extra_inputs=extra)


def _inputs(program: Any) -> tuple[tuple[Any, ...], tuple[Any, ...] | dict[str, Any]]:
    """Find the image's shape, and the example's other inputs."""
    wanted = list(program.graph_signature.user_inputs)
    shapes = {
        node.name: tuple(node.meta["val"].shape)
        for node in program.graph.nodes
        if node.op == "placeholder" and hasattr(node.meta.get("val"), "shape")
    }
    shape = shapes.get(wanted[0]) if wanted else None
    if shape is None or len(shape) not in (4, 5):
        raise ModelError("Its first input is no image (B, C, H, W) or (B, C, D, H, W).")
    args, keywords = program.example_inputs or ((), {})
    if args[1:] and keywords:
        raise ModelError("It takes further inputs both by place and by name: export it with one.")
    return shape, dict(keywords) if keywords else tuple(args[1:])


def _preprocess(shape: tuple[Any, ...]) -> Preprocess:
    fixed = all(isinstance(n, int) for n in shape[2:])
    return Preprocess(
        size=tuple(shape[2:]) if fixed else None, channels=int(shape[1]), dims=len(shape) - 2
    )


def _name_kinds(net: nn.Module, program: Any) -> None:
    """Give each restored module the name of the kind that it was: Conv2d, not InterpreterModule."""
    kinds = {
        path: str(kind).rpartition(".")[2]
        for node in program.graph.nodes
        for path, kind in node.meta.get("nn_module_stack", {}).values()
    }
    made: dict[str, type] = {}
    for name, module in net.named_modules():
        kind = kinds.get(name)
        if name and kind and kind.isidentifier():
            base = type(module)
            module.__class__ = made.setdefault(kind, type(kind, (base,), {}))
