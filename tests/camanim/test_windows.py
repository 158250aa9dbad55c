"""Images explained window by window, against the whole image, MONAI and sums over pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import camanim
from camanim import windows as windowed
from camanim.errors import ImageError, LayerError, ScoreError, SettingError, TargetError
from camanim.images import Geometry
from camanim.targets import Segmentation
from camanim.window_grid import place_windows

SHARED = Path(__file__).parents[3] / "shared"
RANDOM = np.random.default_rng(0)


def classifier(size=16):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    preprocess = camanim.Preprocess(None if size is None else (size, size))
    return camanim.Model(net, preprocess=preprocess, classes=["a", "b", "c", "d"])


def pointwise():
    """A network in which a cell of 4 x 4 pixels depends on these pixels only; sums are exact."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 3, 1),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((parameter * 8).round() / 8)
    return camanim.Model(net, preprocess=camanim.Preprocess((16, 16)))


class Counting:
    """An array that notes what is read, and refuses to be read as a whole."""

    def __init__(self, values):
        self.values, self.largest, self.keys = values, 0, []
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        part = self.values[key]
        self.largest = max(self.largest, part.size)
        self.keys.append(key)
        return part

    def __array__(self, *args, **kwargs):
        raise AssertionError("the whole array was read")


def assert_equal_maps(ours, expected):
    assert [a.label for a in ours.layers] == [b.label for b in expected.layers]
    for a, b in zip(ours.maps, expected.maps, strict=True):
        np.testing.assert_array_equal(a, b)


# -- Maps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blending", ["constant", "gaussian"])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_without_context_the_stitched_maps_are_those_of_the_whole_image(blending, overlap):
    # Eighths, as the weights, so that the sums of torch do not depend on their order.
    image = RANDOM.integers(0, 9, (32, 48, 3)).astype(np.float32) / 8
    settings = {"method": "HiResCAM", "target": Segmentation(1, region="image")}
    expected = camanim.animate(pointwise(), image, fit="native", **settings)
    ours = camanim.animate_windows(
        pointwise(), image, overlap=overlap, blending=blending, **settings
    )
    assert len(ours.windows) == (6 if overlap == 0 else 15)
    assert [m.shape for m in ours.maps] == [m.shape for m in expected.maps]
    assert_equal_maps(ours, expected)
    assert ours.geometry == expected.geometry
    np.testing.assert_array_equal(ours.image, expected.image)
    assert ours.placement is None


@pytest.mark.parametrize("target", [None, "c", "a - b"])
@pytest.mark.parametrize("blending", ["constant", "gaussian"])
def test_one_window_is_the_plain_result(target, blending):
    image = RANDOM.integers(0, 255, (16, 16, 3), np.uint8)
    expected = camanim.animate(classifier(), image, target=target)
    ours = camanim.animate_windows(classifier(), image, target=target, blending=blending)
    assert_equal_maps(ours, expected)
    assert ours.probability == expected.probability
    assert ours.target.name == expected.target.name
    assert ours.geometry == expected.geometry
    assert ours.notes == expected.notes == []
    np.testing.assert_array_equal(ours.image, expected.image)
    np.testing.assert_array_equal(np.asarray(ours.stack()), np.asarray(expected.stack()))


@pytest.mark.parametrize(
    "method", ["GradCAM++", "LayerCAM", "EigenCAM", "ScoreCAM", "FinerCAM", "SmoothGradCAM++"]
)
def test_one_window_is_the_plain_result_by_any_method(method):
    image = RANDOM.integers(0, 255, (16, 16, 3), np.uint8)
    expected = camanim.animate(classifier(), image, method=method)
    assert_equal_maps(camanim.animate_windows(classifier(), image, method=method), expected)


@pytest.mark.parametrize("target", [None, 0, 1, 2, Segmentation(2, region="image")])
def test_one_window_of_a_segmentation_is_the_plain_result(target):
    image = RANDOM.integers(0, 255, (16, 16, 3), np.uint8)
    expected = camanim.animate(pointwise(), image, target=target)
    ours = camanim.animate_windows(pointwise(), image, target=target)
    assert_equal_maps(ours, expected)
    assert ours.probability == expected.probability
    assert ours.target.describe() == expected.target.describe()


def in_pixels(raw, size):
    return raw.repeat(size[0] // raw.shape[0], 0).repeat(size[1] // raw.shape[1], 1)


@pytest.mark.parametrize("blending", ["constant", "gaussian"])
@pytest.mark.parametrize("max_cells", [2**23, 100])
def test_windows_are_blended_by_area(blending, max_cells):
    """Each cell is a weighted mean over all of its pixels in all windows that cover them."""
    from monai.data.utils import compute_importance_map

    image = RANDOM.integers(0, 255, (32, 44, 3), np.uint8)[:, :42]
    model = classifier()
    ours = camanim.animate_windows(
        model, image, target=1, blending=blending, max_cells=max_cells, layers="blocks"
    )
    corners = list(ours.windows)
    # The last window ends at the edge, at no multiple of a cell of 4 pixels.
    assert (16, 26) in corners
    crops = [
        camanim.animate(model, image[y : y + 16, x : x + 16], target=1, layers="blocks")
        for y, x in corners
    ]
    for i, stitched in enumerate(ours.maps):
        assert stitched.size <= max_cells
        shape = crops[0].maps[i].shape
        weight = in_pixels(compute_importance_map(shape, mode=blending).double().numpy(), (16, 16))
        sums, weights = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
        for (y, x), crop in zip(corners, crops, strict=True):
            sums[y : y + 16, x : x + 16] += weight * in_pixels(crop.maps[i].astype(float), (16, 16))
            weights[y : y + 16, x : x + 16] += weight
        # To a common multiple of cells and pixels, along both axes.
        fine = np.ones((stitched.shape[0], stitched.shape[1]))
        sums, weights = np.kron(sums, fine), np.kron(weights, fine)
        cells = (stitched.shape[0], image.shape[0], stitched.shape[1], image.shape[1])
        expected = sums.reshape(cells).sum((1, 3)) / weights.reshape(cells).sum((1, 3))
        np.testing.assert_allclose(
            stitched, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max()
        )
    assert any("resampled" in note for note in ours.notes)
    assert any("reduced" in note for note in ours.notes) == (max_cells == 100)


def channel(activation):
    return activation[1]


def test_maps_of_a_volume_agree_with_monais_sliding_window_inference():
    from monai.inferers import sliding_window_inference
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    net = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=(4, 8, 16), strides=(2, 2))
    volume = RANDOM.random((40, 32, 56)).astype(np.float32)
    model = camanim.Model(net, preprocess=camanim.Preprocess((32, 32, 32), channels=1))
    net.eval()
    for blending in ("constant", "gaussian"):
        ours = camanim.animate_windows(
            model, volume, overlap=0.25, blending=blending, method=channel, layers="all",
            target=Segmentation(1, region="image"),
        )  # fmt: skip
        with torch.no_grad():
            expected = sliding_window_inference(
                torch.from_numpy(volume)[None, None], (32, 32, 32), 1, net, 0.25, blending
            )
        assert ours.windows.shape == (2, 1, 2)
        last = [i for i, layer in enumerate(ours.layers) if layer.name == ""]
        np.testing.assert_allclose(ours.maps[last[0]], expected[0, 1], rtol=1e-4, atol=1e-5)
        assert ours.stack().shape[1:] == volume.shape
        assert ours.plane(3).maps[0].ndim == 2


def test_a_volume_that_is_smaller_than_a_window_is_padded_with_a_note():
    net = nn.Sequential(nn.Conv3d(1, 3, 1), nn.ReLU(), nn.Conv3d(3, 2, 1))
    model = camanim.Model(net, preprocess=camanim.Preprocess((16, 16, 16), channels=1))
    volume = RANDOM.integers(-1000, 400, (10, 16, 24)).astype(np.int16)
    settings = {
        "method": "HiResCAM",
        "target": Segmentation(1, region="image"),
        "window": (-1000, 400),
    }
    ours = camanim.animate_windows(model, volume, **settings)
    expected = camanim.animate(model, volume, fit="native", **settings)
    assert_equal_maps(ours, expected)
    assert any("padded" in note for note in ours.notes)


def test_windows_of_another_size_are_resized_or_not():
    image = RANDOM.integers(0, 255, (64, 64, 3), np.uint8)
    stretched = camanim.animate_windows(classifier(), image, size=32, overlap=0, target=0)
    # Windows of 32 pixels in an input of 16: a cell of the first convolution has 4 pixels.
    assert stretched.maps[0].shape == (16, 16)
    assert stretched.geometry == Geometry((32, 32), (2.0, 2.0))
    crop = camanim.animate(classifier(), image[:32, 32:], target=0)
    np.testing.assert_array_equal(stretched.maps[0][:8, 8:], crop.maps[0])
    native = camanim.animate_windows(
        classifier(), image, size=32, overlap=0, target=0, fit="native"
    )
    crop = camanim.animate(classifier(), image[:32, 32:], target=0, fit="native")
    np.testing.assert_array_equal(native.maps[0][:16, 16:], crop.maps[0])


# -- Windows and what is read ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "size", "overlap", "starts"),
    [
        # 168 of 224 is rounded down to 160, and 72 of 96 to 64, for cells of up to 32.
        (400, 224, 0.25, (0, 160, 176)),
        (224, 224, 0.25, (0,)),
        (100, 224, 0.25, (0,)),
        (300, 96, 0.25, (0, 64, 128, 192, 204)),
        (448, 224, 0.0, (0, 224)),
        (36, 16, 0.5, (0, 8, 16, 20)),
        (20, 7, 0.0, (0, 7, 13)),
    ],
)
def test_places_of_windows(image, size, overlap, starts):
    assert place_windows((image,), (size,), overlap, "constant").starts == (starts,)


def test_no_more_is_read_than_one_window_at_once_from_any_source(tmp_path):
    import dask.array

    image = RANDOM.integers(0, 255, (64, 80, 3), np.uint8)
    path = tmp_path / "slide.npy"
    np.save(path, image)
    expected = camanim.animate_windows(classifier(), image)
    counting = Counting(image)
    for source in (
        counting,
        np.load(path, mmap_mode="r"),
        dask.array.from_array(image, chunks=(20, 20, 3)),
        [image, image[::2, ::2]],
    ):
        assert_equal_maps(camanim.animate_windows(classifier(), source), expected)
    assert counting.largest == 16 * 16 * 3


def test_windows_of_a_box_cover_the_box_only():
    image = RANDOM.integers(0, 255, (200, 210, 3), np.uint8)
    counting = Counting(image)
    box = (30, 40, 94, 120)
    ours = camanim.animate_windows(classifier(), counting, box=box, target=0)
    expected = camanim.animate_windows(classifier(), image[30:94, 40:120], target=0)
    assert_equal_maps(ours, expected)
    assert ours.source_geometry == Geometry((64, 80), offset=(30.0, 40.0))
    for axis, (start, stop) in enumerate([(30, 94), (40, 120)]):
        assert min(key[axis].start for key in counting.keys) == start
        assert max(key[axis].stop for key in counting.keys) == stop


def test_limits_of_intensities_are_those_of_the_whole_image():
    image = RANDOM.integers(100, 4000, (40, 40), np.uint16)
    image[:20] //= 4
    ours = camanim.animate_windows(classifier(), image, overlap=0, target=0, size=20)
    low, high = int(image.min()), int(image.max())
    expected = camanim.animate_windows(
        classifier(), image, overlap=0, target=0, size=20, window=(low, high)
    )
    assert_equal_maps(ours, expected)
    whole = camanim.animate(classifier(), image)
    assert set(whole.notes) <= set(ours.notes)
    np.testing.assert_array_equal(ours.image, whole.image)
    with pytest.raises(ImageError, match="outside"):
        camanim.animate_windows(classifier(), image.astype(np.float32))


def test_the_picture_and_the_stack_of_a_huge_image_are_reduced(monkeypatch):
    monkeypatch.setattr(windowed, "_MAX_PIXELS", 700)
    image = RANDOM.integers(0, 255, (50, 61, 3), np.uint8)
    ours = camanim.animate_windows(classifier(), image, target=0)
    assert ours.image.shape == (17, 21, 3)
    np.testing.assert_array_equal(ours.image[:-1, :-1], image[1:48:3, 1:60:3])
    assert ours.stack().shape[1:] == (17, 21)
    placed = ours.source_geometry
    covered = [s * n for s, n in zip(placed.scale, placed.size, strict=True)]
    assert covered == pytest.approx([50, 61])
    assert ours.maps[0].shape == (25, 30)
    assert any("one of 3 pixels" in note for note in ours.notes)


# -- Target ----------------------------------------------------------------------------------------


def probabilities(model, image, windows):
    """Predict each window by the network alone, (N, K)."""
    with torch.no_grad():
        crops = [
            torch.from_numpy(image[y : y + 16, x : x + 16] / 255.0).permute(2, 0, 1)
            for y, x in windows
        ]
        return model.net(torch.stack(crops).float()).softmax(1).double().numpy()


def test_the_class_is_that_of_the_highest_mean_probability():
    image = RANDOM.integers(0, 255, (48, 64, 3), np.uint8)
    image[:16, :16] = (255, 0, 0)
    model = classifier()
    with torch.no_grad():
        # Strong opinions that differ between windows.
        model.net[-1].weight.mul_(60)
        model.net[-1].bias.zero_()
    ours = camanim.animate_windows(model, image, overlap=0)
    table = probabilities(model, image, ours.windows)
    assert ours.target.index == table.mean(0).argmax()
    column = table[:, ours.target.index]
    np.testing.assert_allclose(ours.windows.values.reshape(-1), column, rtol=1e-4, atol=1e-9)
    assert ours.probability == pytest.approx(column.mean(), rel=1e-4)
    named = camanim.animate_windows(model, image, overlap=0, target="d")
    np.testing.assert_allclose(named.windows.values.reshape(-1), table[:, 3], rtol=1e-4, atol=1e-9)


def bright_and_blue():
    """Segments pixels: 1 where red is high, 2 where blue is high, 0 elsewhere."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0, 0, 0], [9, 0, 0], [0, 0, 9]])[..., None, None])
        net[0].bias.copy_(torch.tensor([4.0, 0, 0]))
    return camanim.Model(
        net, preprocess=camanim.Preprocess((16, 16)), classes=["none", "red", "blue"]
    )


def test_a_segmentation_explains_its_largest_class_and_no_window_without_it():
    image = np.zeros((16, 64, 3), np.uint8)
    image[:, 18:30, 0] = 255
    image[:3, 60:, 2] = 255
    model = bright_and_blue()
    ours = camanim.animate_windows(model, image, overlap=0, method="HiResCAM")
    assert ours.target.name == "red"
    np.testing.assert_array_equal(np.isfinite(ours.windows.values), True)
    assert (ours.windows.values > 0).tolist() == [[False, True, False, False]]
    # The map of the scores: that of red, where red is predicted.
    predicted = ours.maps[0] > 0
    np.testing.assert_array_equal(predicted, image[..., 0] > 0)
    whole = camanim.animate(model, image, fit="native", method="HiResCAM")
    assert ours.probability == pytest.approx(whole.probability)
    blue = camanim.animate_windows(model, image, overlap=0, target="blue")
    assert (blue.windows.values > 0).tolist() == [[False, False, False, True]]
    assert blue.target.describe()["region"] == "predicted"


def test_a_class_that_no_window_predicts_is_explained_everywhere_as_by_animate():
    image = RANDOM.integers(0, 20, (16, 32, 3), np.uint8)
    model = bright_and_blue()
    ours = camanim.animate_windows(model, image, overlap=0, target="red", method="HiResCAM")
    whole = camanim.animate(model, image, target="red", fit="native", method="HiResCAM")
    assert_equal_maps(ours, whole)
    assert ours.target.describe() == whole.target.describe()


def test_counterfactual_maps_are_the_negatives():
    image = RANDOM.integers(0, 255, (16, 40, 3), np.uint8)
    settings = {"method": "HiResCAM", "target": 1}
    for model in (classifier(), pointwise()):
        plain = camanim.animate_windows(model, image, **settings)
        against = camanim.animate_windows(model, image, counterfactual=True, **settings)
        for a, b in zip(plain.maps, against.maps, strict=True):
            np.testing.assert_array_equal(a, -b)


def test_targets_that_depend_on_places_are_refused():
    image = RANDOM.integers(0, 255, (16, 40, 3), np.uint8)
    for target in (Segmentation(1, mask=np.ones((16, 40))), "1 - 2"):
        with pytest.raises(TargetError):
            camanim.animate_windows(pointwise(), image, target=target)

    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)

        def forward(self, x):
            score = self.conv(x).mean().reshape(1).sigmoid()
            return [{"boxes": torch.zeros(1, 4), "labels": torch.ones(1).long(), "scores": score}]

    model = camanim.Model(Detector(), preprocess=camanim.Preprocess((16, 16)))
    with pytest.raises(TargetError, match="box="):
        camanim.animate_windows(model, image)


def test_a_function_of_the_output_is_a_target():
    image = RANDOM.integers(0, 255, (16, 40, 3), np.uint8)
    ours = camanim.animate_windows(classifier(), image, target=lambda output: output[:, 2])
    expected = camanim.animate_windows(classifier(), image, target=2)
    assert_equal_maps(ours, expected)


# -- Cancelling, findings, refusals ----------------------------------------------------------------


def cancel_after(count, stage="windows"):
    def progress(name, done, total):
        if name == stage and done == count and total:
            raise camanim.Cancelled("stop")

    return progress


def test_a_cancelled_run_keeps_the_windows_that_were_computed():
    image = RANDOM.integers(0, 255, (32, 48, 3), np.uint8)
    model = classifier()
    full = camanim.animate_windows(model, image, overlap=0, target=0)
    ours = camanim.animate_windows(model, image, overlap=0, target=0, progress=cancel_after(4))
    assert ours.cancelled
    assert not full.cancelled
    assert np.isfinite(ours.windows.values).tolist() == [[True] * 3, [True, False, False]]
    for a, b in zip(ours.maps, full.maps, strict=True):
        rows, columns = a.shape[0] // 2, a.shape[1] // 3
        np.testing.assert_array_equal(a[:rows], b[:rows])
        np.testing.assert_array_equal(a[rows:, :columns], b[rows:, :columns])
        assert not a[rows:, columns:].any()
    assert any("4 of 6 windows" in note for note in ours.notes)
    assert not [m for m in model.net.modules() if m._forward_hooks or m._forward_pre_hooks]
    for stage, count in (("target", 0), ("windows", 0)):
        with pytest.raises(camanim.Cancelled):
            camanim.animate_windows(model, image, progress=cancel_after(count, stage))


def test_a_window_that_is_cancelled_half_way_is_left_out():
    image = RANDOM.integers(0, 255, (16, 48, 3), np.uint8)
    reports = []

    def progress(stage, done, total):
        # The first report about a window comes before it.
        if stage == "windows" and (done, total) == (1, 3):
            reports.append(stage)
            if len(reports) == 3:
                raise camanim.Cancelled("stop")

    ours = camanim.animate_windows(classifier(), image, overlap=0, target=0, progress=progress)
    assert len(reports) == 3
    assert ours.windows.computed == 1
    assert ours.cancelled


def test_a_network_that_fails_in_a_later_window_is_left_as_it_was():
    class Fragile(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = classifier().net

        def forward(self, x):
            if x.mean() > 0.9:
                raise ValueError("too bright")
            return self.net(x)

    image = np.zeros((16, 48, 3), np.uint8)
    image[:, 32:] = 255
    net = Fragile().train()
    model = camanim.Model(net, preprocess=camanim.Preprocess((16, 16)))
    for target in (0, None):
        with pytest.raises(camanim.ModelError, match="too bright"):
            camanim.animate_windows(model, image, overlap=0, target=target)
        assert all(m.training for m in net.modules())
        assert not [m for m in net.modules() if m._forward_hooks or m._forward_pre_hooks]
        assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_findings_of_maps_are_computed_and_those_of_the_input_refused(tmp_path):
    image = RANDOM.integers(0, 255, (32, 48, 3), np.uint8)
    animation = camanim.animate_windows(classifier(), image, target=0, layers="blocks")
    mask = np.zeros((32, 48), bool)
    mask[:16, 16:32] = True
    animation.localise(mask)
    needs_input = [kind for kind in camanim.finding_kinds().values() if kind.needs_input]
    assert len(needs_input) > 5
    for kind in needs_input:
        settings = {"mask": mask} if kind.needs_mask else {}
        settings |= {"name": "deletion"} if kind.name == "measure" else {}
        with pytest.raises(ScoreError, match="box="):
            animation.find(kind.name, **settings)
    assert list(animation.findings) == ["localisation"]
    with pytest.raises(ScoreError, match="box="):
        camanim.pipeline.recompute(animation)
    assert animation.write_table(tmp_path / "layers.csv").stat().st_size > 0
    assert animation.write_picture(tmp_path / "layer.png").stat().st_size > 0
    assert animation.write_movie(tmp_path / "layers.mp4").stat().st_size > 0
    assert animation.provenance["windows"]["starts"] == [[0, 12, 16], [0, 12, 24, 32]]


def test_layers_that_are_not_in_all_windows_are_left_out_with_their_status():
    class Brightness(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.c = nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

        def forward(self, x):
            bright = bool(x.mean() > 0.5)
            x = self.a(x)
            return self.head(self.c(self.b(x) if bright else x))

    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255
    model = camanim.Model(Brightness(), preprocess=camanim.Preprocess((16, 16)))
    ours = camanim.animate_windows(model, image, overlap=0, target=0)
    assert [layer.name for layer in ours.layers] == ["a", "c"]
    statuses = {layer.name: layer.status for layer in ours.layer_calls}
    assert statuses["b"] == "different control flow"
    with pytest.raises(LayerError):
        camanim.animate_windows(model, image, overlap=0, target=0, layers="b")


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"fit": "crop"}, SettingError),
        ({"slices": True}, SettingError),
        ({"show_1d": True}, SettingError),
        ({"size": 0}, SettingError),
        ({"size": (16, 16, 16)}, SettingError),
        ({"size": "big"}, SettingError),
        ({"overlap": 1.0}, SettingError),
        ({"blending": "linear"}, SettingError),
        ({"max_cells": 0}, SettingError),
        ({"box": (0, 0, 4)}, SettingError),
        ({"nothing": 1}, SettingError),
    ],
)
def test_wrong_settings_are_refused(settings, error):
    with pytest.raises(error):
        camanim.animate_windows(classifier(), np.zeros((32, 32), np.uint8), **settings)


def test_a_network_without_an_input_size_needs_one():
    image = RANDOM.integers(0, 255, (32, 48, 3), np.uint8)
    with pytest.raises(SettingError, match="size of the windows"):
        camanim.animate_windows(classifier(None), image)
    ours = camanim.animate_windows(classifier(None), image, size=(16, 24), overlap=0, target=0)
    assert ours.windows.shape == (2, 2)


def test_a_callable_preprocessing_gets_windows_of_the_image():
    image = RANDOM.integers(0, 255, (32, 48, 3), np.uint8)
    torch.manual_seed(0)

    def preprocess(pixels):
        return torch.from_numpy(pixels / 255.0).permute(2, 0, 1).float()

    model = camanim.Model(classifier().net, preprocess=preprocess)
    ours = camanim.animate_windows(model, image, size=16, target=0)
    assert_equal_maps(ours, camanim.animate_windows(classifier(), image, target=0))


# -- A real network --------------------------------------------------------------------------------

WEIGHTS = SHARED / "torch" / "hub" / "checkpoints" / "mobilenet_v2-7ebf99e0.pth"


@pytest.mark.skipif(not WEIGHTS.exists(), reason="weights of MobileNetV2 are not here")
def test_mobilenet_finds_a_dog_where_it_is(monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(SHARED / "torch"))
    model = camanim.load_model("torchvision/mobilenet_v2")
    dogs = camanim.read_image(SHARED / "images" / "two_dogs.jpg")
    macaw = camanim.read_image(SHARED / "images" / "macaw.jpg")
    # The dogs fill a window, right and below; a macaw is left.
    scene = np.full((448, 896, 3), 128, np.uint8)
    scene[:, 672:] = 100
    scene[224:, 672:] = resized(dogs)
    scene[:224, :224] = resized(macaw)
    ours = camanim.animate_windows(
        model, scene, target="Italian greyhound", layers=["features.18", "features.13"]
    )
    best = np.unravel_index(ours.windows.values.argmax(), ours.windows.shape)
    at = [starts[i] for starts, i in zip(ours.windows.starts, best, strict=True)]
    # That of the window that covers the dogs, or one that begins 64 pixels before.
    assert at[0] >= 160
    assert at[1] >= 608
    assert ours.windows.values.max() > 0.3
    assert ours.windows.values[0, 0] < 0.01
    for positive in (np.maximum(raw, 0) for raw in ours.maps):
        corner = positive[positive.shape[0] // 2 :, 3 * positive.shape[1] // 4 :]
        # Of an eighth of the area.
        assert corner.sum() > 0.4 * positive.sum()


def resized(picture):
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((224, 224)))
