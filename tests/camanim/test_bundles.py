"""Networks from MONAI bundles, with and without code in their configs."""

from __future__ import annotations

import inspect
import json
import socket
import sys
from pathlib import Path

import pytest
import torch
from monai.networks import nets as monai_networks

from camanim import ModelError, Preprocess
from camanim.models import Untrusted, load_model, monai

UNET = "monai/UNet?spatial_dims=2&in_channels=1&out_channels=2&channels=(2,4)&strides=(2,)"

PLAIN = {
    "_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2,
    "channels": [2, 4], "strides": [2],
}  # fmt: skip


def make_bundle(folder: Path, config: dict, name: str = "inference.json", **files: object) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    text = json.dumps(config)
    (folder / "configs" / name).write_text(text)
    for stem, content in files.items():
        (folder / "configs" / f"{stem}.json").write_text(json.dumps(content))
    torch.save(load_model(UNET).net.state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.mark.parametrize("name", ["inference.json", "inference.yaml", "train.json", "train.yml"])
@pytest.mark.parametrize(
    "target", ["UNet", "monai.networks.nets.UNet", "monai.networks.nets.unet.UNet"]
)
def test_a_plain_bundle_needs_no_trust(tmp_path: Path, name, target) -> None:
    config = {
        "classes": 2, "shape": {"channels": [2, 4]},
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": PLAIN | {"_target_": target, "out_channels": "@classes",
                                "channels": "@shape::channels"},
        "network": "$@network_def.to(@device)",
    }  # fmt: skip
    metadata = {
        "network_data_format": {
            "inputs": {"image": {"num_channels": 1, "spatial_shape": [48, 32]}},
            "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen"}}},
        }
    }
    folder = make_bundle(tmp_path / "bundle", config, name, metadata=metadata)
    model = load_model(folder)
    assert model.classes == ["background", "spleen"]
    assert model.preprocess == Preprocess(size=(48, 32), channels=1)
    assert model.weights_hash() == load_model(UNET).weights_hash()
    assert model.name == "bundle bundle"
    model.save_card(tmp_path / "card.toml")
    assert load_model(tmp_path / "card.toml").preprocess == model.preprocess
    assert load_model(str(folder), None, size=16, classes=["a", "b"]).classes == ["a", "b"]


def touch(proof: Path) -> str:
    return f"$__import__('pathlib').Path({str(proof)!r}).touch() or 2"


@pytest.mark.parametrize(
    "change",
    [
        lambda proof: {"network_def": PLAIN | {"out_channels": touch(proof)}},
        lambda proof: {"n": touch(proof), "network_def": PLAIN | {"out_channels": "@n"}},
        lambda proof: {"n": [0, {"m": touch(proof)}],
                       "network_def": PLAIN | {"out_channels": "@n::1::m"}},
        lambda proof: {"network_def": PLAIN | {"channels": [2, touch(proof)]}},
        lambda proof: {"network_def": PLAIN | {"_requires_": touch(proof)}},
        lambda proof: {"network_def": PLAIN | {"_disabled_": touch(proof)}},
        lambda proof: {"network_def": {"_target_": "os.mkdir", "path": str(proof)}},
        lambda proof: {"network_def": {"_target_": "monai.networks.nets.os.mkdir",
                                       "path": str(proof)}},
        lambda proof: {"network_def": PLAIN | {"act": {"_target_": "os.mkdir",
                                                       "path": str(proof)}}},
        lambda proof: {"network_def": touch(proof)},
        lambda proof: {"imports": "$import os", "network_def": "$import os"},
        lambda proof: {"network": touch(proof)},
        lambda proof: {"network_def": PLAIN | {"act": "%other.json::x"}},
        lambda proof: {"a": "@b", "b": "@a", "network_def": PLAIN | {"act": "@a"}},
        lambda proof: {"network_def": PLAIN | {"_target_": touch(proof)}},
        lambda proof: {"network_def": PLAIN | {"_target_": "scripts.net.Net"}},
    ],
    ids=["value", "reference", "deep reference", "in a list", "requires", "disabled", "os", "nets.os",
         "nested", "all", "import", "another key", "macro", "round", "target", "script"],
)  # fmt: skip
def test_the_code_of_a_bundle_is_not_run_unless_trusted(tmp_path: Path, change) -> None:
    proof = tmp_path / "executed"
    folder = make_bundle(tmp_path / "bundle", change(proof))
    (folder / "scripts").mkdir()
    (folder / "scripts" / "net.py").write_text(f"import os\nos.mkdir({str(proof)!r})\n")
    with pytest.raises(Untrusted, match="trust=True"):
        load_model(folder)
    assert not proof.exists()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record attempts to open a connection or to load other weights, and refuse them."""
    attempts: list[str] = []

    def refuse(*arguments: object, **keywords: object) -> None:
        attempts.append(str(arguments))
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", refuse)
    return attempts


RESNET = {"_target_": "resnet18", "spatial_dims": 3, "n_input_channels": 1, "feed_forward": False,
          "bias_downsample": True, "shortcut_type": "A"}  # fmt: skip
LOADING = [
    RESNET | {"pretrained": True}, RESNET | {"pretrained": "/tmp/weights.pth"},
    {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 3, "out_channels": 2,
     "pretrained": True},
    {"_target_": "HoVerNet", "pretrained_url": "https://example.com/x.pth"},
    {"_target_": "HoVerNet", "adapt_standard_resnet": True, "pretrained_url": "https://example.com/x"},
    {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "pretrained": 1},
]  # fmt: skip


@pytest.mark.parametrize("definition", LOADING)
def test_nothing_is_downloaded_for_a_source_unless_trusted(
    tmp_path: Path, no_network, definition
) -> None:
    folder = make_bundle(tmp_path / "bundle", {"network_def": definition})
    query = "&".join(f"{k}={v!r}" for k, v in definition.items() if k != "_target_")
    name = f"monai/{definition['_target_']}?{query}"
    card = tmp_path / "card.toml"
    card.write_text(f"source = {json.dumps(name)}\n")
    for source in (folder, name, card):
        with pytest.raises(Untrusted, match="pretrained"):
            load_model(source, None)
    assert not no_network


def test_a_trusted_source_may_load_weights(no_network) -> None:
    with pytest.raises(ModelError, match="no network in tests"):
        load_model("monai/HoVerNet?pretrained_url='https://example.com/x.pth'", None, trust=True)
    assert no_network


def test_every_argument_that_loads_weights_needs_trust(no_network) -> None:
    words = ("pretrain", "url", "weights", "file", "checkpoint_p")
    loading = [
        (name, parameter)
        for name in monai.NAMES
        for parameter in inspect.signature(getattr(monai_networks, name)).parameters
        if any(word in parameter for word in words)
    ]
    assert len(loading) > 20
    for name, parameter in loading:
        with pytest.raises(Untrusted):
            load_model(f"monai/{name}?{parameter}='x'", None)
    assert not no_network


def test_arguments_that_load_nothing_need_no_trust(tmp_path: Path, no_network) -> None:
    config = {"network_def": RESNET | {"pretrained": False, "num_classes": 2}}
    assert load_model(make_bundle(tmp_path / "bundle", config), None).dims == 3
    unet = "SwinUNETR?in_channels=1&out_channels=2&feature_size=12&use_checkpoint=True"
    assert load_model(f"monai/{unet}", None).dims == 3
    assert not no_network


def test_references_that_multiply_are_refused(tmp_path: Path) -> None:
    config: dict = {f"a{i}": [f"@a{i + 1}"] * 10 for i in range(9)}
    folder = make_bundle(
        tmp_path / "bundle", config | {"a9": 1, "network_def": PLAIN | {"channels": "@a0"}}
    )
    with pytest.raises(ModelError, match="arguments"):
        load_model(folder)


def test_a_trusted_bundle_runs_its_code(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    folder = make_bundle(
        tmp_path / "bundle", {"network_def": PLAIN | {"out_channels": touch(proof)}}
    )
    path = list(sys.path)
    model = load_model(folder, trust=True)
    assert proof.exists()
    assert sys.path == path
    assert model.preprocess.channels == 1
    assert model.weights_hash() == load_model(UNET).weights_hash()


def test_a_trusted_bundle_may_contain_the_class_of_its_network(tmp_path: Path, monkeypatch) -> None:
    config = {"network_def": {"_target_": "my_bundle_scripts.net.Net", "width": 4}}
    folder = make_bundle(tmp_path / "bundle", config)
    (folder / "my_bundle_scripts").mkdir()
    (folder / "my_bundle_scripts" / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Conv3d):\n"
        "    def __init__(self, width):\n        super().__init__(2, width, 3)\n"
    )
    model = load_model(folder, None, trust=True)
    assert (model.dims, model.preprocess.channels) == (3, 2)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "network_def"])
def test_a_broken_bundle_is_refused(tmp_path: Path, text) -> None:
    folder = make_bundle(tmp_path / "bundle", {})
    (folder / "configs" / "inference.json").write_text(text)
    with pytest.raises(ModelError, match="bundle"):
        load_model(folder, trust=True)


def test_the_error_names_the_missing_weights_of_a_bundle(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle", {"network_def": PLAIN})
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(ModelError, match=r"model\.pt"):
        load_model(folder)
