"""Values of a pixel through all layers, compared with the stack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import camanim
from camanim.depth import depth_panel, through_depth
from camanim.images import Preprocess
from camanim.render.figures import PRINT, draw, new_figure

from .conftest import Residual

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (37, 53, 3), dtype=np.uint8)
NORMALIZATIONS = [("local", False), ("global", False), (None, False), ("local", True), (None, True)]


def animation(fit: str) -> camanim.Animation:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.MaxPool2d(2), Residual().eval())
    net[2].stem = nn.Conv2d(4, 6, 3, padding=1)
    model = camanim.Model(net.eval(), Preprocess(size=(32, 40)))
    return camanim.animate(model, IMAGE, fit=fit, method="HiResCAM")


@pytest.mark.parametrize(("normalization", "signed"), NORMALIZATIONS)
@pytest.mark.parametrize("fit", ["native", "stretch", "crop"])
def test_the_values_are_those_of_the_stack(fit, normalization, signed):
    result = animation(fit)
    stack = np.asarray(result.stack(normalization, signed=signed))
    geometry = result.geometry
    seen = 0
    for y in range(IMAGE.shape[0]):
        for x in range(IMAGE.shape[1]):
            values = result.through_depth(y, x, normalization=normalization, signed=signed)
            assert values.shape == (len(result),)
            # The input pixel whose area holds the centre of the image's pixel, by a search over all.
            row = [
                i
                for i in range(geometry.size[0])
                if geometry.offset[0] + geometry.scale[0] * i
                <= y + 0.5
                < geometry.offset[0] + geometry.scale[0] * (i + 1)
            ]
            column = [
                i
                for i in range(geometry.size[1])
                if geometry.offset[1] + geometry.scale[1] * i
                <= x + 0.5
                < geometry.offset[1] + geometry.scale[1] * (i + 1)
            ]
            if not row or not column:
                assert np.isnan(values).all()
                continue
            seen += 1
            expected = stack[:, row[0], column[0]]
            np.testing.assert_allclose(values, expected, rtol=2e-5, atol=1e-6 * abs(stack).max())
    assert (seen == IMAGE[..., 0].size) == (fit != "crop")


def volume() -> camanim.Animation:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(1, 3, 3, stride=2), nn.ReLU(), nn.Conv3d(3, 4, 3, padding=1),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    image = RNG.integers(0, 256, (11, 14, 17), dtype=np.uint8)
    return camanim.animate(
        camanim.Model(net.eval(), Preprocess(size=(8, 12, 16), channels=1)), image
    )


@pytest.mark.parametrize("normalization", ["local", "global", None])
def test_volumes_too(normalization):
    result = volume()
    stack = np.asarray(result.stack(normalization))
    for z, y, x in np.ndindex(result.image.shape):
        values = through_depth(result, z, y, x, normalization=normalization)
        cell = [
            int((v + 0.5) * n / m)
            for v, n, m in zip((z, y, x), (8, 12, 16), (11, 14, 17), strict=True)
        ]
        np.testing.assert_allclose(
            values, stack[(slice(None), *cell)], rtol=2e-5, atol=1e-6 * abs(stack).max()
        )
    plane = result.plane(5)
    assert plane.through_depth(3, 4).shape == (len(result),)


def test_positions_are_checked():
    result = animation("stretch")
    for wrong in [(1,), (1, 2, 3), ("a", 2), (float("nan"), 1)]:
        with pytest.raises(camanim.ImageError):
            result.through_depth(*wrong)
    for outside in [(-1, 0), (0, 53), (37, 0)]:
        assert np.isnan(result.through_depth(*outside)).all()
    assert not np.isnan(result.through_depth(-0.4, 52.4)).any()


def test_the_panel_marks_the_highest_layer():
    result = animation("crop")
    panel = depth_panel(result, 18, 26)
    values = result.through_depth(18, 26)
    np.testing.assert_array_equal(panel.lines[0].y, values.astype(np.float64))
    assert panel.marks[0].at == values.argmax()
    figure, (axes,) = new_figure(4, 3, 1, PRINT)
    draw(figure, axes, panel, PRINT)
    (line, *_) = axes.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), panel.lines[0].y)
    assert depth_panel(result, 0, 0).instead
