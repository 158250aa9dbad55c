"""Networks and their weights: by name, from files, from the net."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model, get_model_weights

import camanim
from camanim import Cancelled, ImageError, ModelError
from camanim.layer_info import Status
from camanim.models import bare
from camanim.models.files import download, read_weights
from camanim.progress import silent

# --- By name ---------------------------------------------------------------------------------


def test_the_list_is_torchvisions_own() -> None:
    ours = [n.partition("/")[2] for n in camanim.list_models("torchvision")]
    models = torchvision.models
    theirs = [
        name
        for module in (models, models.segmentation, models.detection, models.video)
        for name in models.list_models(module=module)
    ]
    assert sorted(ours) == sorted(theirs)
    assert len(ours) == 107
    assert camanim.list_models()[0] == "demo/ultrasound"
    assert set(camanim.list_models("torchvision")) < set(camanim.list_models())


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("resnet18", "torchvision/resnet18"),
        ("torchvision/resnet_18", "torchvision/resnet18"),
        ("torchvison/vgg16", "torchvision/vgg16"),
        ("ultrasound", "demo/ultrasound"),
        ("torchvision/", ""), ("/", ""), ("", ""), ("demo/resnet18", ""), ("/etc/passwd", ""),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_a_suggestion(wrong, hint) -> None:
    with pytest.raises(ModelError, match=rf"no network '{wrong}'.*{hint}"):
        camanim.load_model(wrong)


def test_random_weights_are_the_same_every_time() -> None:
    torch.manual_seed(1)
    first = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    torch.manual_seed(2)
    second = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    assert first.weights_hash() == second.weights_hash()
    assert not first.net.training
    assert first.name == "torchvision/squeezenet1_1"


@pytest.mark.parametrize("net", ["resnet18", None, nn.Linear, torch.zeros(3)])
def test_what_is_no_network_is_refused(net) -> None:
    with pytest.raises(ModelError, match=r"torch\.nn\.Module"):
        camanim.Model(net)


# --- From files ------------------------------------------------------------------------------


def save(state: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({k: v.clone() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mnasnet0_5", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("count", [2, 1000])
def test_a_fine_tuned_networks_own_weights(tmp_path: Path, name, suffix, count) -> None:
    """Whatever its number of classes, in both formats: safetensors keeps no order of its entries."""
    torch.manual_seed(1)
    net = get_model(name, weights=None, num_classes=count).eval()
    path = save(net.state_dict(), tmp_path / f"weights{suffix}")
    model = camanim.load_model(f"torchvision/{name}", weights=path)
    with torch.no_grad():
        picture = torch.rand(1, 3, 64, 64)
        assert torch.equal(model.net(picture), net(picture))
    assert not model.net.training
    assert (model.classes is None) == (count == 2)


@pytest.mark.parametrize(
    "name", ["maxvit_t", "inception_v3", "googlenet", "swin_t", "regnet_y_400mf"]
)
def test_own_weights_of_the_less_usual_networks(tmp_path: Path, name, monkeypatch) -> None:
    """A classifier without a bias, or with two auxiliary ones beside it."""
    # Nobody looks at these weights: spare the time that drawing them takes.
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
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_is_opened(tmp_path: Path, key, prefix) -> None:
    state = {f"{prefix}{k}": v for k, v in get_model("squeezenet1_1").state_dict().items()}
    path = save({key: state, "epoch": 7, "best": 0.93}, tmp_path / "checkpoint.tar")
    loaded = camanim.load_model("torchvision/squeezenet1_1", weights=str(path)).net.state_dict()
    assert torch.equal(loaded["classifier.1.bias"], state[f"{prefix}classifier.1.bias"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_before_batch_normalisation_counted_are_taken(tmp_path: Path, suffix) -> None:
    """As torch does: those files (2017) have no versions in them, and no such entries."""
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
    with pytest.raises(ModelError, match="cannot be read"):
        camanim.load_model("torchvision/squeezenet1_1", weights=path)
    assert not proof.exists()
    # It does do what it says, where it is let.
    with path.open("rb") as file:
        torch.load(file, weights_only=False) if how == "torch" else pickle.load(file)
    assert proof.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"no weights", b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x05.", b"\xff" * 100,
     b"10000000\x00", (2**62).to_bytes(8, "little") + b"{}"],
)  # fmt: skip
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, suffix, content) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=str(path)):
        camanim.load_model("torchvision/squeezenet1_1", weights=path)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_weights_are_refused_or_read_but_nothing_else(tmp_path_factory, data) -> None:
    """Cut short, with a few bytes wrong, or made up: one kind of error."""
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
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content) -> None:
    path = save(content, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=str(path)):
        camanim.load_model("torchvision/squeezenet1_1", weights=path)


def fitting() -> dict[str, torch.Tensor]:
    return dict(get_model("squeezenet1_1").state_dict())


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
    state = fitting()
    change(state)
    path = save(state, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=f"{path} does not fit torchvision/squeezenet1_1"):
        camanim.load_model("torchvision/squeezenet1_1", weights=path)


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "demo/ultrasound"])
@pytest.mark.parametrize("weights", ["none.pth", "", ".", "IMAGENET1K_V9", "default"])
def test_a_missing_file_is_refused(tmp_path: Path, monkeypatch, name, weights) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no weights file"):
        camanim.load_model(name, weights=weights)


def test_weights_that_do_not_fit_the_demo_are_refused(tmp_path: Path) -> None:
    path = save({"a": torch.ones(3)}, tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=str(path)):
        camanim.load_model("demo/ultrasound", weights=path)


# --- From the net ----------------------------------------------------------------------------

BODY = np.random.default_rng(0).integers(0, 255, 1_000_000).astype(np.uint8).tobytes()
HASH = hashlib.sha256(BODY).hexdigest()[:8]


class _Serve(BaseHTTPRequestHandler):
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
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """A server on this machine; gives its address."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Serve)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", [f"net-{HASH}.pth", "net.pth"])
def test_a_download_arrives_and_its_bytes_are_told(server, tmp_path: Path, name) -> None:
    told: list[tuple[str, int, int]] = []
    path = tmp_path / "hub" / "checkpoints" / name
    download(f"{server}/{name}", path, lambda *call: told.append(call))
    assert path.read_bytes() == BODY
    assert files(tmp_path) == [name]
    assert {stage for stage, _, _ in told} == {"download"}
    assert {total for _, _, total in told} == {len(BODY)}
    done = [d for _, d, _ in told]
    assert done == sorted(done)
    assert done[-1] == len(BODY)
    assert len(set(done)) > 2


def test_bytes_never_exceed_their_total(server, tmp_path: Path) -> None:
    def check(stage: str, done: int, total: int) -> None:
        assert done <= total

    download(f"{server}/net.pth", tmp_path / "net.pth", check)


def test_a_download_of_unknown_length_arrives_too(server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    download(f"{server}/unknown-length", tmp_path / "net.pth", lambda *call: told.append(call))
    assert (tmp_path / "net.pth").read_bytes() == BODY
    assert {total for _, _, total in told} == {0}
    assert max(d for _, d, _ in told) >= len(BODY)


def test_what_is_there_is_not_downloaded_again(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"mine")
    download("http://127.0.0.1:9/net.pth", tmp_path / "net.pth", silent)
    assert (tmp_path / "net.pth").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("url", "name", "says"),
    [
        ("{server}/net-00000000.pth", "net-00000000.pth", "SHA-256"),
        ("{server}/missing", "net.pth", "cannot be downloaded"),
        ("{server}/cut-short", "net.pth", "cannot be downloaded"),
        ("http://127.0.0.1:9/net.pth", "net.pth", "cannot be downloaded"),
        ("http://nowhere.invalid/net.pth", "net.pth", "cannot be downloaded"),
    ],
    ids=["damaged", "missing", "cut short", "nobody listens", "no such host"],
)
def test_a_download_that_fails_says_so_and_leaves_nothing(
    server, tmp_path: Path, url, name, says
) -> None:
    url = url.format(server=server)
    with pytest.raises(ModelError, match=says) as info:
        download(url, tmp_path / name, silent)
    assert url in str(info.value)
    assert files(tmp_path) == []


def test_a_download_that_fails_says_where_to_put_the_file_by_hand(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{tmp_path}.*weights=FILE"):
        download("http://127.0.0.1:9/net.pth", tmp_path / "net.pth", silent)


@pytest.mark.parametrize("error", [Cancelled("enough"), KeyboardInterrupt(), ValueError("mine")])
@pytest.mark.parametrize("at", [0, 3])
def test_a_download_that_is_stopped_leaves_nothing(server, tmp_path: Path, error, at) -> None:
    calls = []

    def progress(*told: object) -> None:
        calls.append(told)
        if len(calls) > at:
            raise error

    with pytest.raises(type(error)) as info:
        download(f"{server}/net-{HASH}.pth", tmp_path / f"net-{HASH}.pth", progress)
    assert info.value is error
    assert len(calls) == at + 1
    assert files(tmp_path) == []


def test_a_cache_that_cannot_be_written_to_is_named(server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "hub" / "net.pth"
    with pytest.raises(ModelError, match=str(path)):
        download(f"{server}/net.pth", path, silent)


@pytest.mark.parametrize("content", [b"", b"damaged", b"\x80\x02}q\x00."])
def test_damaged_weights_in_torchs_cache_are_named(tmp_path: Path, monkeypatch, content) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = get_model_weights("squeezenet1_1").DEFAULT.url
    path = tmp_path / "hub" / "checkpoints" / Path(url).name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ModelError, match=str(path)):
        camanim.load_model("torchvision/squeezenet1_1")


# --- Published weights -----------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["stretch", "crop", "native"])
def test_mobilenet_v2_knows_a_cat(torch_home: Path, shared: Path, fit) -> None:
    told = []
    model = camanim.load_model("torchvision/mobilenet_v2", progress=lambda *t: told.append(t))
    assert told == [], "the weights are there"
    assert len(model.classes) == 1000
    ranking = model.predict(camanim.read_image(shared / "images" / "cat.jpg"), fit=fit)
    assert ranking[0].name == "Egyptian cat"
    assert len(ranking) == 5
    assert 0.1 < ranking[0].probability <= 1


@pytest.mark.parametrize("weights", ["DEFAULT", None])
def test_loading_leaves_the_callers_random_numbers(torch_home: Path, weights) -> None:
    before = torch.get_rng_state()
    camanim.load_model("torchvision/mobilenet_v2", weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_published_weights_can_be_named(torch_home: Path) -> None:
    default = camanim.load_model("torchvision/mobilenet_v2")
    # Of the two, this machine has but the default; the other one's name must be understood too.
    name = get_model_weights("mobilenet_v2").DEFAULT.name
    assert camanim.load_model("torchvision/mobilenet_v2", name).weights_hash() == (
        default.weights_hash()
    )


def test_the_demo_network_runs() -> None:
    model = camanim.load_model("demo/ultrasound")
    picture = camanim.samples.image(camanim.samples.names()[0])
    animation = camanim.animate(model, picture)
    assert animation.target.name in model.classes
    assert len(animation) > 50
    assert camanim.load_model("demo/ultrasound").weights_hash() == model.weights_hash()


# --- One's own preprocessing -----------------------------------------------------------------


def test_a_callable_prepares_the_image_and_the_geometry_stretches(zoo, image) -> None:
    seen = []

    def prepare(picture: np.ndarray) -> torch.Tensor:
        seen.append(picture)
        return torch.from_numpy(picture[::2, ::4].copy()).permute(2, 0, 1)[None] * 2 - 1

    model = camanim.Model(zoo.shake(zoo.Plain()), preprocess=prepare)
    animation = camanim.animate(model, image)
    assert seen == [image] or seen[0] is image
    assert animation.tensor.shape == (1, 3, 10, 6)
    assert animation.geometry.size == (10, 6)
    assert animation.geometry.scale == (2, 4)
    assert animation.geometry.box == (0, 0, 20, 24)
    assert animation.image.shape == image.shape


@pytest.mark.parametrize("low", [-1000.0, 0.0])
@pytest.mark.parametrize("high", [1.0, 3000.0])
def test_a_callable_may_take_intensities_of_its_own(zoo, low, high) -> None:
    """Hounsfield units: the callable knows what they mean, only the display needs a range."""
    ct = np.linspace(low, high, 400).reshape(20, 20)
    model = camanim.Model(
        zoo.shake(zoo.Plain()),
        preprocess=lambda a: torch.from_numpy((a / 3000).astype(np.float32)).expand(1, 3, -1, -1),
    )
    animation = camanim.animate(model, ct)
    assert (animation.image.min(), animation.image.max()) == (0, 255)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a, lambda a: None, lambda a: torch.zeros(3, 8, 8),
        lambda a: torch.zeros(2, 3, 8, 8), lambda a: torch.zeros(1, 3, 0, 8), lambda a: [1],
    ],
    ids=["numpy", "nothing", "no batch", "a batch of two", "empty", "list"],
)  # fmt: skip
def test_a_callable_that_gives_no_tensor_of_one_image_is_refused(zoo, image, wrong) -> None:
    with pytest.raises(ImageError, match=r"\(1, C, H, W\)"):
        camanim.animate(camanim.Model(zoo.Plain(), preprocess=wrong), image)


@pytest.mark.parametrize("image", [[[1, 2], [3]], None, np.zeros((2, 2, 2, 2)), [["a"]]], ids=str)
def test_with_a_callable_too_what_is_no_image_is_refused(zoo, image) -> None:
    model = camanim.Model(zoo.Plain(), preprocess=lambda _: torch.zeros(1, 3, 8, 8))
    with pytest.raises(ImageError):
        camanim.animate(model, image)


def test_without_preprocessing_the_image_goes_in_as_it_is(zoo, image) -> None:
    animation = camanim.animate(zoo.shake(zoo.Plain()), image)
    np.testing.assert_array_equal(animation.tensor[0].permute(1, 2, 0), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_convolution_says_how_many_channels(image, grey, channels) -> None:
    net = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for picture in (image, grey):
        assert camanim.animate(net, picture).tensor.shape[1] == channels


def test_an_image_too_small_for_the_network_is_said_to_be() -> None:
    model = camanim.load_model("torchvision/squeezenet1_1", weights=None)
    with pytest.raises(ModelError, match="1 x 3 x 5 x 6"):
        camanim.animate(model, np.zeros((5, 6)), fit="native")


def test_the_weights_hash_follows_every_change_and_nothing_else(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    model = camanim.Model(net)
    first = model.weights_hash()
    assert model.weights_hash() == first
    assert camanim.Model(zoo.shake(zoo.Plain())).weights_hash() == first
    changes: list[Callable[[], object]] = [
        lambda: net[0].weight.data.mul_(2),
        # The same numbers in another order, as in Adebayo's test.
        lambda: net[1].weight.data.copy_(torch.arange(6)),
        lambda: net[1].weight.data.copy_(net[1].weight.data.flip(0)),
        lambda: net[1].running_mean.add_(1),
        lambda: net.load_state_dict(zoo.shake(zoo.Plain(), seed=1).state_dict()),
        lambda: setattr(net[0].weight, "data", net[0].weight.data + 1),
        lambda: net.double(),
    ]
    seen = {first}
    for change in changes:
        change()
        seen.add(model.weights_hash())
    assert len(seen) == len(changes) + 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_the_weights_hash_knows_other_kinds_of_numbers(dtype) -> None:
    """And a change of one value among many, where a sum in half precision would lose it."""
    net = nn.Module()
    net.many = nn.Parameter(torch.ones(150, 150).to(dtype))
    net.register_buffer("few", torch.arange(5))
    model = camanim.Model(net)
    seen = {model.weights_hash()}
    net.many.data[77, 78] += 0.25
    seen.add(model.weights_hash())
    net.many.data[77, 79], net.many.data[77, 78] = 1.25, 1
    seen.add(model.weights_hash())
    net.few.data[3] = 4
    seen.add(model.weights_hash())
    assert len(seen) == 4
    assert model.weights_hash() in seen


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_weights_hash_is_not_fooled_by_values_that_are_not_finite(bad) -> None:
    net = nn.Linear(3, 3)
    model = camanim.Model(net)
    net.weight.data[0, 0] = bad
    first = model.weights_hash()
    net.weight.data[1, 1] = 5
    assert model.weights_hash() != first


def test_the_weights_hash_leaves_out_what_the_state_dict_does() -> None:
    net = nn.Linear(2, 2)
    net.register_buffer("scratch", torch.zeros(3), persistent=False)
    model = camanim.Model(net)
    first = model.weights_hash()
    net.scratch += 1
    assert model.weights_hash() == first


# --- Copies, wrappers, classes -----------------------------------------------------------------


def test_a_copy_on_another_device_leaves_the_network_where_it_is(zoo) -> None:
    net = zoo.shake(zoo.Residual())
    model = camanim.Model(net, classes=["a", "b", "c"], extra_inputs=(torch.ones(2), "text"))
    before = zoo.state_of(net)
    copy = model.to("meta")
    assert copy.device.type == "meta"
    assert {t.device.type for t in copy.net.state_dict().values()} == {"meta"}
    assert copy.extra_inputs[0].device.type == "meta"
    assert copy.extra_inputs[1] == "text"
    assert copy.classes == model.classes
    assert zoo.state_of(net) == before
    assert model.net is net
    assert model.device.type == "cpu"
    assert model.to("cpu") is model


def test_tied_weights_stay_tied_in_a_copy() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net[0].weight.requires_grad_(False)
    copy = camanim.Model(net).to("meta").net
    assert copy[0].weight is copy[1].weight
    assert not copy[0].weight.requires_grad
    assert isinstance(copy[0].weight, nn.Parameter)
    assert copy[0].bias.requires_grad


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(zoo, device) -> None:
    with pytest.raises(ModelError, match=device):
        camanim.Model(zoo.Plain()).to(device)


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, torch.compile, lambda net: torch.compile(nn.DataParallel(net))],
    ids=["DataParallel", "compiled", "both"],
)
def test_wrapped_networks_are_what_they_hold(zoo, wrap) -> None:
    net = zoo.shake(zoo.Plain())
    plain, wrapped = camanim.Model(net), camanim.Model(wrap(net))
    assert bare(wrapped.net) is net
    assert wrapped.name == "Plain"
    assert wrapped.preprocess == plain.preprocess
    assert wrapped.weights_hash() == plain.weights_hash()
    assert type(wrapped.to("meta").net) is zoo.Plain


def test_checkpoints_of_wrapped_networks_are_opened(tmp_path: Path) -> None:
    state = {f"_orig_mod.module.{k}": v for k, v in fitting().items()}
    path = save(state, tmp_path / "checkpoint.pth")
    loaded = camanim.load_model("torchvision/squeezenet1_1", weights=path).net.state_dict()
    assert torch.equal(loaded["classifier.1.bias"], state["_orig_mod.module.classifier.1.bias"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.txt", "cat\nsmall dog\n\u00e4ffle\n"),
        ("c.txt", "\ufeffcat\r\nsmall dog\r\n\u00e4ffle\r\n\r\n"),
        ("c.json", '["cat", "small dog", "\u00e4ffle"]'),
        ("c.json", '{"2": "\u00e4ffle", "0": "cat", "1": "small dog"}'),
        ("c.json", '{"0": ["n1", "cat"], "1": ["n2", "small dog"], "2": ["n3", "\u00e4ffle"]}'),
    ],
    ids=["lines", "of Windows", "list", "numbered", "ImageNet's"],
)
def test_classes_from_a_file(zoo, tmp_path: Path, name, content) -> None:
    (tmp_path / name).write_bytes(content.encode())
    for path in (tmp_path / name, str(tmp_path / name)):
        model = camanim.Model(zoo.Plain(), classes=path)
        assert model.classes == ["cat", "small dog", "\u00e4ffle"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.json", b"{"), ("c.json", b'{"1": "a", "2": "b"}'), ("c.json", b'{"a": "b"}'),
        ("c.json", b"3"), ("c.json", b"[" * 100_000), ("c.txt", b"\xff\xfe\xff"), ("c.txt", None),
        ("c.json", b'"cat"'),
    ],
    ids=["half", "from 1", "no numbers", "a number", "deep", "no text", "missing", "text"],
)  # fmt: skip
def test_what_are_no_classes_is_refused(zoo, tmp_path: Path, name, content) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        camanim.Model(zoo.Plain(), classes=tmp_path / name)


def test_classes_by_their_numbers(zoo) -> None:
    assert camanim.Model(zoo.Plain(), classes={2: "c", 0: "a", 1: "b"}).classes == ["a", "b", "c"]
    with pytest.raises(ModelError, match="from 0 to 1"):
        camanim.Model(zoo.Plain(), classes={0: "a", 2: "c"})


def test_what_outputs_and_further_inputs_are_is_checked(zoo) -> None:
    with pytest.raises(ModelError, match="sigmoid"):
        camanim.Model(zoo.Plain(), outputs="probability")
    with pytest.raises(ModelError, match="extra_inputs"):
        camanim.Model(zoo.Plain(), extra_inputs=torch.ones(3))


@pytest.mark.parametrize(
    ("first", "channels", "dims"),
    [
        (nn.Conv2d(5, 2, 3), 5, 2), (nn.Conv3d(2, 2, 3), 2, 3), (nn.Linear(3, 3), 3, 2),
        (nn.LazyConv2d(4, 3), 3, 2),
    ],
    ids=["2-D", "3-D", "none", "lazy"],
)  # fmt: skip
def test_the_first_convolution_says_what_goes_in(first, channels, dims) -> None:
    model = camanim.Model(nn.Sequential(first))
    assert (model.preprocess.channels, model.dims) == (channels, dims)
    assert camanim.Model(nn.Sequential(first), preprocess=lambda image: image).dims == dims


# --- Whole networks --------------------------------------------------------------------------


def smallest(name: str) -> tuple[int, int]:
    """The smallest input at which there is something to see; some networks take only one size."""
    if name.startswith(("vit", "maxvit")):
        height, width = get_model_weights(name).DEFAULT.meta["min_size"]
        return max(height, 224), max(width, 224)
    return (80, 80) if name in ("alexnet", "inception_v3") else (64, 64)


def run(name: str) -> camanim.Animation:
    model = camanim.load_model(f"torchvision/{name}", weights=None)
    picture = np.random.default_rng(0).random((*smallest(name), 3))
    before = model.weights_hash()
    animation = camanim.animate(model, picture, fit="native", layers="all", method="LayerCAM")
    assert model.weights_hash() == before
    known = {Status.OK, Status.NOT_SPATIAL, Status.OFF_PATH, Status.NO_TENSOR}
    for layer in animation.layer_calls:
        assert layer.status in known, layer
    for layer, raw in zip(animation.layers, animation.maps, strict=True):
        assert np.isfinite(raw).all(), layer
        assert raw.ndim == 2, layer
        # A map is as wide as it is high on a square image: channels were not taken for pixels.
        assert raw.shape[0] == raw.shape[1], layer
    return animation


USUAL = {
    "convnext_tiny": 100, "swin_t": 50, "vit_b_16": 1, "googlenet": 100, "inception_v3": 150,
    "shufflenet_v2_x0_5": 100, "maxvit_t": 100, "efficientnet_b0": 150, "regnet_y_400mf": 100,
    "mnasnet0_5": 100, "alexnet": 10, "vgg11_bn": 20, "mobilenet_v3_small": 80,
}  # fmt: skip


@pytest.mark.parametrize("name", USUAL)
def test_every_layer_of_a_network_has_a_map_or_a_reason(name) -> None:
    assert len(run(name)) >= USUAL[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in torchvision.models.list_models(module=torchvision.models)
        if name not in USUAL and get_model_weights(name).DEFAULT.meta["num_params"] < 100e6
    ],
)
def test_every_layer_of_every_network_has_a_map_or_a_reason(name) -> None:
    assert len(run(name)) > 0
