"""Networks from MONAI bundles, with and without code in their configs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from camanim import ModelError, Preprocess
from camanim.models import Untrusted, load_model

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
