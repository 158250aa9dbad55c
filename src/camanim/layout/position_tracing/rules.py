"""What each operation of torch does to the positions that run along with its operands.

An operation without a rule gives no positions, and so does whatever is made of its result: an output is
rather left unread than read wrongly.
"""

from __future__ import annotations

import math

import torch

from camanim.layout.position_tracing.companion import (
    PositionMap,
    contracted,
    fresh,
    is_constant,
    on_thin,
    thinned_out,
)
from camanim.layout.position_tracing.operation import Found, Operation, Rule


def run_along(operation: Operation) -> Found:
    """Find the companions of an operation's outputs; fewer, or None, where there are none."""
    rule = _RULES.get(operation.name)
    if rule is None and torch.Tag.pointwise in operation.func.tags:
        rule = _elementwise
    if rule is None:
        return []
    try:
        found = rule(operation)
    except (RuntimeError, TypeError, ValueError, LookupError):
        # Arguments that a rule does not know, such as those of a rare overload.
        return []
    return [
        one if one is not None and one.cells.shape == output.shape else None
        for one, output in zip(found, operation.outputs, strict=False)
    ]


# --- The same numbers, in other places ---------------------------------------------------------


def _move(operation: Operation) -> Found:
    """Do the same to the positions."""
    companion = operation.first
    if companion is None:
        return []
    moved = operation.func(companion.cells, *operation.args[1:], **operation.kwargs)
    parts = moved if isinstance(moved, list | tuple) else [moved]
    return [companion.moved(part) for part in parts]


def _take(operation: Operation) -> Found:
    """Move a part; every second cell makes a grid of its own."""
    found = _move(operation)
    if operation.given.get("step", 1) == 1:
        return found
    return [part and thinned_out(part) for part in found]


def _reshape(operation: Operation) -> Found:
    companion = operation.first
    if companion is None or operation.func._overloadname != "default":
        # ``view(dtype)`` is no movement.
        return []
    cells, shape = companion.cells, operation.output.shape
    # Channels that are the same all along need not be copied.
    if cells.ndim and shape and cells.shape[-1] == shape[-1] and cells.stride(-1) == 0:
        narrow = cells[..., :1].reshape(*shape[:-1], 1)
        return [companion.moved(narrow.expand(shape))]
    return [companion.moved(cells.reshape(shape))]


def _keep(operation: Operation) -> Found:
    """The first output is about what the first operand is about."""
    return [operation.first]


def _roll(operation: Operation) -> Found:
    companion, axes = operation.first, operation.axes("dims")
    if companion is None or not axes:
        return []
    shifts = operation.given["shifts"]
    return [companion.moved(on_thin(companion.cells, axes, lambda c: c.roll(shifts, axes)))]


def _pad(operation: Operation) -> Found:
    """What is added has no cell, mirrored or not."""
    companion = operation.first
    if companion is None:
        return []
    pad = list(operation.given.get("pad") or operation.given["padding"])
    ndim = companion.cells.ndim
    touched = [ndim - 1 - i for i in range(len(pad) // 2) if pad[2 * i] or pad[2 * i + 1]]

    def move(cells: torch.Tensor) -> torch.Tensor:
        return torch.constant_pad_nd(cells, pad, -1)

    return [companion.moved(on_thin(companion.cells, touched, move))]


def _unfold(operation: Operation) -> Found:
    """Patches, cut out by an operation that takes floating numbers only and pads with 0."""
    companion = operation.first
    if companion is None:
        return []
    cells = companion.cells.double() + 1
    moved = operation.func(cells, *operation.args[1:], **operation.kwargs)
    return [companion.moved((moved - 1).int())]


def _join(operation: Operation) -> Found:
    tensors = [t for t in operation.args[0] if t.numel()]
    companions = [operation.find(tensor) for tensor in tensors]
    known = [one for one in companions if one is not None and one.has_cells()]
    unknown = any(
        one is None and operation.from_image(tensor)
        for one, tensor in zip(companions, tensors, strict=True)
    )
    if unknown or not known or len({companion.space for companion in known}) > 1:
        return []
    parts = [
        torch.full((), -1, dtype=torch.int32, device=tensor.device).expand(tensor.shape)
        if companion is None
        else companion.cells
        for tensor, companion in zip(tensors, companions, strict=True)
    ]
    axis = int(operation.given.get("dim", 0))
    if operation.name == "aten::stack":
        axis %= operation.output.ndim
        parts = [part.unsqueeze(axis) for part in parts]
    axis %= operation.output.ndim
    thin = [
        a for a in range(operation.output.ndim)
        if a != axis and all(part.stride(a) == 0 for part in parts)
    ]  # fmt: skip
    for a in thin:
        parts = [part.narrow(a, 0, 1) for part in parts]
    joined = torch.cat(parts, axis).expand(operation.output.shape)
    pairs = any(companion.pairs for companion in known)
    return [PositionMap(joined, known[0].space, pairs)]


# --- Number by number --------------------------------------------------------------------------


def _elementwise(operation: Operation) -> Found:
    """All operands are about the same; those without cells do not matter."""
    operands = [*operation.args, *operation.kwargs.values()]
    companions = [operation.find(tensor) for tensor in operands]
    known = [companion for companion in companions if companion is not None]
    if len(known) > 1:
        known = [companion for companion in known if companion.has_cells()] or known[:1]
    shape = operation.output.shape
    known = [companion.moved(companion.cells.expand(shape)) for companion in known]
    if not known or not all(known[0].agrees(other) for other in known[1:]):
        return []
    pairs = any(companion.pairs for companion in known)
    return [PositionMap(known[0].cells, known[0].space, pairs)]


def _copy(operation: Operation) -> Found:
    """What is written to a tensor replaces what it was about."""
    companion = operation.find(operation.given["src"])
    if companion is None:
        return []
    return [companion.moved(companion.cells.expand(operation.output.shape))]


# --- Sums over an axis -------------------------------------------------------------------------


def _reduce(operation: Operation) -> Found:
    companion, axes = operation.first, operation.axes("dim")
    if companion is None or not axes:
        return []
    left = contracted(companion, axes)
    if left is not None and operation.given.get("keepdim", False):
        cells = left.cells
        for axis in sorted(axes):
            cells = cells.unsqueeze(axis)
        left = left.moved(cells)
    # Maxima come with their places.
    return [left] * len(operation.outputs)


def _multiply(operation: Operation) -> Found:
    """A matrix product: about what the rows are about, or else the columns."""
    a, b = (operation.given[name] for name in _FACTORS[operation.name])
    rows, columns = operation.find(a), operation.find(b)
    left, right = _Factor(rows, -1), _Factor(columns, -2)
    shape = operation.output.shape
    if left.has_cells and (not left.mixed or right.mixed or not right.has_cells):
        assert left.rest is not None
        pairs = rows is not None and rows.pairs
        if columns is not None:
            # Cells by cells are attention's; multiplied with cells again, they are no more.
            apart = _varies(rows, -2) and _varies(columns, -1) and not (left.mixed or right.mixed)
            pairs = apart and not pairs and columns.space == left.rest.space
        return [PositionMap(left.rest.cells.unsqueeze(-1).expand(shape), left.rest.space, pairs)]
    if right.has_cells:
        assert right.rest is not None
        pairs = right.rest.pairs and rows is None
        return [PositionMap(right.rest.cells.unsqueeze(-2).expand(shape), right.rest.space, pairs)]
    known = [factor.rest for factor in (left, right) if factor.whole is not None]
    if not known or known[0] is None or known[-1] is None:
        return []
    # Summed over all cells; channels by channels, where both were.
    by_channels = left.mixed and right.mixed and not (_varies(rows, -2) or _varies(columns, -1))
    return [known[0].without_cells(shape, pairs=by_channels)]


class _Factor:
    """One of two that are multiplied: what is left of its companion when an axis is summed."""

    def __init__(self, whole: PositionMap | None, axis: int) -> None:
        self.whole, self.mixed = whole, False
        self.rest: PositionMap | None = None
        if whole is not None:
            axis %= whole.cells.ndim
            self.rest, self.mixed = contracted(whole, [axis]), not is_constant(whole.cells, axis)
        self.has_cells = self.rest is not None and self.rest.has_cells()


def _varies(companion: PositionMap | None, axis: int) -> bool:
    return companion is not None and not is_constant(companion.cells, axis % companion.cells.ndim)


def _linear(operation: Operation) -> Found:
    """A linear layer works on the last axis; attention is about what the queries are about."""
    companion = operation.first
    left = None if companion is None else contracted(companion, [companion.cells.ndim - 1])
    if left is None:
        return []
    return [left.moved(left.cells.unsqueeze(-1).expand(operation.output.shape))]


# --- Neighbours in space -----------------------------------------------------------------------


def _convolve(operation: Operation) -> Found:
    """A grid of its own; of the size of the input's, that grid."""
    output, companion = operation.output, operation.first
    if output.ndim != operation.args[0].ndim or output.ndim < 3:
        return []
    space, channels = tuple(output.shape[2:]), output.shape[1]
    if companion is None:
        # Something without a rule came before; but images have grids.
        if len(output) != operation.images or not _has_space(space, operation.dims):
            return []
        grid = fresh(operation.images, space, channels, output.device)
        return [grid] * len(operation.outputs)
    companion = contracted(companion, [1])
    if companion is None:
        return []
    if tuple(companion.cells.shape[1:]) != space:
        companion = thinned_out(companion)
    cells = companion.cells
    if tuple(cells.shape[1:]) != space:
        images = _whole(companion, space)
        if images is None or not _has_space(space, operation.dims):
            return []
        cells = fresh(1, space, 1, output.device).cells[0]
        cells = (cells + (images * math.prod(space)).view(-1, *[1] * len(space))).int()
    grid = PositionMap(cells.unsqueeze(1).expand(output.shape), space, companion.pairs)
    if space == tuple(companion.cells.shape[1:]):
        grid = companion.moved(grid.cells)
    return [grid] * len(operation.outputs)


def _whole(companion: PositionMap, space: tuple[int, ...]) -> torch.Tensor | None:
    """Whose grids (n, *s) are, if each is whole and in order, padding apart: the images, (n,).

    Padding is left aside only where `space`, that of the output, is as many times smaller than the grid
    as it is smaller than the padded one.
    """
    cells = companion.cells
    padded = tuple(cells.shape[1:])
    for axis, (side, out) in enumerate(zip(companion.space, space, strict=True), 1):
        some = (cells >= 0).movedim(axis, 0).flatten(1).any(1).nonzero()
        if not len(some):
            return None
        start, length = int(some[0]), int(some[-1] - some[0]) + 1
        factor = max(round(padded[axis - 1] / out), 1)
        fits = out in (side // factor, -(-side // factor))
        if length != side or (length != padded[axis - 1] and not fits):
            return None
        cells = cells.narrow(axis, start, length)
    count = math.prod(companion.space)
    flat = cells.flatten(1)
    images = flat[:, :1] // count
    order = torch.arange(count, dtype=flat.dtype, device=flat.device)
    return images[:, 0] if torch.equal(flat, images * count + order) else None


def _has_space(space: tuple[int, ...], dims: int) -> bool:
    return len(space) == dims and math.prod(space) > 1


# --- Which operation has which rule ------------------------------------------------------------


#: The factors of matrix products, by their names in the schemas.
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
    # Those of its kind that torch does not call pointwise.
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
