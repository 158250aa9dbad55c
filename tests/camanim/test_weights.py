"""Weights from files, and downloads of published weights."""

from __future__ import annotations

import hashlib
import pickle
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model, get_model_weights

import camanim
from camanim import Cancelled, ModelError
from camanim.models.files import download, read_weights
from camanim.progress import silent

# --- From files ------------------------------------------------------------------------------


def save(state: object, path: Path) -> Path:
    if path.suffix.lower() == ".safetensors":
        save_file({k: v.clone() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mnasnet0_5", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("count", [2, 1000])
def test_weights_of_a_fine_tuned_network(tmp_path: Path, name, suffix, count) -> None:
    """With any number of classes; safetensors does not keep the order of the entries."""
    torch.manual_seed(1)
    net = get_model(name, weights=None, num_classes=count).eval()
    path = save(net.state_dict(), tmp_path / f"weights{suffix}")
    model = camanim.load_model(f"torchvision/{name}", weights=path)
    with torch.no_grad():
        picture = torch.rand(1, 3, 64, 64)
        assert torch.equal(model.net(picture), net(picture))
    assert not model.net.training
    assert (model.classes is None) == (count == 2)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_an_archive_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch, compression) -> None:
    monkeypatch.setattr("camanim.models.archives.FREE_BYTES", 2**16)
    net = nn.Linear(1000, 100)
    nn.init.zeros_(net.weight)
    plain, packed = save(net.state_dict(), tmp_path / "a.pth"), tmp_path / "b.pth"
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(packed, "w", compression) as copy:
        for entry in archive.infolist():
            copy.writestr(entry.filename, archive.read(entry))
    if compression == zipfile.ZIP_STORED:
        assert set(read_weights(packed)) == {"weight", "bias"}
        return
    assert packed.stat().st_size < 2**13
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("unpacked"))
    with pytest.raises(ModelError, match="unpack"):
        camanim.load_model(net, weights=packed)


def test_networks_in_files_are_refused_for_their_true_reason(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval()
    torch.save(net, tmp_path / "pickled.pt")
    torch.jit.save(torch.jit.script(net), tmp_path / "scripted.pt")
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    for name, reason in {
        "pickled": "Sequential", "scripted": "TorchScript", "weights": "not a network"
    }.items():  # fmt: skip
        path = tmp_path / f"{name}.pt"
        with pytest.raises(ModelError, match=reason) as of_source:
            camanim.load_model(path)
        messages = [str(of_source.value)]
        if name != "weights":
            with pytest.raises(ModelError, match=reason) as of_weights:
                camanim.load_model(net, weights=path)
            messages.append(str(of_weights.value))
        assert not any("weights_only" in message for message in messages)


@pytest.mark.parametrize(
    "name", ["maxvit_t", "inception_v3", "googlenet", "swin_t", "regnet_y_400mf"]
)
def test_weights_of_networks_with_unusual_classifiers(tmp_path: Path, name, monkeypatch) -> None:
    """Classifiers without a bias, or with auxiliary ones."""
    # Random values are not needed, and drawing them is slow.
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, **kwargs: tensor.data.zero_())
    settings = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    net = get_model(name, weights=None, num_classes=7, **settings)
    for keep_auxiliary in (True, False):
        state = net.state_dict()
        if not keep_auxiliary:
            state = {k: v for k, v in state.items() if "aux" not in k.lower()}
        path = save(state, tmp_path / "weights.pth")
        loaded = camanim.load_model(f"torchvision/{name}", weights=path).net.state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[k], v) for k, v in state.items())
        if len(state) == len(net.state_dict()):
            break


@pytest.mark.parametrize("key", ["state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_the_state_dict_of_a_checkpoint_is_loaded(tmp_path: Path, key, prefix) -> None:
    state = {f"{prefix}{k}": v for k, v in get_model("squeezenet1_1").state_dict().items()}
    path = save({key: state, "epoch": 7, "best": 0.93}, tmp_path / "checkpoint.tar")
    loaded = camanim.load_model("torchvision/squeezenet1_1", weights=str(path)).net.state_dict()
    assert torch.equal(loaded["classifier.1.bias"], state[f"{prefix}classifier.1.bias"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".SafeTensors"])
def test_weights_without_num_batches_tracked_are_loaded(tmp_path: Path, suffix) -> None:
    """Files from before torch 0.4.1 have neither these entries nor versions."""
    state = dict(get_model("shufflenet_v2_x0_5").state_dict())
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    path = save(old, tmp_path / f"old{suffix}")
    loaded = camanim.load_model("torchvision/shufflenet_v2_x0_5", weights=path).net.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in old.items())


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "pkl"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_malicious_pickle_is_not_executed(tmp_path: Path, suffix, how) -> None:
    path, proof = tmp_path / f"weights.{suffix}", tmp_path / "executed"
    if how == "torch":
        torch.save({"fc.bias": Malicious(proof)}, path)
    else:
        path.write_bytes(pickle.dumps({"fc.bias": Malicious(proof)}))
    with pytest.raises(ModelError, match=path.name):
        camanim.load_model("torchvision/squeezenet1_1", weights=path)
    assert not proof.exists()
    # The file does run its code if it is unpickled.
    with path.open("rb") as file:
        torch.load(file, weights_only=False) if how == "torch" else pickle.load(file)
    assert proof.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x05.", b"\xff" * 100,
     b"10000000\x00", (2**62).to_bytes(8, "little") + b"{}"],
)  # fmt: skip
def test_a_file_without_weights_is_refused(tmp_path: Path, suffix, content) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=str(path)):
        camanim.load_model("torchvision/squeezenet1_1", weights=path)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_weights_raise_only_model_errors(tmp_path_factory, data) -> None:
    """Truncated files, changed bytes and arbitrary content."""
    path = tmp_path_factory.getbasetemp() / "damaged.pth"
    torch.save({"a": torch.ones(2)}, path)
    content = bytearray(path.read_bytes())
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=5)
    ):
        content[position] = value
    start = data.draw(st.sampled_from([bytes(content), b"\x80\x02", b"PK\x03\x04", b""]))
    path.write_bytes(start[: data.draw(st.integers(0, len(start)))] + data.draw(st.binary()))
    try:
        state = read_weights(path)
    except ModelError:
        return
    assert all(isinstance(value, torch.Tensor) for value in state.values())


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(3)], torch.ones(3), {"a": 1}, {"model": {"a": "b"}}, {0: torch.ones(3)}, 3,
        None, {}, {"epoch": 3, "net": {"a": torch.ones(3)}},
    ],
    ids=["list", "tensor", "number in it", "text in it", "numbered", "number", "nothing", "empty",
         "under another key"],
)  # fmt: skip
def test_a_file_with_other_objects_is_refused(tmp_path: Path, content) -> None:
    path = save(content, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=str(path)):
        camanim.load_model("torchvision/squeezenet1_1", weights=path)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("features.0.weight"),
        lambda state: state.update({"features.0.weight": torch.ones(1, 2, 3, 4)}),
        lambda state: state.update({"more": torch.ones(3)}),
        lambda state: state.update({"logit_bias": torch.tensor(3.0)}),
        lambda state: state.update({"z.bias": torch.ones(3)}),
        lambda state: state.pop("classifier.1.bias"),
        lambda state: state.update({"classifier.1.weight": torch.tensor(1.0)}),
    ],
    ids=["one missing", "another shape", "one more", "a scalar bias", "a last bias", "no bias",
         "a scalar"],
)  # fmt: skip
def test_weights_of_another_network_are_refused(tmp_path: Path, change) -> None:
    state = dict(get_model("squeezenet1_1").state_dict())
    change(state)
    path = save(state, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=f"{path}.*torchvision/squeezenet1_1"):
        camanim.load_model("torchvision/squeezenet1_1", weights=path)


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "demo/ultrasound"])
@pytest.mark.parametrize("weights", ["none.pth", "", ".", "IMAGENET1K_V9", "default"])
def test_a_missing_file_is_refused(tmp_path: Path, monkeypatch, name, weights) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=f"file {re.escape(str(Path(weights)))}"):
        camanim.load_model(name, weights=weights)


def test_weights_that_do_not_fit_the_demo_are_refused(tmp_path: Path) -> None:
    path = save({"a": torch.ones(3)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=str(path)):
        camanim.load_model("demo/ultrasound", weights=path)


# --- Downloads -------------------------------------------------------------------------------

BODY = np.random.default_rng(0).integers(0, 255, 1_000_000).astype(np.uint8).tobytes()
HASH = hashlib.sha256(BODY).hexdigest()[:8]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        self.send_response(200)
        if not self.path.startswith("/unknown-length"):
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:1000] if self.path.startswith("/cut-short") else BODY)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """Run a local server, and return its address."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", [f"net-{HASH}.pth", "net.pth"])
def test_a_download_reports_its_bytes(server, tmp_path: Path, name) -> None:
    calls: list[tuple[str, int, int]] = []
    path = tmp_path / "hub" / "checkpoints" / name
    download(f"{server}/{name}", path, lambda *call: calls.append(call))
    assert path.read_bytes() == BODY
    assert files(tmp_path) == [name]
    assert {stage for stage, _, _ in calls} == {"download"}
    assert {total for _, _, total in calls} == {len(BODY)}
    done = [d for _, d, _ in calls]
    assert done == sorted(done)
    assert done[-1] == len(BODY)
    assert len(set(done)) > 2


def test_bytes_never_exceed_their_total(server, tmp_path: Path) -> None:
    def check(stage: str, done: int, total: int) -> None:
        assert done <= total

    download(f"{server}/net.pth", tmp_path / "net.pth", check)


def test_a_download_of_unknown_length(server, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    download(f"{server}/unknown-length", tmp_path / "net.pth", lambda *call: calls.append(call))
    assert (tmp_path / "net.pth").read_bytes() == BODY
    assert {total for _, _, total in calls} == {0}
    assert max(d for _, d, _ in calls) >= len(BODY)


def test_an_existing_file_is_not_downloaded(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"mine")
    download("http://127.0.0.1:9/net.pth", tmp_path / "net.pth", silent)
    assert (tmp_path / "net.pth").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("{server}/net-00000000.pth", "net-00000000.pth"),
        ("{server}/missing", "net.pth"),
        ("{server}/cut-short", "net.pth"),
        ("http://127.0.0.1:9/net.pth", "net.pth"),
        ("http://nowhere.invalid/net.pth", "net.pth"),
    ],
    ids=["wrong hash", "missing", "cut short", "no server", "no such host"],
)
def test_a_failed_download_leaves_no_file(server, tmp_path: Path, url, name) -> None:
    url = url.format(server=server)
    with pytest.raises(ModelError, match=re.escape(url)):
        download(url, tmp_path / name, silent)
    assert files(tmp_path) == []


def test_the_error_of_a_download_names_the_path_and_the_alternative(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{tmp_path}.*weights=FILE"):
        download("http://127.0.0.1:9/net.pth", tmp_path / "net.pth", silent)


@pytest.mark.parametrize("error", [Cancelled("enough"), KeyboardInterrupt(), ValueError("mine")])
@pytest.mark.parametrize("at", [0, 3])
def test_a_cancelled_download_leaves_no_file(server, tmp_path: Path, error, at) -> None:
    calls = []

    def progress(*call: object) -> None:
        calls.append(call)
        if len(calls) > at:
            raise error

    with pytest.raises(type(error)) as info:
        download(f"{server}/net-{HASH}.pth", tmp_path / f"net-{HASH}.pth", progress)
    assert info.value is error
    assert len(calls) == at + 1
    assert files(tmp_path) == []


def test_the_error_names_a_cache_that_is_not_writable(server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "hub" / "net.pth"
    with pytest.raises(ModelError, match=str(path)):
        download(f"{server}/net.pth", path, silent)


@pytest.mark.parametrize("content", [b"", b"damaged", b"\x80\x02}q\x00."])
def test_the_error_names_damaged_weights_in_the_cache(tmp_path: Path, monkeypatch, content) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = get_model_weights("squeezenet1_1").DEFAULT.url
    path = tmp_path / "hub" / "checkpoints" / Path(url).name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ModelError, match=str(path)):
        camanim.load_model("torchvision/squeezenet1_1")
