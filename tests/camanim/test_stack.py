"""The lazy array of all maps."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import camanim
from camanim.errors import RenderError
from camanim.stack import Stack, upsample

NORMALIZATIONS = ("local", "global", None)
quickly = settings(max_examples=60, deadline=None)
# From the largest to the smallest of float32, as raw maps of deep networks are.
values = st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32)


@st.composite
def raw_maps(draw, least: int = 1) -> list[np.ndarray]:
    shapes = draw(st.lists(hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), min_size=least,
                           max_size=4))  # fmt: skip
    return [draw(hnp.arrays(np.float32, shape, elements=values)) for shape in shapes]


@pytest.fixture
def maps() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=s).astype(np.float32) for s in [(3, 4), (6, 7), (2, 2), (1, 5), (9, 1)]]


# --- An array --------------------------------------------------------------------------------

indices = st.integers(-5, 4)
parts = st.one_of(
    indices, st.slices(5), st.lists(indices, min_size=1, max_size=4),
    hnp.arrays(bool, 5), st.just(Ellipsis),
)  # fmt: skip


@quickly
@given(
    st.one_of(
        parts,
        st.tuples(parts),
        st.tuples(parts, st.integers(-8, 7)),
        st.tuples(parts, st.slices(8)),
        st.tuples(parts, st.slices(8), st.slices(9)),
        st.tuples(parts, st.slices(8), st.integers(-9, 8)),
        st.tuples(st.integers(-5, 4), st.integers(-8, 7), st.integers(-9, 8)),
        st.tuples(st.slices(5), st.slices(8), st.lists(st.integers(-9, 8), min_size=1)),
        st.tuples(st.slices(5), st.just(Ellipsis), st.integers(-9, 8)),
        st.tuples(st.just(Ellipsis), st.slices(8), st.slices(9)),
    )
)
def test_indexing_is_numpys(key) -> None:
    rng = np.random.default_rng(0)
    stack = Stack([rng.random((3, 4), np.float32) for _ in range(5)], (8, 9))
    whole = np.asarray(stack)
    section = stack[key]
    np.testing.assert_array_equal(section, whole[key])
    assert np.asarray(section).dtype == np.float32


@pytest.mark.parametrize(
    "key",
    [
        (),
        None,
        ([0, 1], [2, 3]),
        ([0, 1], [2, 3], [4, 5]),
        ([0, 1], slice(None), [4, 5]),
        (0, [2, 3], [4, 5]),
        (0, slice(None), [4, 5]),
        np.array([[0, 1], [2, 3]]),
        (slice(None), None, 0),
        np.zeros((5, 8, 9), bool),
    ],
    ids=["nothing", "None", "points", "points in 3-D", "around a slice", "points of a plane",
         "around a slice of a plane", "2-D list", "new axis", "mask"],
)  # fmt: skip
def test_the_rarer_kinds_of_indexing_are_numpys_too(maps, key) -> None:
    """Several lists select points, not a grid."""
    stack = Stack(maps, (8, 9))
    np.testing.assert_array_equal(stack[key], np.asarray(stack)[key])


@pytest.mark.parametrize("key", [5, -6, (0, 8), (0, 0, 9), [0, 5], "a", 1.0, (0, 0, 0, 0)])
def test_indexing_beyond_the_array_is_an_index_error(maps, key) -> None:
    with pytest.raises(IndexError):
        Stack(maps, (8, 9))[key]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("signed", [False, True])
def test_it_supports_the_array_protocol(maps, normalization, signed) -> None:
    stack = Stack(maps, (8, 9), normalization, signed=signed)
    whole = np.asarray(stack)
    assert stack.shape == whole.shape == (5, 8, 9)
    assert (stack.dtype, stack.ndim, stack.size, len(stack)) == (np.float32, 3, whole.size, 5)
    np.testing.assert_array_equal(np.stack(list(stack)), whole)
    np.testing.assert_array_equal(da.from_array(stack, chunks=(2, 8, 9)).compute(), whole)
    assert np.asarray(stack, dtype=np.float64).dtype == np.float64


def test_only_indexed_slices_are_computed(maps, monkeypatch) -> None:
    computed = []
    plane = Stack.plane
    monkeypatch.setattr(Stack, "plane", lambda self, i: computed.append(i) or plane(self, i))
    stack = Stack(maps, (8, 9))
    assert computed == []
    stack[3], stack[-1], stack[1:3], stack[[0, 0]]
    assert computed == [3, 4, 1, 2, 0, 0]


def test_writing_into_a_slice_changes_no_map(maps) -> None:
    before = [m.copy() for m in maps]
    for normalization in NORMALIZATIONS:
        for signed in (False, True):
            for size in ((3, 4), (8, 9)):
                Stack(maps, size, normalization, signed=signed)[0][:] = 7
    for a, b in zip(maps, before, strict=True):
        np.testing.assert_array_equal(a, b)


# --- Values ----------------------------------------------------------------------------------


@quickly
@given(raw_maps())
def test_local_and_global_lie_between_0_and_1(maps) -> None:
    for normalization in ("local", "global"):
        whole = np.asarray(Stack(maps, (6, 6), normalization))
        assert np.isfinite(whole).all()
        assert whole.min() >= -1e-6
        assert whole.max() <= 1 + 1e-6


@quickly
@given(raw_maps())
def test_local_is_min_max_after_the_relu(maps) -> None:
    stack = Stack(maps, (6, 6), "local")
    for i, raw in enumerate(maps):
        positive = np.maximum(raw, 0).astype(np.float64)
        native = stack.native(i)
        if np.ptp(positive) > 0:
            expected = (positive - positive.min()) / np.ptp(positive)
            np.testing.assert_allclose(native, expected, atol=1e-6)
            assert (native.min(), native.max()) == (0, 1)
        else:
            assert not native.any()
        np.testing.assert_array_equal(stack[i], upsample(native, (6, 6)))


@quickly
@given(raw_maps())
def test_global_is_min_max_over_all_layers(maps) -> None:
    stack = Stack(maps, (6, 6), "global")
    natives = [stack.native(i) for i in range(len(maps))]
    every = np.maximum(np.concatenate([m.ravel() for m in maps]), 0).astype(np.float64)
    if np.ptp(every) > 0:
        assert max(n.max() for n in natives) == 1
        assert min(n.min() for n in natives) == 0
        expected = (np.maximum(maps[0].astype(np.float64), 0) - every.min()) / np.ptp(every)
        np.testing.assert_allclose(natives[0], expected, atol=1e-6)
    else:
        assert not any(n.any() for n in natives)
    assert all(stack.limits(i) == stack.limits(0) for i in range(len(maps)))


@quickly
@given(raw_maps())
def test_signed_keeps_zero_and_signs(maps) -> None:
    for normalization in ("local", "global"):
        stack = Stack(maps, (6, 6), normalization, signed=True)
        largest = max(np.abs(m).max() for m in maps)
        for i, raw in enumerate(maps):
            native = stack.native(i)
            assert np.abs(native).max() <= 1
            assert not native[raw == 0].any()
            scale = np.float64(largest if normalization == "global" else np.abs(raw).max())
            if scale > 0:
                np.testing.assert_allclose(native, raw / scale, atol=1e-6)
        whole = np.asarray(stack)
        assert np.isfinite(whole).all()
        assert np.abs(whole).max() <= 1 + 1e-6
        if largest > 0:
            assert max(np.abs(stack.native(i)).max() for i in range(len(maps))) == 1


@pytest.mark.parametrize("normalization", ["local", "global"])
@pytest.mark.parametrize("value", [0.0, 5.0, -5.0, 1e-38, 1e-45, 3e38])
def test_a_constant_map_is_zero(normalization, value) -> None:
    stack = Stack([np.full((3, 4), value, np.float32)], (8, 9), normalization)
    assert not np.asarray(stack).any()


def test_a_constant_map_among_others_keeps_its_height() -> None:
    constant, other = np.full((2, 2), 3, np.float32), np.array([[0, 6]], np.float32)
    stack = Stack([constant, other], (4, 4), "global")
    np.testing.assert_allclose(stack[0], 0.5)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_map_without_positive_values_is_zero(normalization) -> None:
    negative = -np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    positive = np.arange(12, dtype=np.float32).reshape(3, 4)
    stack = Stack([negative, positive], (8, 9), normalization)
    assert not stack[0].any()
    assert stack[1].any()
    assert Stack([negative], (8, 9), normalization, signed=True)[0].max() < 0


@quickly
@given(raw_maps())
def test_without_normalisation_it_is_the_raw_map_upsampled(maps) -> None:
    for i, raw in enumerate(maps):
        np.testing.assert_array_equal(
            Stack(maps, (6, 6), None)[i], upsample(np.maximum(raw, 0), (6, 6))
        )
        np.testing.assert_array_equal(
            Stack(maps, (6, 6), None, signed=True)[i], upsample(raw, (6, 6))
        )


def test_the_smallest_numbers_still_fill_the_range() -> None:
    """Raw maps of an untrained MobileNetV2 reach 1e-9; grad-cam's 1e-7 makes them nearly black."""
    tiny = np.array([[0, 1, 2, 4]], np.float32) * np.float32(1e-44)
    np.testing.assert_allclose(Stack([tiny], (1, 4))[0], [[0, 0.25, 0.5, 1]], atol=0.1)


@pytest.mark.parametrize("wrong", ["Local", "", 0, False, "minmax"])
def test_an_unknown_normalisation_is_refused(maps, wrong) -> None:
    with pytest.raises(RenderError, match="normalization"):
        Stack(maps, (8, 9), wrong)


def test_an_animations_stack_is_of_the_networks_input_size(zoo, image) -> None:
    model = camanim.Model(zoo.shake(zoo.Plain()), camanim.Preprocess(size=(16, 12)))
    animation = camanim.animate(model, image)
    stack = animation.stack("global", signed=True)
    assert stack.shape == (6, 16, 12)
    assert (stack.normalization, stack.signed) == ("global", True)
    assert np.asarray(animation.stack()).min() == 0


def test_upsampling_takes_pixels_for_areas() -> None:

    ramp = np.array([[0.0, 4.0]], np.float32)
    np.testing.assert_allclose(upsample(ramp, (1, 4)), [[0, 1, 3, 4]])
    np.testing.assert_allclose(upsample(ramp, (3, 2)), np.repeat(ramp, 3, axis=0))


@quickly
@given(
    plane=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.floats(-1, 1, width=32),
    ),
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
)
def test_a_plane_is_resized_as_by_torch(plane, size) -> None:
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(plane)[None, None], size, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(upsample(plane, size), expected[0, 0].numpy(), atol=1e-6)
