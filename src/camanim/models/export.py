"""Networks from archives of ``torch.export``, unflattened into modules with hooks."""

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

    It needs `trust`: ``torch.export.load`` unpickles parts of the archive and evaluates expressions.
    The network takes the batch and image sizes that it was exported with, unless these are dynamic.
    """
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    if not trust:
        raise Untrusted(path, "is an archive of torch.export, which can contain code")
    import torch

    try:
        program = torch.export.load(path)
        net = torch.export.unflatten(program)
        shape, extra = _inputs(program)
    except ModelError:
        raise
    except Exception as error:
        # A damaged archive may raise any exception.
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    _restore_type_names(net, program)
    net.eval()
    if weights is not None and weights != "DEFAULT":
        load_into(net, read_weights(weights), weights, path.name)
    return Model(net, _preprocess(shape), name=path.stem, extra_inputs=extra)


def _inputs(program: Any) -> tuple[tuple[Any, ...], tuple[Any, ...] | dict[str, Any]]:
    """Return the image's shape, and the further inputs of the example that was exported."""
    inputs = list(program.graph_signature.user_inputs)
    shapes = {
        node.name: tuple(node.meta["val"].shape)
        for node in program.graph.nodes
        if node.op == "placeholder" and hasattr(node.meta.get("val"), "shape")
    }
    shape = shapes.get(inputs[0]) if inputs else None
    if shape is None or len(shape) not in (4, 5):
        raise ModelError("The first input must be an image (B, C, H, W) or (B, C, D, H, W).")
    args, keywords = program.example_inputs or ((), {})
    if args[1:] and keywords:
        raise ModelError(
            "The network has both positional and keyword arguments besides the image: export it "
            "with only one of these kinds."
        )
    return shape, dict(keywords) if keywords else tuple(args[1:])


def _preprocess(shape: tuple[Any, ...]) -> Preprocess:
    fixed = all(isinstance(n, int) for n in shape[2:])
    return Preprocess(
        size=tuple(shape[2:]) if fixed else None, channels=int(shape[1]), dims=len(shape) - 2
    )


def _restore_type_names(net: nn.Module, program: Any) -> None:
    """Name the type of each unflattened module as before the export: Conv2d, not InterpreterModule."""
    type_names = {
        path: str(qualified_name).rpartition(".")[2]
        for node in program.graph.nodes
        for path, qualified_name in node.meta.get("nn_module_stack", {}).values()
    }
    types: dict[str, type] = {}
    for path, module in net.named_modules():
        type_name = type_names.get(path)
        if path and type_name and type_name.isidentifier():
            base = type(module)
            module.__class__ = types.setdefault(type_name, type(type_name, (base,), {}))
