"""Model cards: a round trip restores the model, and writing is atomic."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import camanim
from camanim import CamError, ModelError, Preprocess
from camanim.models import Untrusted, load_model

UNET = "monai/UNet?spatial_dims={}&in_channels={}&out_channels=2&channels=(2,4)&strides=(2,)"
FLAT, CHANNELS = UNET.format(2, 1), 3


def assert_equal(model: camanim.Model, other: camanim.Model) -> None:
    for name in ("preprocess", "classes", "outputs", "name", "source", "weights"):
        assert getattr(model, name) == getattr(other, name), name
    assert model.weights_hash() == other.weights_hash()


numbers = st.floats(-1e6, 1e6)
positive = st.floats(1e-6, 1e6)
lengths = st.integers(1, 4096)


@st.composite
def preprocessings(draw, dims: int, channels: int) -> Preprocess:
    per_channel = st.sampled_from([1, channels])
    count = draw(per_channel)
    return Preprocess(
        size=draw(st.none() | st.tuples(*[lengths] * dims)),
        resize=draw(st.none() | lengths),
        mean=tuple(draw(st.lists(numbers, min_size=count, max_size=count))),
        std=tuple(draw(st.lists(positive, min_size=count, max_size=count))),
        channels=channels,
        interpolation=draw(st.sampled_from(["bilinear", "bicubic", "nearest", "nearest-exact"])),
        dims=dims,
    )


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([2, 3]), st.sampled_from([1, 3, 5]))
def test_a_round_trip_restores_the_model(tmp_path_factory, data, dims, channels) -> None:
    model = load_model(UNET.format(dims, channels), None)
    model.preprocess = data.draw(preprocessings(dims, channels))
    model.classes = data.draw(st.none() | st.lists(st.text()))
    model.name = data.draw(st.text(min_size=1))
    model.outputs = data.draw(st.sampled_from(["auto", "softmax", "sigmoid", "values"]))
    path = tmp_path_factory.getbasetemp() / "card.toml"
    assert model.save_card(path) == path
    assert_equal(load_model(path), model)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_folder_with_a_card_and_weights_can_be_moved(tmp_path: Path, suffix) -> None:
    net = load_model(FLAT).net
    for parameter in net.parameters():
        parameter.data += 1
    folder, renamed = tmp_path / "folder", tmp_path / "renamed"
    (folder / "weights").mkdir(parents=True)
    weights = folder / "weights" / f"MINE{suffix}"
    if suffix == ".pth":
        torch.save(net.state_dict(), weights)
    else:
        save_file(net.state_dict(), weights)
    model = load_model(FLAT, weights, size=32, classes=["a", "b"])
    model.save_card(folder / "card.toml")
    assert_equal(load_model(folder / "card.toml"), model)
    folder.rename(renamed)
    moved = load_model(renamed / "card.toml")
    assert moved.weights_hash() == model.weights_hash()
    assert moved.preprocess == model.preprocess
    assert str(tmp_path) not in (renamed / "card.toml").read_text()


@pytest.mark.parametrize("name", ["WEIGHTS", "random", "DEFAULT"])
def test_a_file_named_like_published_weights_is_a_file(tmp_path: Path, name) -> None:
    net = load_model(FLAT).net
    torch.save(net.state_dict(), tmp_path / name)
    model = load_model(FLAT, tmp_path / name)
    model.save_card(tmp_path / "card.toml")
    assert load_model(tmp_path / "card.toml").weights == tmp_path / name


def test_arguments_replace_the_entries_of_a_card(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    load_model(FLAT, size=(32, 40), mean=0.25, classes=["a", "b"]).save_card(path)
    model = load_model(path, size=64, classes=["c", "d"], outputs="sigmoid")
    assert model.preprocess == Preprocess(size=(64, 64), mean=(0.25,), channels=1)
    assert model.classes == ["c", "d"]
    assert model.outputs == "sigmoid"


def test_entries_of_a_card_are_optional(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("left\nright\n")
    (tmp_path / "card.toml").write_text(
        f'source = "{FLAT}"\nclasses = "names.txt"\nsize = [16, 24]\nmean = [0]\n'
    )
    model = load_model(str(tmp_path / "card.toml"))
    assert model.classes == ["left", "right"]
    assert model.preprocess == Preprocess(size=(16, 24), mean=(0.0,), channels=1)
    assert model.weights_hash() == load_model(FLAT).weights_hash()


def test_a_new_size_removes_the_resizing_before_the_crop() -> None:
    default = load_model("torchvision/squeezenet1_1", None).preprocess
    assert (default.size, default.resize) == ((224, 224), 256)
    other = load_model("torchvision/squeezenet1_1", None, size=64).preprocess
    assert other == dataclasses.replace(default, size=(64, 64), resize=None)
    assert load_model("torchvision/squeezenet1_1", None, size="native").preprocess.size is None


def test_the_card_of_published_weights_keeps_their_name(torch_home: Path, tmp_path: Path) -> None:
    model = load_model("torchvision/mobilenet_v2", "IMAGENET1K_V2")
    model.save_card(tmp_path / "card.toml")
    assert 'weights = "IMAGENET1K_V2"' in (tmp_path / "card.toml").read_text()
    assert_equal(load_model(tmp_path / "card.toml"), model)


def test_an_object_has_no_card(zoo, tmp_path: Path) -> None:
    for model in (camanim.Model(zoo.Plain()), load_model(zoo.Plain())):
        with pytest.raises(ModelError, match=model.name):
            model.save_card(tmp_path / "card.toml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["card.txt", "nowhere/card.toml", "folder.toml"])
def test_a_card_that_cannot_be_written_leaves_no_file(tmp_path: Path, path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(CamError):
        load_model(FLAT).save_card(tmp_path / path)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.toml"]


def test_a_failed_write_keeps_the_old_card(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    model = load_model(FLAT, classes=["a", "b"])
    model.save_card(path)
    before = path.read_bytes()
    model.classes = ["a", "\ud800"]
    with pytest.raises(ModelError, match="text"):
        model.save_card(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("size = 3", "size"), ("size = [3]", "size"), ("size = [0, 3]", "size"),
        ("size = [1.5, 2.5]", "size"), ('size = "big"', "size"), ("size = [true, true]", "size"),
        ("resize = 0", "resize"), ("mean = 0.5", "mean"), ("mean = []", "mean"),
        ('mean = ["a"]', "mean"), ("mean = [nan]", "mean"), ("mean = [0.1, 0.2]", "mean"),
        ("std = [0.0]", "std"), ("std = [inf]", "std"), ("channels = true", "channels"),
        ("channels = -1", "channels"), ("dims = 4", "dims"), ("outputs = 3", "outputs"),
        ('outputs = "odds"', "outputs"), ('interpolation = "lanczos"', "interpolation"),
        ("classes = [1, 2]", "classes"), ('classes = "none.txt"', "none.txt"),
        ("weights = []", "weights"), ('weights = "none.pth"', "none.pth"), ('colour = "red"', "colour"),
        ("sizes = [2, 2]", r"size\b"), ("name = 1979-05-27", "name"),
        ("trust = true", "trust"), ("half =", "half|Invalid|line"),
        ("mean = [1" + 400 * "0" + "]", "number|mean"),
    ],
)  # fmt: skip
def test_the_error_names_the_card_and_the_key(tmp_path: Path, line, key) -> None:
    path = tmp_path / "card.toml"
    path.write_text(f'source = "{FLAT}"\n{line}\n')
    with pytest.raises(ModelError, match=f"(?s)card.toml.*({key})"):
        load_model(path)


@pytest.mark.parametrize(
    "source", [None, "3", '"other.toml"', '"torchvision/nothing"', '""', '"none.py:build"']
)
def test_a_card_without_a_network_is_refused(tmp_path: Path, source) -> None:
    path = tmp_path / "card.toml"
    path.write_text("" if source is None else f"source = {source}\n")
    with pytest.raises(ModelError, match=r"card\.toml"):
        load_model(path)


@settings(max_examples=100, deadline=None)
@given(st.binary() | st.text().map(str.encode))
def test_any_invalid_content_raises_a_model_error(tmp_path_factory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"any\.toml"):
        load_model(path)


def test_a_card_runs_no_code_unless_trusted(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    (tmp_path / "net.py").write_text(
        f"from pathlib import Path\nfrom torch import nn\nPath({str(proof)!r}).touch()\n"
        "def build():\n    return nn.Conv2d(3, 2, 1)\n"
    )
    path = tmp_path / "card.toml"
    path.write_text('source = "net.py:build"\n')
    with pytest.raises(ModelError, match="trust=True"):
        load_model(path)
    assert not proof.exists()
    model = load_model(path, trust=True)
    assert isinstance(model.net, nn.Conv2d)
    assert proof.exists()
    model.save_card(tmp_path / "again.toml")
    assert 'source = "./net.py:build"' in (tmp_path / "again.toml").read_text()
    with pytest.raises(ModelError, match="trust=True"):
        load_model(tmp_path / "again.toml")


@pytest.mark.parametrize("key", ["weights", "classes", "source"])
@pytest.mark.parametrize("how", ["parent", "absolute", "link", "hidden parent"])
def test_a_card_refers_to_files_beside_it_unless_trusted(tmp_path: Path, key, how) -> None:
    folder, outside = tmp_path / "card", tmp_path / "outside"
    (folder / "in").mkdir(parents=True)
    outside.mkdir()
    state = load_model(FLAT).net.state_dict()
    for place in (outside, folder / "in"):
        torch.save(state, place / "weights")
        (place / "classes").write_text("a\nb\n")
        (place / "source").mkdir()
    (folder / "link").symlink_to(outside)
    text = {
        "parent": f"../outside/{key}", "absolute": str(outside / key), "link": f"link/{key}",
        "hidden parent": f"in/../../outside/{key}",
    }[how]  # fmt: skip
    path = folder / "card.toml"

    def write(entry: str) -> None:
        entries = {"source": FLAT, key: entry}
        path.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in entries.items()))

    write(text)
    with pytest.raises(Untrusted, match="outside of its folder"):
        load_model(path)
    if key == "source":
        with pytest.raises(ModelError, match="no network"):
            load_model(path, trust=True)
        return
    assert getattr(load_model(path, trust=True), key) in (["a", "b"], folder / text)
    write(f"in/../in/{key}")
    load_model(path)


def test_trust_in_a_card_with_code_names_the_code(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text('source = "net.py:build"\nweights = "../weights.pth"\n')
    with pytest.raises(Untrusted, match=r"net\.py"):
        load_model(path)
