"""The rules by which operations of torch turn the position maps of operands into those of outputs.

The output of an operation without a rule has no position map, nor has any tensor computed from it. So
an output may be left without a layout, but does not get a wrong one.
"""

from __future__ import annotations

import math

import torch

from camanim.layout.position_tracing.operation import Operation, PositionMaps, Rule
from camanim.layout.position_tracing.position_map import (
    PositionMap,
    apply_unexpanded,
    contracted,
    is_constant,
    subsampled,
    whole_grid,
)


def propagate(operation: Operation) -> PositionMaps:
    """Return the position maps of an operation's outputs; the list may be shorter than the outputs."""
    rule = _RULES.get(operation.name)
    if rule is None and torch.Tag.pointwise in operation.func.tags:
        rule = _elementwise
    if rule is None:
        return []
    try:
        maps = rule(operation)
    except (RuntimeError, TypeError, ValueError, LookupError):
        # The rule does not support these arguments, such as those of a rare overload.
        return []
    return [
        position_map
        if position_map is not None and position_map.cells.shape == output.shape
        else None
        for position_map, output in zip(maps, operation.outputs, strict=False)
    ]


# --- Operations that move elements -------------------------------------------------------------


def _move(operation: Operation) -> PositionMaps:
    """Apply the operation to the cells."""
    position_map = operation.first
    if position_map is None:
        return []
    moved = operation.func(position_map.cells, *operation.args[1:], **operation.kwargs)
    parts = moved if isinstance(moved, list | tuple) else [moved]
    return [position_map.with_cells(part) for part in parts]


def _take(operation: Operation) -> PositionMaps:
    """Apply the operation to the cells; every n-th cell makes a coarser grid."""
    maps = _move(operation)
    if operation.arguments.get("step", 1) == 1:
        return maps
    return [part and subsampled(part) for part in maps]


def _reshape(operation: Operation) -> PositionMaps:
    position_map = operation.first
    if position_map is None or operation.func._overloadname != "default":
        # ``view(dtype)`` does not move elements.
        return []
    cells, shape = position_map.cells, operation.output.shape
    # Keep channels of stride 0, which ``reshape`` would copy.
    if cells.ndim and shape and cells.shape[-1] == shape[-1] and cells.stride(-1) == 0:
        narrow = cells[..., :1].reshape(*shape[:-1], 1)
        return [position_map.with_cells(narrow.expand(shape))]
    return [position_map.with_cells(cells.reshape(shape))]


def _keep(operation: Operation) -> PositionMaps:
    """Return the map of the first operand, for the first output."""
    return [operation.first]


def _roll(operation: Operation) -> PositionMaps:
    position_map, axes = operation.first, operation.axes("dims")
    if position_map is None or not axes:
        return []
    shifts = operation.arguments["shifts"]
    return [
        position_map.with_cells(
            apply_unexpanded(position_map.cells, axes, lambda c: c.roll(shifts, axes))
        )
    ]


def _pad(operation: Operation) -> PositionMaps:
    """Add elements without a cell, also where values are mirrored or replicated."""
    position_map = operation.first
    if position_map is None:
        return []
    pad = list(operation.arguments.get("pad") or operation.arguments["padding"])
    ndim = position_map.cells.ndim
    touched = [ndim - 1 - i for i in range(len(pad) // 2) if pad[2 * i] or pad[2 * i + 1]]

    def move(cells: torch.Tensor) -> torch.Tensor:
        return torch.constant_pad_nd(cells, pad, -1)

    return [position_map.with_cells(apply_unexpanded(position_map.cells, touched, move))]


def _unfold(operation: Operation) -> PositionMaps:
    """Cut out patches of the cells, by an operation that needs floating numbers and pads with 0."""
    position_map = operation.first
    if position_map is None:
        return []
    cells = position_map.cells.double() + 1
    moved = operation.func(cells, *operation.args[1:], **operation.kwargs)
    return [position_map.with_cells((moved - 1).int())]


def _join(operation: Operation) -> PositionMaps:
    tensors = [t for t in operation.args[0] if t.numel()]
    maps = [operation.position_map_of(tensor) for tensor in tensors]
    known = [each for each in maps if each is not None and each.has_cells()]
    unknown = any(
        each is None and operation.from_image(tensor)
        for each, tensor in zip(maps, tensors, strict=True)
    )
    if unknown or not known or len({position_map.space for position_map in known}) > 1:
        return []
    parts = [
        torch.full((), -1, dtype=torch.int32, device=tensor.device).expand(tensor.shape)
        if position_map is None
        else position_map.cells
        for tensor, position_map in zip(tensors, maps, strict=True)
    ]
    axis = int(operation.arguments.get("dim", 0))
    if operation.name == "aten::stack":
        axis %= operation.output.ndim
        parts = [part.unsqueeze(axis) for part in parts]
    axis %= operation.output.ndim
    expanded = [
        a for a in range(operation.output.ndim)
        if a != axis and all(part.stride(a) == 0 for part in parts)
    ]  # fmt: skip
    for a in expanded:
        parts = [part.narrow(a, 0, 1) for part in parts]
    joined = torch.cat(parts, axis).expand(operation.output.shape)
    pairs = any(position_map.pairs for position_map in known)
    return [PositionMap(joined, known[0].space, pairs)]


# --- Elementwise operations --------------------------------------------------------------------


def _elementwise(operation: Operation) -> PositionMaps:
    """Return the map that all operands share; operands without cells do not count."""
    operands = [*operation.args, *operation.kwargs.values()]
    maps = [operation.position_map_of(tensor) for tensor in operands]
    known = [position_map for position_map in maps if position_map is not None]
    if len(known) > 1:
        known = [position_map for position_map in known if position_map.has_cells()] or known[:1]
    shape = operation.output.shape
    known = [position_map.with_cells(position_map.cells.expand(shape)) for position_map in known]
    if not known or not all(known[0].equals(other) for other in known[1:]):
        return []
    pairs = any(position_map.pairs for position_map in known)
    return [PositionMap(known[0].cells, known[0].space, pairs)]


def _copy(operation: Operation) -> PositionMaps:
    """Return the map of the source, which replaces that of the tensor written to."""
    position_map = operation.position_map_of(operation.arguments["src"])
    if position_map is None:
        return []
    return [position_map.with_cells(position_map.cells.expand(operation.output.shape))]


# --- Sums over an axis -------------------------------------------------------------------------


def _reduce(operation: Operation) -> PositionMaps:
    position_map, axes = operation.first, operation.axes("dim")
    if position_map is None or not axes:
        return []
    result = contracted(position_map, axes)
    if result is not None and operation.arguments.get("keepdim", False):
        cells = result.cells
        for axis in sorted(axes):
            cells = cells.unsqueeze(axis)
        result = result.with_cells(cells)
    # ``max`` and ``min`` also return indices.
    return [result] * len(operation.outputs)


def _multiply(operation: Operation) -> PositionMaps:
    """Return the map of a matrix product: the cells of its rows, or else those of its columns."""
    a, b = (operation.arguments[name] for name in _FACTORS[operation.name])
    rows, columns = operation.position_map_of(a), operation.position_map_of(b)
    left, right = _Factor(rows, -1), _Factor(columns, -2)
    shape = operation.output.shape
    if left.has_cells and (not left.mixed or right.mixed or not right.has_cells):
        assert left.contracted is not None
        result = left.contracted
        pairs = rows is not None and rows.pairs
        if columns is not None:
            # Cells times cells is an attention matrix. Its product with cells has no pairs any more.
            is_outer = (
                _varies(rows, -2) and _varies(columns, -1) and not (left.mixed or right.mixed)
            )
            pairs = is_outer and not pairs and columns.space == result.space
        return [PositionMap(result.cells.unsqueeze(-1).expand(shape), result.space, pairs)]
    if right.has_cells:
        assert right.contracted is not None
        result = right.contracted
        pairs = result.pairs and rows is None
        return [PositionMap(result.cells.unsqueeze(-2).expand(shape), result.space, pairs)]
    known = [factor.contracted for factor in (left, right) if factor.position_map is not None]
    if not known or known[0] is None or known[-1] is None:
        return []
    # The product is summed over all cells. If both factors were, it relates channels to channels.
    by_channels = left.mixed and right.mixed and not (_varies(rows, -2) or _varies(columns, -1))
    return [known[0].without_cells(shape, pairs=by_channels)]


class _Factor:
    """A factor of a matrix product: its position map, and the map after a sum over an axis."""

    def __init__(self, position_map: PositionMap | None, axis: int) -> None:
        self.position_map, self.mixed = position_map, False
        self.contracted: PositionMap | None = None
        if position_map is not None:
            axis %= position_map.cells.ndim
            self.contracted = contracted(position_map, [axis])
            self.mixed = not is_constant(position_map.cells, axis)
        self.has_cells = self.contracted is not None and self.contracted.has_cells()


def _varies(position_map: PositionMap | None, axis: int) -> bool:
    return position_map is not None and not is_constant(
        position_map.cells, axis % position_map.cells.ndim
    )


def _linear(operation: Operation) -> PositionMaps:
    """Return the map of a linear layer or of attention: the cells of the input, or of the queries."""
    position_map = operation.first
    if position_map is None:
        return []
    result = contracted(position_map, [position_map.cells.ndim - 1])
    if result is None:
        return []
    return [result.with_cells(result.cells.unsqueeze(-1).expand(operation.output.shape))]


# --- Operations on neighbourhoods --------------------------------------------------------------


def _convolve(operation: Operation) -> PositionMaps:
    """Return the grid of the input for an output of the same size, and a new grid otherwise."""
    output, position_map = operation.output, operation.first
    if output.ndim != operation.args[0].ndim or output.ndim < 3:
        return []
    space, channels = tuple(output.shape[2:]), output.shape[1]
    if position_map is None:
        # The operand is the output of an operation without a rule. A feature map is a new grid.
        if len(output) != operation.images or not _has_space(space, operation.dims):
            return []
        grid = whole_grid(operation.images, space, channels, output.device)
        return [grid] * len(operation.outputs)
    position_map = contracted(position_map, [1])
    if position_map is None:
        return []
    if tuple(position_map.cells.shape[1:]) != space:
        position_map = subsampled(position_map)
    cells = position_map.cells
    if tuple(cells.shape[1:]) != space:
        images = _images_of_whole_grids(position_map, space)
        if images is None or not _has_space(space, operation.dims):
            return []
        cells = whole_grid(1, space, 1, output.device).cells[0]
        cells = (cells + (images * math.prod(space)).view(-1, *[1] * len(space))).int()
    grid = PositionMap(cells.unsqueeze(1).expand(output.shape), space, position_map.pairs)
    if space == tuple(position_map.cells.shape[1:]):
        grid = position_map.with_cells(grid.cells)
    return [grid] * len(operation.outputs)


def _images_of_whole_grids(
    position_map: PositionMap, space: tuple[int, ...]
) -> torch.Tensor | None:
    """Return the images, (n,), of cells (n, *s) that are complete grids in order, except for padding.

    Padding is ignored only if the grid and the padded grid are larger than `space`, that of the output,
    by the same factor. None is returned for all other cells.
    """
    cells = position_map.cells
    padded = tuple(cells.shape[1:])
    for axis, (side, out) in enumerate(zip(position_map.space, space, strict=True), 1):
        occupied = (cells >= 0).movedim(axis, 0).flatten(1).any(1).nonzero()
        if not len(occupied):
            return None
        start, length = int(occupied[0]), int(occupied[-1] - occupied[0]) + 1
        factor = max(round(padded[axis - 1] / out), 1)
        fits = out in (side // factor, -(-side // factor))
        if length != side or (length != padded[axis - 1] and not fits):
            return None
        cells = cells.narrow(axis, start, length)
    count = math.prod(position_map.space)
    flat = cells.flatten(1)
    images = flat[:, :1] // count
    order = torch.arange(count, dtype=flat.dtype, device=flat.device)
    return images[:, 0] if torch.equal(flat, images * count + order) else None


def _has_space(space: tuple[int, ...], dims: int) -> bool:
    return len(space) == dims and math.prod(space) > 1


# --- Table of rules ----------------------------------------------------------------------------


#: Names of the factors in the schemas of matrix products.
_FACTORS = {
    "aten::mm": ("self", "mat2"),
    "aten::bmm": ("self", "mat2"),
    "aten::matmul": ("self", "other"),
    "aten::addmm": ("mat1", "mat2"),
    "aten::_addmm_activation": ("mat1", "mat2"),
    "aten::baddbmm": ("batch1", "batch2"),
}

_NAMES: dict[Rule, str] = {
    _move: """
        permute transpose t expand unsqueeze squeeze flip rot90 repeat tile unfold movedim swapaxes
        pixel_shuffle pixel_unshuffle channel_shuffle repeat_interleave
        """,
    _take: """
        slice select unbind split split_with_sizes chunk narrow index_select index gather
        take_along_dim diagonal
        """,
    _reshape: "view _unsafe_view reshape _reshape_alias flatten unflatten",
    _keep: """
        alias detach clone contiguous lift lift_fresh _to_copy to _softmax _log_softmax softmax
        native_layer_norm layer_norm native_batch_norm batch_norm _native_batch_norm_legit
        _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm
        _batch_norm_with_update native_group_norm group_norm instance_norm native_dropout dropout
        _fused_rms_norm rms_norm _safe_softmax log_sigmoid_forward tril triu
        """,
    _roll: "roll",
    _pad: """
        constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
        replication_pad1d replication_pad2d replication_pad3d
        """,
    _unfold: "im2col",
    _join: "cat stack",
    # Elementwise operations that torch does not tag as pointwise.
    _elementwise: "hardswish hardswish_ mish_ _prelu_kernel masked_fill masked_fill_ rsub",
    _copy: "copy copy_",
    _reduce: "mean sum amax amin max min var std logsumexp linalg_vector_norm norm",
    _linear: """
        linear
        scaled_dot_product_attention _scaled_dot_product_flash_attention
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention
        _scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable
        _scaled_dot_product_attention_math
        """,
    _convolve: """
        convolution _convolution convolution_overrideable cudnn_convolution cudnn_convolution_transpose
        mkldnn_convolution miopen_convolution conv2d conv3d conv_transpose2d conv_transpose3d
        max_pool2d_with_indices max_pool3d_with_indices max_pool2d max_pool3d avg_pool2d avg_pool3d
        adaptive_max_pool2d adaptive_max_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
        fractional_max_pool2d fractional_max_pool3d upsample_nearest2d upsample_nearest3d
        _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_bilinear2d upsample_trilinear3d
        _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa
        """,
}

_RULES: dict[str, Rule] = {
    **{f"aten::{name}": rule for rule, names in _NAMES.items() for name in names.split()},
    **dict.fromkeys(_FACTORS, _multiply),
    "torchvision::deform_conv2d": _convolve,
}
