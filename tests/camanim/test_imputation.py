"""Imputation, compared with its definition, grad-cam and the direct solution; blur and mean."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from scipy.ndimage import gaussian_filter

from camanim.road import BlurImputer, DirectImputer, MeanImputer, MultigridImputer
from camanim.road.imputation import weights
from camanim.stack import upsample

RNG = np.random.default_rng(0)

MASKS = {
    "noisy": RNG.random((24, 30)) < 0.4,
    "half": np.arange(30)[None].repeat(24, 0) < 15,
    "one pixel removed": np.arange(720).reshape(24, 30) != 300,
    "one pixel kept": np.arange(720).reshape(24, 30) == 300,
    "corner removed": ~((np.arange(24)[:, None] < 9) & (np.arange(30)[None] < 9)),
}


@pytest.mark.parametrize("name", MASKS)
def test_imputation_equals_grad_cams_without_noise(name):
    kept = MASKS[name]
    picture = torch.from_numpy(RNG.normal(size=(3, 24, 30)).astype(np.float32))
    expected = NoisyLinearImputer(noise=0)(picture, torch.from_numpy(kept.astype(np.float32)))
    filled = DirectImputer()(picture, torch.from_numpy(kept[None]))[0]
    assert (filled - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", MASKS)
def test_every_removed_pixel_is_the_weighted_mean_of_its_neighbours(name):
    """The definition for each pixel, with the weights renormalised at the border."""
    kept = MASKS[name]
    picture = torch.from_numpy(RNG.normal(size=(1, 24, 30)).astype(np.float32))
    filled = DirectImputer()(picture, torch.from_numpy(kept[None]))[0, 0].double().numpy()
    np.testing.assert_array_equal(filled[kept], picture[0].numpy()[kept])
    for y, x in np.argwhere(~kept):
        inside = [
            (w, filled[y + dy, x + dx])
            for (dy, dx), w in weights(2).items()
            if 0 <= y + dy < 24 and 0 <= x + dx < 30
        ]
        mean = sum(w * v for w, v in inside) / sum(w for w, _ in inside)
        assert abs(filled[y, x] - mean) < 1e-5


def test_an_image_without_removed_pixels_is_unchanged():
    picture = torch.rand(2, 8, 8)
    kept = torch.ones(1, 8, 8, dtype=torch.bool)
    for imputer in (DirectImputer(), MultigridImputer(), MultigridImputer(compiled=False)):
        assert torch.equal(imputer(picture, kept)[0], picture)


def test_the_weights_are_those_of_the_paper():
    assert len(weights(2)) == 8
    assert sum(weights(2).values()) == pytest.approx(1)
    for dy, dx in itertools.product((-1, 0, 1), repeat=2):
        if dy or dx:
            assert weights(2)[dy, dx] == pytest.approx(1 / 6 if 0 in (dy, dx) else 1 / 12)


def masks_of(*size):
    """Return smooth, noisy, blob-like and extreme masks of any number of axes."""
    rng = np.random.default_rng(1)
    smooth = upsample(rng.random([5] * len(size)).astype(np.float32), size)
    blobs, noise = gaussian_filter(rng.random(size), max(size) / 10), rng.random(size)
    masks = {"half": np.indices(size)[0] < size[0] // 2}
    for p in (2, 20, 50, 80, 98):
        masks[f"smooth {p}"] = smooth < np.percentile(smooth, p)
        masks[f"blobs {p}"] = blobs < np.percentile(blobs, p)
        masks[f"noise {p}"] = noise < np.percentile(noise, p)
    one = np.zeros(size, bool)
    one[tuple(n // 3 for n in size)] = True
    corner = np.zeros(size, bool)
    corner[(0,) * len(size)] = True
    edge = np.zeros(size, bool)
    edge[0] = True
    masks |= {"one kept": one, "one removed": ~one, "corner kept": corner, "edge kept": edge}
    return masks | {"all kept": np.ones(size, bool)}


BOTH = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])


@BOTH
@pytest.mark.parametrize("size", [(96, 96), (45, 70), (33, 9), (5, 128)], ids=str)
def test_multigrid_gives_the_direct_solution(size, compiled):
    masks = masks_of(*size)
    kept = torch.from_numpy(np.stack(list(masks.values())))
    image = torch.from_numpy(RNG.normal(size=(3, *size)).astype(np.float32))
    exact = DirectImputer()(image, kept)
    filled = MultigridImputer(compiled=compiled)(image, kept)
    errors = dict(zip(masks, (filled - exact).abs().amax((1, 2, 3)).tolist(), strict=True))
    assert max(errors.values()) < 1e-4, errors


def test_multigrid_gives_the_direct_solution_in_volumes():
    masks = masks_of(17, 20, 24)
    kept = torch.from_numpy(np.stack(list(masks.values())))
    image = torch.from_numpy(RNG.normal(size=(1, 17, 20, 24)).astype(np.float32))
    error = MultigridImputer()(image, kept) - DirectImputer()(image, kept)
    assert error.abs().max() < 1e-4


@BOTH
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(2, 21), st.integers(2, 21)),
    channels=st.integers(1, 3),
    fraction=st.floats(0.02, 0.98),
    scale=st.sampled_from([1e-3, 1.0, 255.0]),
    seed=st.integers(0, 99),
)
def test_multigrid_gives_the_direct_solution_for_random_masks(
    compiled, size, channels, fraction, scale, seed
):
    rng = np.random.default_rng(seed)
    mask = rng.random((2, *size)) < fraction
    # At least one pixel must be kept.
    mask[:, 0, 0] = True
    kept = torch.from_numpy(mask)
    image = torch.from_numpy(rng.normal(size=(channels, *size)).astype(np.float32)) * scale
    error = MultigridImputer(compiled=compiled)(image, kept) - DirectImputer()(image, kept)
    assert error.abs().max() <= 1e-5 * (image.max() - image.min()) + 1e-6 * scale


@BOTH
def test_results_do_not_depend_on_the_other_masks_of_the_batch(compiled):
    """Bitwise equal, because otherwise scores would depend on the layers scored before."""
    kept = torch.from_numpy(np.stack(list(masks_of(40, 44).values())))
    image = torch.from_numpy(RNG.normal(size=(3, 40, 44)).astype(np.float32))
    imputer = MultigridImputer(compiled=compiled)
    together = imputer(image, kept)
    for i in (0, 3, 7, len(kept) - 1):
        assert torch.equal(imputer(image, kept[i : i + 1])[0], together[i])


@BOTH
def test_the_memory_format_of_the_image_does_not_matter(compiled):
    kept = torch.from_numpy(masks_of(30, 31)["blobs 20"])[None]
    image = torch.from_numpy(RNG.normal(size=(30, 31, 3)).astype(np.float32)).permute(2, 0, 1)
    imputer = MultigridImputer(compiled=compiled)
    assert torch.equal(imputer(image, kept), imputer(image.contiguous(), kept))


def test_a_constant_image_is_unchanged():
    kept = torch.from_numpy(masks_of(30, 31)["blobs 20"])[None]
    image = torch.full((2, 30, 31), 0.3)
    for imputer in (MultigridImputer(), MultigridImputer(compiled=False)):
        torch.testing.assert_close(imputer(image, kept)[0], image)


def test_loops_are_compiled_without_a_cache_folder(monkeypatch):
    import numba

    from camanim.road import compiled

    njit = numba.njit

    def refuse(*signature, cache=False, **settings):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*signature, **settings)

    monkeypatch.setattr(numba, "njit", refuse)
    twice = compiled._loop(lambda x: 2 * x)
    assert twice(21) == 42


def test_blur_is_scipys_away_from_the_border():
    image = torch.from_numpy(RNG.normal(size=(2, 112, 96)).astype(np.float32))
    kept = torch.zeros(1, 112, 96, dtype=torch.bool)
    filled = BlurImputer()(image, kept)[0].numpy()
    # 5 pixels of 224 are 2.5 of 112.
    expected = gaussian_filter(image.numpy(), (0, 2.5, 2.5), radius=(0, 8, 8))
    np.testing.assert_allclose(filled[:, 8:-8, 8:-8], expected[:, 8:-8, 8:-8], atol=1e-5)
    # Renormalised at the border, so that a constant image is unchanged.
    assert BlurImputer()(torch.ones(1, 20, 20), kept[:, :20, :20]).eq(1).all()


def test_blur_and_mean_do_not_change_kept_voxels():
    image = torch.from_numpy(RNG.normal(size=(2, 6, 7, 8)).astype(np.float32))
    kept = torch.from_numpy(RNG.random((3, 6, 7, 8)) < 0.5)
    for imputer in (BlurImputer(), MeanImputer()):
        filled = imputer(image, kept)
        for c in range(2):
            assert torch.equal(filled[:, c][kept], image[c].expand(3, -1, -1, -1)[kept])
    mean = MeanImputer()(image, kept)[1, 1][~kept[1]]
    torch.testing.assert_close(mean, image[1].mean().expand_as(mean))
