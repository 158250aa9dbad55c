"""Saved results: equal after a round trip, safe to open, and shown by other viewers."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import zipfile
from dataclasses import fields, is_dataclass
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import camanim
from camanim import CamError, ModelError, RenderError, ScoreError, StoreError, samples, targets
from camanim.store.container import document_hash
from camanim.store.encoding import Encoder, decode

SUFFIXES = (".camanim.zarr", ".ozx", ".camanim.zip")
#: Layers of the demo network, so that the tests are short.
FEW = ["features.denseblock1", "features.transition2", "features.denseblock3", "features.norm5"]


def same(a: object, b: object) -> None:
    """Assert that two values are equal to the last bit, whatever they are made of."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if not a.is_meta:
            same(a.view(torch.uint8).numpy() if a.ndim else a.item(),
                 b.view(torch.uint8).numpy() if b.ndim else b.item())  # fmt: skip
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()
    elif is_dataclass(a):
        assert type(a) is type(b)
        for f in fields(a):
            same(getattr(a, f.name), getattr(b, f.name))
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert type(a) is type(b)
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif isinstance(a, np.generic):
        assert type(a) is type(b)
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, float):
        assert np.float64(a).tobytes() == np.float64(b).tobytes()
    else:
        assert a == b
        assert type(a) is type(b) or isinstance(a, str)


def same_result(a: camanim.Animation, b: camanim.Animation) -> None:
    """Assert that all of two results but the network and the method object is equal."""
    excluded = ("model", "computed_with", "guided", "provenance")
    for f in fields(a):
        if f.name not in excluded:
            same(getattr(a, f.name), getattr(b, f.name))
    assert json.dumps(a.provenance, default=str) == json.dumps(b.provenance, default=str)
    if a.guided is not None:
        same(a.guided, b.guided)
    assert a.model.shown_name == b.model.shown_name
    assert a.model.classes == b.model.classes
    assert a.table() == b.table()
    assert [a.caption(i) for i in range(len(a))] == [b.caption(i) for i in range(len(b))]
    assert a.warnings == b.warnings
    assert a.cancelled == b.cancelled
    assert a.initial_index == b.initial_index


@pytest.fixture(scope="module")
def demo() -> camanim.Animation:
    """Maps of the demo network with several findings; not to be changed."""
    model, image = camanim.load_model("demo/ultrasound"), samples.image("malignant_1")
    animation = camanim.animate(model, image, layers=FEW)
    animation.score(repeats=2, draws=2)
    animation.measure("deletion")
    animation.check_labels()
    animation.check_randomisation()
    animation.localise(samples.mask("malignant_1"))
    animation.check_region(samples.mask("malignant_1"))
    animation.check_layers(transforms=19)
    animation.check_activation(draws=19)
    return animation


@pytest.fixture
def saved(demo, tmp_path) -> Path:
    return demo.save(tmp_path / "demo.camanim.zarr")


class Volume(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(4, 3, 3, padding=1),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
        )


def ramp(*shape: int) -> np.ndarray:
    return np.linspace(0, 255, math.prod(shape)).reshape(shape).astype(np.uint8)


def flat_net() -> camanim.Model:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return camanim.Model(
        net, camanim.Preprocess(size=(32, 32), channels=1), ["a", "ß", "<c>\ud800"]
    )


class Pixels(nn.Module):
    """Scores for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x).relu())


def cancelled_run() -> camanim.Animation:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "maps" and done >= 2:
            raise camanim.Cancelled("stop")

    model = camanim.load_model("demo/ultrasound")
    return camanim.animate(
        model, samples.image("normal_1"), method="EigenCAM", layers="blocks", progress=stop
    )


CASES = {
    "plain": lambda: camanim.animate(flat_net(), ramp(40, 48)),
    "colour": lambda: camanim.animate(
        camanim.load_model("torchvision/squeezenet1_1", weights=None),
        ramp(70, 90, 3),
        layers="Conv2d",
    ),
    "volume": lambda: camanim.animate(Volume(), ramp(8, 12, 16)),
    "slices": lambda: camanim.animate(flat_net(), ramp(3, 40, 48), slices=True),
    "plane": lambda: camanim.animate(Volume(), ramp(8, 12, 16)).plane(3),
    "windows": lambda: camanim.animate_windows(flat_net(), ramp(70, 90), size=32),
    "box": lambda: camanim.animate(flat_net(), ramp(40, 48), box=(4, 8, 36, 40)),
    "guided": lambda: camanim.animate(flat_net(), ramp(40, 48), method="GuidedGradCAM"),
    "counterfactual": lambda: camanim.animate(flat_net(), ramp(40, 48), counterfactual=True),
    "contrast": lambda: camanim.animate(flat_net(), ramp(40, 48), target="a - ß"),
    "finer": lambda: camanim.animate(flat_net(), ramp(40, 48), method="FinerCAM"),
    "function": lambda: camanim.animate(flat_net(), ramp(40, 48), target=lambda y: y[:, 0] ** 2),
    "similarity": lambda: camanim.animate(
        flat_net(), ramp(40, 48), target=targets.Similarity(torch.tensor([1.0, 2, -1]))
    ),
    "bfloat16": lambda: camanim.animate(
        flat_net(),
        ramp(40, 48),
        target=targets.Similarity(torch.tensor([1.0, 2, -1]).to(torch.bfloat16)),
    ),
    "norm": lambda: camanim.animate(flat_net(), ramp(40, 48), target=targets.Norm()),
    "segmentation": lambda: camanim.animate(
        camanim.Model(Pixels(), camanim.Preprocess(channels=1)),
        ramp(20, 24),
        target=targets.Segmentation(1, mask=ramp(20, 24) > 100),
    ),
    "settings": lambda: camanim.animate(
        flat_net(),
        ramp(40, 48),
        method="ScoreCAM",
        options={"channels": 2},
        layers=["0", "3"],
        window=(10, 200),
        augment=True,
        eigen_smooth=False,
        layouts={"3": "NCHW"},
        show_1d=True,
        seed=7,
    ),
    "cancelled": cancelled_run,
}


@pytest.mark.parametrize("case", CASES)
def test_a_result_is_equal_after_a_round_trip(case, tmp_path) -> None:
    animation = CASES[case]()
    if case == "function":
        opened = camanim.load(animation.save(tmp_path / "a.ozx"))
        assert opened.target.describe() == animation.target.describe()
        for name in ("name", "index", "unit"):
            assert getattr(opened.target, name) == getattr(animation.target, name)
        with pytest.raises(CamError):
            opened.target.score(torch.zeros(1, 3))
        opened.target = animation.target
        opened.model = animation.model
    else:
        opened = camanim.load(animation.save(tmp_path / "a.ozx"))
    same_result(animation, opened)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_findings_come_back_and_no_network_is_loaded(demo, suffix, tmp_path) -> None:
    opened = camanim.load(demo.save(tmp_path / f"demo{suffix}"))
    assert len(opened.findings) == 8
    same_result(demo, opened)
    assert np.array_equal(opened.stack("global")[3], demo.stack("global")[3])
    opened.write_table(tmp_path / "table.csv")
    opened.write_picture(tmp_path / "picture.png")
    opened.write_plot(tmp_path / "plot.png")
    assert not opened.model.is_loaded


def test_what_is_new_is_computed_with_the_network(demo, saved) -> None:
    opened = camanim.load(saved)
    opened.findings.clear()
    opened.score(repeats=2, draws=2)
    assert opened.model.is_loaded
    same(opened.road, demo.road)
    again = camanim.load(saved)
    assert again.through_depth(10, 10) is not None
    what_if = camanim.WhatIf(camanim.load(saved))
    assert what_if.result.model.is_loaded


def test_rerun_says_that_numbers_are_equal(demo, saved) -> None:
    run = camanim.rerun(camanim.load(saved))
    assert run.equal
    verdicts = {each.part: each.verdict for each in run.differences}
    assert verdicts["maps"] == "equal"
    assert verdicts["road"] == "equal"
    assert verdicts["localisation"] == "not compared"
    assert set(demo.findings) < set(verdicts)
    for a, b in zip(demo.maps, run.result.maps, strict=True):
        same(a, b)


def test_rerun_notices_a_changed_map_and_a_changed_score(saved) -> None:
    opened = camanim.load(saved)
    opened.maps[2][0, 0] += np.abs(opened.maps[2]).max()
    opened.road.morfs[0, 3] += 0.1
    run = camanim.rerun(opened)
    verdicts = {each.part: each.verdict for each in run.differences}
    assert verdicts["maps"] == "different"
    assert verdicts["road"] == "different"
    assert verdicts["layer_test"] == "equal"
    assert not run.equal
    (maps,) = [each for each in run.differences if each.part == "maps"]
    assert opened.layers[2].label in maps.words


def test_differences_in_rounding_are_close(demo) -> None:
    other = demo.plane(None) if len(demo.geometry.size) == 3 else camanim.animate(
        demo.model, samples.image("malignant_1"), layers=FEW
    )  # fmt: skip
    other.maps[0] = np.nextafter(other.maps[0], np.float32(np.inf))
    verdicts = {each.part: each.verdict for each in camanim.diff(demo, other)}
    assert verdicts["maps"] == "close"
    assert verdicts["road"] == "not compared"


def test_diff_names_settings_and_layers_that_differ(demo) -> None:
    other = camanim.animate(
        demo.model, samples.image("malignant_1"), method="LayerCAM", layers="Conv2d"
    )
    parts = {each.part: each for each in camanim.diff(demo, other)}
    assert "GradCAM" in parts["method"].words
    assert "LayerCAM" in parts["method"].words
    assert parts["layers"].verdict == "different"
    assert "image sha256" not in parts


def test_a_network_with_other_weights_is_refused(tmp_path) -> None:
    net = flat_net()
    path = camanim.animate(net, ramp(40, 48)).save(tmp_path / "a.ozx")
    opened = camanim.load(path)
    with pytest.raises(ModelError, match="given as an object"):
        opened.score()
    with torch.no_grad():
        net.net[0].weight += 1
    with pytest.raises(ModelError, match="other weights"):
        camanim.load(path, model=net)
    opened = camanim.load(path, model=flat_net())
    opened.score(draws=2)
    assert np.isfinite(opened.road.scores).any()


def test_random_weights_are_named_and_come_back(tmp_path) -> None:
    model = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    animation = camanim.animate(model, ramp(64, 64, 3), layers=["features.3", "features.12"])
    opened = camanim.load(animation.save(tmp_path / "a.ozx"))
    assert opened.random_weights
    assert opened.model.random_weights
    assert not opened.model.is_loaded
    assert camanim.rerun(opened).equal
    assert opened.model.random_weights


def test_code_of_a_network_runs_only_with_trust(tmp_path) -> None:
    mark = tmp_path / "ran"
    source = tmp_path / "net.py"
    source.write_text(
        "import pathlib, torch\nfrom torch import nn\n"
        "def build():\n"
        f"    pathlib.Path({str(mark)!r}).touch()\n"
        "    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    model = camanim.load_model(f"{source}:build", trust=True)
    path = camanim.animate(model, ramp(20, 24, 3)).save(tmp_path / "a.camanim.zarr")
    mark.unlink()
    opened = camanim.load(path)
    with pytest.raises(camanim.Untrusted):
        opened.score()
    assert not mark.exists()
    assert camanim.rerun(camanim.load(path, trust=True)).equal
    assert mark.exists()
    # The path of the network is relative to the file, so that a folder with both can be moved.
    assert str(tmp_path) not in (path / "zarr.json").read_text()


@pytest.mark.parametrize("image", ["thumbnail", "none"])
@pytest.mark.parametrize("suffix", SUFFIXES[:2])
def test_without_the_image_nothing_of_it_is_saved(image, suffix, tmp_path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (200, 300), np.uint8)
    model = camanim.load_model("demo/ultrasound")
    animation = camanim.animate(model, pixels, layers="blocks")
    path = animation.save(tmp_path / f"a{suffix}", image=image)
    opened = camanim.load(path)
    assert opened.image.shape == animation.image.shape
    if image == "thumbnail":
        assert len(np.unique(opened.image)) > 100
        assert (opened.image == animation.image).mean() < 0.2
    else:
        assert not opened.image.any()
    for a, b in zip(animation.maps, opened.maps, strict=True):
        same(a, b)
    with pytest.raises(ScoreError):
        opened.score()
    with pytest.raises(ScoreError):
        camanim.rerun(opened)
    with pytest.raises(CamError):
        camanim.WhatIf(opened)
    assert opened.caption(0) == animation.caption(0)
    complete = camanim.load(path, image=pixels)
    same(complete.tensor, animation.tensor)
    same(complete.image, animation.image)
    same(complete.notes, animation.notes)
    with pytest.raises(StoreError):
        camanim.load(path, image=pixels[::-1])


def test_thumbnails_of_colour_images_and_volumes(tmp_path) -> None:
    for case in ("colour", "volume", "slices"):
        animation = CASES[case]()
        opened = camanim.load(animation.save(tmp_path / f"{case}.ozx", image="thumbnail"))
        assert opened.image.shape == animation.image.shape


# -- What may not be written ---------------------------------------------------------------------------


def test_a_folder_that_is_no_result_is_not_replaced(demo, tmp_path) -> None:
    target = tmp_path / "a.camanim.zarr"
    target.mkdir()
    demo.save(target)
    demo.save(target)
    shutil.rmtree(target)
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError):
        demo.save(target)
    assert (target / "thesis.txt").read_text() == "mine"
    with pytest.raises(CamError):
        demo.save(tmp_path / "a.txt")
    with pytest.raises(RenderError):
        demo.save(tmp_path / "missing" / "a.camanim.zarr")
    (tmp_path / "file.zarr").write_text("mine")
    with pytest.raises(RenderError):
        demo.save(tmp_path / "file.zarr")
    with pytest.raises(StoreError):
        demo.save(tmp_path / "b.ozx", image="half")
    assert sorted(os.listdir(tmp_path)) == ["a.camanim.zarr", "file.zarr"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_save_leaves_what_was_there(demo, suffix, existing, tmp_path) -> None:
    target = tmp_path / f"a{suffix}"
    if existing:
        demo.save(target, image="none")

    def stop(stage: str, done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.save(target, progress=stop)
    assert os.listdir(tmp_path) == ([target.name] if existing else [])
    if existing:
        assert not camanim.load(target).image.any()


def test_equal_results_are_equal_files(demo, tmp_path) -> None:
    first, second = (demo.save(tmp_path / f"{name}.ozx") for name in "ab")
    assert first.read_bytes() == second.read_bytes()


# -- What may not be read ------------------------------------------------------------------------------


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    return path


def edit(path: Path, change) -> None:
    """Change the attributes of a saved folder."""
    document = json.loads((path / "zarr.json").read_text())
    about = document["attributes"]["camanim"]
    change(about)
    with contextlib.suppress(KeyError):
        about["sha256"] = document_hash(about["result"])
    (path / "zarr.json").write_text(json.dumps(document))


def refused(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        camanim.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_a_newer_version_is_named(saved) -> None:
    edit(saved, lambda about: about.update(format=2, version="9.8"))
    assert "9.8" in refused(saved)


CHANGES = {
    "no format": lambda about: about.pop("format"),
    "format of another type": lambda about: about.update(format="1"),
    "no result": lambda about: about.pop("result"),
    "result of another type": lambda about: about.update(result=[1]),
    "a map that does not exist": lambda about: about["result"]["maps"].__setitem__(0, ["x", 0]),
    "a row that does not exist": lambda about: about["result"]["maps"][0].__setitem__(1, 99),
    "a layer that does not exist": lambda about: about["result"]["layers"].__setitem__(0, 99999),
    "too few layers": lambda about: about["result"]["layers"].pop(),
    "a path out of the folder": lambda about: about["arrays"].update({"../../x": "0" * 64}),
    "an unknown target": lambda about: about["result"].update(
        target={"$type": "Popen", "fields": {"args": ["touch", "/tmp/x"]}}
    ),
    "an unknown mark": lambda about: about["result"].update(target={"$eval": "1"}),
    "a target of another type": lambda about: about["result"].update(target=[1, 2]),
    "findings of other shapes": lambda about: about["result"]["findings"]["road"]["fields"].update(
        morfs={"$array": about["result"]["maps"][0][0]}
    ),
    "a huge image": lambda about: about["result"]["image"].update(
        saved="none", shape=[1048576, 1048576, 1048576]
    ),
    "a huge input": lambda about: about["result"].update(input_shape=[1, 2, 3, 4, 5, 6]),
    "a method of code": lambda about: about["result"].update(
        computed_with={"method": 3, "settings": {}}
    ),
    "an hash of another array": lambda about: about["arrays"].update(
        dict.fromkeys(about["arrays"], "0" * 64)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_metadata_are_refused(saved, change) -> None:
    edit(saved, CHANGES[change])
    refused(saved)


def test_damaged_files_are_refused(saved, demo, tmp_path) -> None:
    archive = demo.save(tmp_path / "a.ozx")
    whole = archive.read_bytes()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1000):
        archive.write_bytes(whole[:length])
        refused(archive)
    for name in ("missing.ozx", "missing.camanim.zarr"):
        refused(tmp_path / name)
    (tmp_path / "text.ozx").write_text("hello")
    refused(tmp_path / "text.ozx")
    (tmp_path / "empty.zarr").mkdir()
    refused(tmp_path / "empty.zarr")
    # zarr would take the missing chunk for zeros.
    chunk = next(p for p in sorted((saved / "maps").rglob("c/**/*")) if p.is_file())
    chunk.unlink()
    refused(saved)


def test_a_file_with_other_codecs_links_or_duplicates_is_refused(demo, tmp_path) -> None:
    def folder(name: str) -> Path:
        return demo.save(tmp_path / f"{name}.camanim.zarr")

    path = folder("codec")
    node = next((path / "maps").glob("*/zarr.json"))
    document = json.loads(node.read_text())
    document["codecs"].append({"name": "numcodecs.pickle", "configuration": {}})
    node.write_text(json.dumps(document))
    refused(path)

    path = folder("huge")
    document = json.loads(node.read_text())
    document["codecs"].pop()
    document["shape"] = [2**40, *document["shape"][1:]]
    (path / node.relative_to(tmp_path / "codec.camanim.zarr")).write_text(json.dumps(document))
    refused(path)

    path = folder("link")
    (path / "secret").symlink_to("/etc/passwd")
    refused(path)

    archive = zipped(folder("double"), tmp_path / "double.ozx")
    with zipfile.ZipFile(archive, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("zarr.json", "{}")
    refused(archive)

    archive = tmp_path / "bomb.ozx"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zarr.json", b" " * 2**26)
    refused(archive)

    deep = folder("deep") / "zarr.json"
    deep.write_text('{"attributes": ' + "[" * 100_000 + "]" * 100_000 + "}")
    refused(deep.parent)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_file_with_one_changed_byte_is_equal_or_refused(data, tmp_path_factory, demo) -> None:
    folder = tmp_path_factory.getbasetemp() / "bytes"
    path, whole = folder / "a.ozx", folder / "whole.ozx"
    if not whole.exists():
        folder.mkdir(exist_ok=True)
        demo.save(whole, stack=False, image="none")
    content = bytearray(whole.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        opened = camanim.load(path)
    except StoreError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
    else:
        for a, b in zip(demo.maps, opened.maps, strict=True):
            same(a, b)


# -- Any value -----------------------------------------------------------------------------------------

numbers = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(),
)  # fmt: skip
scalars = st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1"]).flatmap(
    lambda d: hnp.from_dtype(np.dtype(d)).map(np.dtype(d).type)
)
arrays = hnp.arrays(
    st.sampled_from(["<f4", "<f8", "<f2", "<i8", "|u1", "|b1"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
values = st.recursive(
    st.one_of(numbers, scalars, arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.just("$x")), inner, max_size=3),
        st.dictionaries(st.integers(), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(values)
def test_any_value_is_equal_after_encoding_as_json(value) -> None:
    encoder = Encoder()
    text = json.dumps(encoder.encode(value, "value"), allow_nan=False)
    same(value, decode(json.loads(text), lambda name: encoder.arrays[name]))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_maps_are_equal_after_a_round_trip(data, demo, tmp_path_factory) -> None:
    count = len(demo)
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=4)
    maps = [data.draw(hnp.arrays(np.float32, shapes, elements=finite)) for _ in range(count)]
    changed = camanim.animation.as_animation(demo)
    changed.maps, changed.findings = maps, {}
    changed.probability = data.draw(st.floats())
    changed.notes = data.draw(st.lists(st.text(), max_size=3))
    folder = tmp_path_factory.mktemp("maps")
    stack = data.draw(st.booleans())
    opened = camanim.load(changed.save(folder / "a.ozx", stack=stack))
    for a, b in zip(maps, opened.maps, strict=True):
        same(a, b)
    same(opened.probability, changed.probability)
    same(opened.notes, changed.notes)


def test_what_a_file_cannot_hold_is_an_error() -> None:
    for value in (object(), {1, 2}, np.array([object()]), lambda: 0, b"bytes", 1j):
        with pytest.raises(StoreError):
            Encoder().encode(value, "value")


# -- Other viewers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["plain", "colour", "volume", "windows", "box"])
@pytest.mark.parametrize("suffix", [".camanim.zarr", ".ozx"])
def test_files_are_valid_ome_zarr(case, suffix, tmp_path) -> None:
    """The validator has the schema of the specification."""
    ngff_zarr = pytest.importorskip("ngff_zarr")
    path = CASES[case]().save(tmp_path / f"a{suffix}")
    places = [path] if suffix == ".ozx" else [path, path / "image"]
    for place in places:
        image = ngff_zarr.from_ngff_zarr(str(place), validate=True).images[0]
        assert np.asarray(image.data).max() > 0


def test_other_viewers_show_the_stack_at_its_place(tmp_path) -> None:
    """A bright corner of a box is at the same place in the stack as in the image."""
    ngff_zarr = pytest.importorskip("ngff_zarr")

    class Bright(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AvgPool2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(x).flatten(1).square().sum(1, keepdim=True).repeat(1, 2)

    pixels = np.zeros((80, 120), np.uint8)
    pixels[40:48, 88:96] = 255
    model = camanim.Model(Bright(), camanim.Preprocess(size=(32, 64), channels=1))
    animation = camanim.animate(model, pixels, layers="AvgPool2d", box=(16, 56, 80, 120))
    path = animation.save(tmp_path / "a.camanim.zarr")
    image = ngff_zarr.from_ngff_zarr(str(path)).images[0]
    stack = np.asarray(image.data)
    assert stack.shape == (1, 32, 64)
    brightest = np.argwhere(stack[0] == stack[0].max()).mean(0)
    world = [
        image.scale[k] * at + image.translation[k] for k, at in zip("yx", brightest, strict=True)
    ]
    assert np.abs(np.array(world) - (43.5, 91.5)).max() < 1.1


def test_napari_ome_zarr_shows_a_slider_of_layers(demo, tmp_path) -> None:
    reader = pytest.importorskip("napari_ome_zarr")
    path = str(demo.save(tmp_path / "a.camanim.zarr"))
    (data, about, *_), *others = reader.napari_get_reader(path)(path)
    stack = np.asarray(data[0] if isinstance(data, list) else data)
    shown = demo.stack("local")
    assert stack.shape == shown.shape
    assert np.abs(stack / 255 - shown[:]).max() < 0.003
    assert about["axis_labels"] == ("layer", "y", "x")
    assert about["scale"][1:] == list(demo.geometry.scale)
    assert others == []


def test_large_inputs_have_a_smaller_stack_at_the_same_place(tmp_path) -> None:
    import zarr

    animation = camanim.animate_windows(
        flat_net(), ramp(1500, 2100), size=512, overlap=0, fit="native"
    )
    root = zarr.open_group(animation.save(tmp_path / "a.camanim.zarr"), mode="r")
    assert root["stack"].shape[1:] == (750, 1050)
    (transforms,) = [d["coordinateTransformations"] for d in
                     root.attrs["ome"]["multiscales"][0]["datasets"]]  # fmt: skip
    assert transforms[0]["scale"] == [1, 2, 2]
    assert transforms[1]["translation"] == [0, 0.5, 0.5]


def test_the_schema_in_the_docs_is_that_of_the_code() -> None:
    import jsonschema

    from camanim.store.format import schema

    jsonschema.Draft202012Validator.check_schema(schema())
    guide = Path(__file__).parents[2] / "docs" / "file-format.md"
    text = guide.read_text(encoding="utf-8")
    required = schema()["properties"]["result"]["required"]
    assert [name for name in required if f"`{name}`" not in text] == []
