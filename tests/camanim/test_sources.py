"""Networks from MONAI, timm, other tasks of torchvision, archives, Python files and objects."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import camanim
from camanim import Cancelled, ModelError, Preprocess
from camanim.models import Untrusted, list_models, load_model
from camanim.models.building import parse_arguments

DENSENET = "monai/DenseNet121?spatial_dims=2&in_channels=1&out_channels=6"
UNET = "monai/UNet?spatial_dims=2&in_channels=1&out_channels=2&channels=(2,4)&strides=(2,)"


def scores(model: camanim.Model, *shape: int) -> torch.Tensor:
    with torch.no_grad():
        return model.net(torch.zeros(1, *shape))


# --- Names -----------------------------------------------------------------------------------


def test_networks_are_listed_by_source() -> None:
    names = list_models()
    for source in ("demo", "torchvision", "monai"):
        listed = list_models(source)
        assert listed
        assert all(name.startswith(f"{source}/") for name in listed)
        assert set(listed) <= set(names)
    with pytest.raises(ModelError, match="monai"):
        list_models("keras")


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("", {}), ("a=1&b=2.5", {"a": 1, "b": 2.5}), ("a=(1,2)&b=[3]", {"a": (1, 2), "b": [3]}),
        ("a=relu&b=None&c=True", {"a": "relu", "b": None, "c": True}),
        ("a=('relu', {'inplace': False})", {"a": ("relu", {"inplace": False})}),
        ("a=&b='x'", {"a": "", "b": "x"}), ("a=b=c", {"a": "b=c"}), ("a=x%26y", {"a": "x&y"}),
        ("a=__import__('os')", {"a": "__import__('os')"}),
        ("a=" + "(" * 5000, {"a": "(" * 5000}),
    ],
)  # fmt: skip
def test_arguments_are_values_or_text_and_never_code(query, arguments) -> None:
    assert parse_arguments(query) == arguments


@pytest.mark.parametrize("query", ["a", "=1", "a=1&a=2", "a b=1", "a=1&b"])
def test_invalid_arguments_are_refused(query) -> None:
    with pytest.raises(ModelError, match=r"(?i)argument"):
        parse_arguments(query)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("resnet18", "torchvision/resnet18"), ("monai/DenseNet12", "monai/DenseNet121"),
        ("monai/os", "monai/os"), ("monai/nn", "monai/nn"), ("monai/", "monai/"),
        ("monai/__name__", "monai/__name__"), ("demo/ultrasound?layers=3", "layers"),
        ("torchvision/resnet18?num_classes=3", "torchvision/resnet18"),
        ("net.pth", "weights='net.pth'"), ("net.safetensors", "weights='net.safetensors'"),
        ("none.pt2", "none.pt2"), ("none.py:build", "none.py"), ("none.toml", "none.toml"),
        ("folder/with/nothing", "folder/with/nothing"),
    ],
)  # fmt: skip
def test_the_error_names_an_unknown_source_or_a_correction(source, part) -> None:
    with pytest.raises(ModelError) as info:
        load_model(source)
    assert part in str(info.value)


# --- MONAI -----------------------------------------------------------------------------------


def test_monais_names_are_networks_of_this_monai() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    for name in list_models("monai"):
        constructor = getattr(nets, name.partition("/")[2])
        assert constructor.__name__ == name.partition("/")[2]
        assert inspect.isfunction(constructor) or issubclass(constructor, nn.Module)


def test_monais_densenet_for_mednist() -> None:
    model = load_model(DENSENET, size=64, classes=list("abcdef"))
    assert model.preprocess == Preprocess(size=(64, 64), channels=1)
    assert model.dims == 2
    grey = np.random.default_rng(0).integers(0, 255, (90, 70)).astype(np.uint8)
    prepared = model.prepare(grey)
    assert prepared.tensor.shape == (1, 1, 64, 64)
    with torch.no_grad():
        assert model.net(prepared.tensor).shape == (1, 6)
    assert load_model(DENSENET).weights_hash() == model.weights_hash()
    assert model.source == DENSENET


def test_the_preprocessing_of_monais_networks_follows_their_arguments() -> None:
    for source, size, channels, dims in (
        ("monai/DenseNet?spatial_dims=3&in_channels=2&out_channels=3&block_config=(1,)&init_features=4&"
         "growth_rate=2", None, 2, 3),
        ("monai/Unet?spatial_dims=2&in_channels=4&out_channels=2&channels=(2,4)&strides=(2,)",
         None, 4, 2),
        ("monai/ResNet?block=basic&layers=(1,1,1,1)&block_inplanes=(2,4,8,16)&n_input_channels=1&"
            "num_classes=2", None, 1, 3),
        ("monai/Classifier?in_shape=(1,32,24)&classes=4&channels=(2,)&strides=(2,)",
         (32, 24), 1, 2),
    ):  # fmt: skip
        model = load_model(source)
        assert model.preprocess == Preprocess(size=size, channels=channels, dims=dims), source
        assert scores(model, channels, *(size or (32,) * dims)).shape[1] > 1


def test_the_preprocessing_of_monais_transformers_has_their_size() -> None:
    model = load_model(
        "monai/ViT?in_channels=1&img_size=32&patch_size=16&spatial_dims=2&classification=True&"
        "hidden_size=24&num_layers=1&num_heads=2&mlp_dim=16&num_classes=3"
    )
    assert model.preprocess.size == (32, 32)
    assert scores(model, 1, 32, 32)[0].shape == (1, 3)


def test_monais_networks_are_built_without_downloads() -> None:
    model = load_model(
        "monai/EfficientNetBN?model_name=efficientnet-b0&spatial_dims=2&in_channels=1&num_classes=3"
    )
    assert scores(model, 1, 32, 32).shape == (1, 3)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("monai/UNet?spatial_dims=2", "spatial_dims, in_channels, out_channels"),
        (UNET + "&spatial_dim=3", "spatial_dims"),
        (UNET + "&norm=nothing", "monai/UNet"),
        ("monai/DenseNet121?spatial_dims=2&in_channels=1&out_channels=2&colour=3", "colour"),
        ("monai/UNet?spatial_dims=seven&in_channels=1&out_channels=2&channels=(2,4)&strides=(2,)",
         "monai/UNet"),
    ],
)  # fmt: skip
def test_the_error_lists_the_arguments_of_a_network(source, part) -> None:
    with pytest.raises(ModelError) as info:
        load_model(source)
    assert part in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file_for_monai(tmp_path: Path, suffix) -> None:
    net = load_model(UNET).net
    for parameter in net.parameters():
        parameter.data += 1
    path = tmp_path / f"weights{suffix}"
    torch.save(net.state_dict(), path) if suffix == ".pth" else save_file(net.state_dict(), path)
    model = load_model(UNET, path)
    assert torch.equal(scores(model, 1, 8, 8), net(torch.zeros(1, 1, 8, 8)))
    assert model.weights == path
    with pytest.raises(ModelError, match="monai/DenseNet121"):
        load_model(DENSENET, path)


# --- Other tasks of torchvision --------------------------------------------------------------


def test_segmentation_returns_a_dict_of_maps() -> None:
    model = load_model("torchvision/lraspp_mobilenet_v3_large", None)
    assert model.preprocess.size == (520, 520)
    assert scores(model, 3, 64, 64)["out"].shape == (1, 21, 64, 64)


def test_detection_takes_images_that_are_not_normalised() -> None:
    """And of any size, as the network resizes them; the output is one dict per image."""
    model = load_model("torchvision/ssdlite320_mobilenet_v3_large", None)
    assert model.preprocess == Preprocess()
    (output,) = scores(model, 3, 64, 48)
    assert {"boxes", "labels", "scores"} <= set(output)


def test_video_takes_volumes() -> None:
    model = load_model("torchvision/mc3_18", None)
    assert model.preprocess.size == (16, 112, 112)
    assert model.dims == 3
    assert scores(model, 3, 4, 16, 16).shape == (1, 400)
    volume = np.random.default_rng(0).integers(0, 255, (9, 30, 40)).astype(np.uint8)
    assert model.prepare(volume).tensor.shape == (1, 3, 16, 112, 112)


@pytest.mark.parametrize(
    "name",
    [
        "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large",
        "fasterrcnn_mobilenet_v3_large_320_fpn", "mc3_18", "s3d",
    ],
)  # fmt: skip
def test_other_tasks_take_weights_for_any_number_of_classes(tmp_path, name, monkeypatch) -> None:
    from torchvision.models import get_model

    # Random values are not needed, and drawing them is slow.
    for init in ("kaiming_normal_", "kaiming_uniform_", "normal_", "trunc_normal_", "uniform_"):
        monkeypatch.setattr(nn.init, init, lambda tensor, *args, **kwargs: tensor.data.zero_())
    has_masks = name.startswith(("lraspp", "deeplab"))
    settings = {"weights_backbone": None} if has_masks or "rcnn" in name or "ssd" in name else {}
    net = get_model(name, weights=None, num_classes=5, **settings)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    model = load_model(f"torchvision/{name}", tmp_path / "weights.pth")
    assert model.classes is None
    loaded = model.net.state_dict()
    assert {k: v.shape for k, v in loaded.items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


# --- timm ------------------------------------------------------------------------------------


def test_the_preprocessing_of_timms_networks() -> None:
    pytest.importorskip("timm")
    model = load_model("timm/legacy_xception", None)
    assert model.preprocess == Preprocess(
        size=(299, 299), resize=333, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic"
    )
    assert load_model("timm/legacy_xception", None).weights_hash() == model.weights_hash()
    grey = load_model("timm/resnet10t?in_chans=1&num_classes=4", None)
    assert grey.preprocess.channels == 1
    assert scores(grey, 1, 32, 32).shape == (1, 4)
    small = load_model("timm/test_vit?img_size=64", None)
    assert small.preprocess.size == (64, 64)
    assert scores(small, 3, 64, 64).ndim == 2


def test_timms_networks_are_listed_on_request_only() -> None:
    pytest.importorskip("timm")
    listed = list_models("timm")
    assert {"timm/xception41", "timm/xception41.tf_in1k"} <= set(listed)
    assert not set(listed) & set(list_models())


@pytest.mark.parametrize(
    "source", ["timm/resnet1888", "timm/resnet18.nothing", "timm/hf-hub:a/b", "timm/", "timm/../x"]
)
def test_an_unknown_name_of_timms_is_refused(source) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ModelError, match=source):
        load_model(source)


@pytest.mark.parametrize("argument", ["pretrained=True", "checkpoint_path=x", "nonsense=3"])
def test_reserved_and_unknown_arguments_of_timm_are_refused(argument) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ModelError, match=argument.partition("=")[0]):
        load_model(f"timm/resnet10t?{argument}", None)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Replace the hub by random weights of a small network."""
    timm = pytest.importorskip("timm")
    import huggingface_hub

    torch.manual_seed(7)
    net = timm.create_model("test_resnet", pretrained=False).eval()
    path = tmp_path / "model.safetensors"
    save_file(net.state_dict(), path)

    def hub_download(repo_id, filename, *, revision=None, cache_dir=None, tqdm_class=None):
        assert filename == "model.safetensors", "other files may contain code"
        if tqdm_class is not None:
            with tqdm_class(total=1000, initial=0, unit="B", desc="model", disable=False) as bar:
                for _ in range(4):
                    bar.update(250)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub_download)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", hub_download)
    return net


def test_timms_published_weights_have_classes_and_report_their_bytes(hub, capfd) -> None:
    calls = []
    model = load_model("timm/test_resnet.r160_in1k", progress=lambda *call: calls.append(call))
    assert torch.equal(scores(model, 3, 64, 64), hub(torch.zeros(1, 3, 64, 64)))
    assert len(model.classes) == 1000
    assert len(set(model.classes)) == 1000
    assert model.classes[0] == "tench"
    assert "Egyptian cat" in model.classes
    if calls:
        assert calls[-1] == ("download", 1000, 1000)
    assert capfd.readouterr() == ("", "")


def test_a_download_from_the_hub_can_be_cancelled(hub) -> None:
    def stop(*call: object) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        load_model("timm/test_resnet.r160_in1k", progress=stop)


def test_timms_weights_without_a_connection(monkeypatch) -> None:
    pytest.importorskip("timm")
    import huggingface_hub

    def hub_download(*args, **settings):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub_download)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", hub_download)
    with pytest.raises(ModelError, match="weights=None"):
        load_model("timm/test_resnet")


def test_a_fine_tuned_network_of_timms(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet", num_classes=3, in_chans=1).eval()
    save_file(net.state_dict(), tmp_path / "mine.safetensors")
    model = load_model("timm/test_resnet", tmp_path / "mine.safetensors", mean=0.4, std=0.2)
    picture = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.net(picture), net(picture))
    assert model.preprocess.channels == 1
    assert model.preprocess.mean == (0.4,)


def test_the_error_without_timm_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (lambda: load_model("timm/resnet18"), lambda: list_models("timm")):
        with pytest.raises(ModelError, match=r"napari-camanim\[timm\]"):
            call()
    assert len(list_models()) > 100


# --- torch.export ----------------------------------------------------------------------------


def archive(net: nn.Module, path: Path, *inputs: torch.Tensor, **settings: object) -> Path:
    torch.export.save(torch.export.export(net.eval(), inputs, **settings), path)
    return path


def outputs(net: nn.Module, picture: torch.Tensor) -> dict[str, torch.Tensor]:
    recorded: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda m, i, o, n=name: recorded.setdefault(n, o.clone()))
        for name, module in net.named_modules()
    ]
    net(picture)
    for handle in handles:
        handle.remove()
    return recorded


@pytest.mark.parametrize("kind", ["Plain", "Residual", "Branches"])
def test_the_layers_of_an_archive_are_those_of_the_network(zoo, tmp_path: Path, kind) -> None:
    """They have the same names, types and outputs, and the same gradient of the input."""
    net = zoo.shake(getattr(zoo, kind)(inplace=False))
    path = archive(net, tmp_path / "net.pt2", torch.rand(1, 3, 16, 20))
    model = load_model(path, trust=True)
    assert model.preprocess == Preprocess(size=(16, 20))
    picture = torch.rand(1, 3, 16, 20, requires_grad=True)
    ours, theirs = outputs(model.net, picture), outputs(net, picture)
    called = [name for name, _ in model.net.named_modules() if name in ours]
    assert len(called) > 5
    for name in called:
        torch.testing.assert_close(ours[name], theirs[name])
        if name:
            assert type(model.net.get_submodule(name)).__name__ == (
                type(net.get_submodule(name)).__name__
            )
    (ours_gradient,) = torch.autograd.grad(model.net(picture)[0, 1], picture)
    (theirs_gradient,) = torch.autograd.grad(net(picture)[0, 1], picture)
    torch.testing.assert_close(ours_gradient, theirs_gradient)
    assert not any(module.training for module in model.net.modules())
    assert model.to("meta").device.type == "meta"


def test_an_archive_with_dynamic_sizes_has_a_native_size(zoo, tmp_path: Path) -> None:
    dim = torch.export.Dim
    shapes = ({2: dim("h", min=8, max=512), 3: dim("w", min=8, max=512)},)
    net = zoo.shake(zoo.Plain(inplace=False))
    path = archive(net, tmp_path / "net.pt2", torch.rand(1, 3, 16, 20), dynamic_shapes=shapes)
    model = load_model(path, trust=True)
    assert model.preprocess == Preprocess()
    picture = torch.rand(1, 3, 30, 28)
    torch.testing.assert_close(model.net(picture), net(picture))


class TwoInputs(nn.Module):
    """Takes a volume and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 3, 3)

    def forward(self, image: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return self.conv(image).mean((2, 3, 4)) * gain


def test_extra_inputs_of_an_archive_are_those_of_its_example(tmp_path: Path) -> None:
    inputs = torch.rand(1, 2, 6, 7, 8), torch.tensor([3.0])
    net = TwoInputs()
    model = load_model(archive(net, tmp_path / "net.pt2", *inputs), trust=True)
    assert model.preprocess == Preprocess(size=(6, 7, 8), channels=2)
    torch.testing.assert_close(model.net(inputs[0], *model.extra_inputs), net(*inputs))


def test_an_archive_with_weights_from_a_file(zoo, tmp_path: Path) -> None:
    net = zoo.shake(zoo.Plain())
    path = archive(net, tmp_path / "net.pt2", torch.rand(1, 3, 16, 20))
    other = zoo.shake(zoo.Plain(), seed=1)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    model = load_model(path, tmp_path / "other.pth", trust=True)
    picture = torch.rand(1, 3, 16, 20)
    torch.testing.assert_close(model.net(picture), other(picture))


@pytest.mark.parametrize("name", ["net.pt2", "NET.PT2"])
def test_an_archive_is_not_read_unless_trusted(tmp_path: Path, monkeypatch, name) -> None:
    """Reading it unpickles objects and evaluates expressions."""
    path = tmp_path / name
    path.write_bytes(b"anything")
    monkeypatch.setattr(torch.export, "load", lambda *args: pytest.fail("opened"))
    with pytest.raises(Untrusted, match="trust=True"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"anything"])
def test_a_damaged_archive_is_refused(tmp_path: Path, content) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=path.name):
        load_model(path, trust=True)


def test_an_archive_whose_input_is_no_image_is_refused(tmp_path: Path) -> None:
    path = archive(nn.Linear(3, 2), tmp_path / "net.pt2", torch.rand(1, 3))
    with pytest.raises(ModelError, match="image"):
        load_model(path, trust=True)


# --- Python files ----------------------------------------------------------------------------


def script(folder: Path, body: str) -> Path:
    path = folder / "net.py"
    path.write_text(f"import torch\nfrom torch import nn\nimport camanim\n{body}")
    return path


def test_a_python_file_is_not_run_unless_trusted(tmp_path: Path) -> None:
    proof = tmp_path / "executed"
    path = script(
        tmp_path,
        f"open({str(proof)!r}, 'w').close()\ndef build():\n    return nn.Conv2d(1, 2, 3)\n",
    )
    for source in (path, f"{path}:build"):
        with pytest.raises(Untrusted, match="trust=True"):
            load_model(source)
    assert not proof.exists()
    model = load_model(path, trust=True)
    assert proof.exists()
    assert model.source == f"{path}:build"
    assert model.preprocess.channels == 1


def test_a_python_file_may_return_a_model_and_import_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "camanim_test_neighbour.py").write_text("CLASSES = ['a', 'b']\n")
    path = script(
        tmp_path,
        "from camanim_test_neighbour import CLASSES\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Settings:\n    size: tuple[int, int] = (8, 8)\n"
        "def mine():\n"
        "    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    preprocess = camanim.Preprocess(size=Settings().size, channels=1)\n"
        "    return camanim.Model(net, preprocess, CLASSES)\n",
    )
    before = list(sys.path)
    model = load_model(f"{path}:mine", trust=True, mean=0.5)
    assert sys.path == before
    assert model.classes == ["a", "b"]
    assert model.preprocess == Preprocess(size=(8, 8), mean=(0.5,), channels=1)
    again = load_model(f"{path}:mine", trust=True)
    assert again.weights_hash() == model.weights_hash()
    torch.save(model.net.state_dict(), tmp_path / "w.pth")
    assert load_model(path.as_posix() + ":mine", tmp_path / "w.pth", trust=True).classes


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("def build(:\n", "SyntaxError"), ("1 / 0\n", "ZeroDivisionError"),
        ("def build():\n    raise RuntimeError('mine')\n", "mine"), ("", "function build"),
        ("def build():\n    return 3\n", "not int"), ("build = 3\n", "function build"),
        ("import nothing_of_this_name\n", "nothing_of_this_name"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("def build():\n    raise SystemExit\n", "build fails with SystemExit"),
        ("def build():\n    return build()\n", "RecursionError"),
    ],
)  # fmt: skip
def test_the_error_names_the_cause_in_a_python_file(tmp_path: Path, body, part) -> None:
    with pytest.raises(ModelError, match=part):
        load_model(script(tmp_path, body), trust=True)


def test_settings_for_a_preprocess_function_are_refused(zoo) -> None:
    model = camanim.Model(zoo.Plain(), preprocess=lambda a: torch.zeros(1, 3, 8, 8))
    with pytest.raises(ModelError, match="size"):
        load_model(model, size=3)


# --- Objects ---------------------------------------------------------------------------------


def test_a_given_network_or_model_is_not_changed(zoo) -> None:
    net = zoo.Plain()
    model = load_model(net, classes=["a", "b", "c"], outputs="sigmoid", size=(8, 9))
    assert model.net is net
    assert model.preprocess == Preprocess(size=(8, 9))
    other = load_model(model, classes=["d", "e", "f"])
    assert other.net is net
    assert (model.classes, other.classes) == (["a", "b", "c"], ["d", "e", "f"])
    assert other.outputs == "sigmoid"


def test_weights_are_loaded_into_a_copy_of_a_given_network(zoo, tmp_path: Path) -> None:
    net, other = zoo.shake(zoo.Plain()), zoo.shake(zoo.Plain(), seed=1)
    torch.save(other.state_dict(), tmp_path / "w.pth")
    before = zoo.state_of(net)
    model = load_model(net, tmp_path / "w.pth")
    assert zoo.state_of(net) == before
    assert model.weights_hash() == camanim.Model(other).weights_hash()


def test_a_network_is_loaded_on_a_device(zoo) -> None:
    assert load_model(UNET, device="meta").device.type == "meta"
    net = zoo.Plain()
    assert load_model(net, device="cpu").net is net
    with pytest.raises(ModelError, match="nowhere"):
        load_model(net, device="nowhere")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"size": "big"}, "native"), ({"size": (1, 2, 3, 4)}, "size|dims"), ({"std": 0}, "std"),
        ({"mean": (0.1, 0.2)}, "mean"), ({"mean": "a"}, "mean"), ({"channels": 4}, "mean|std"),
        ({"outputs": "odds"}, "softmax"), ({"classes": 3}, "names"), ({"size": 0}, "size"),
    ],
)  # fmt: skip
def test_invalid_settings_are_refused(settings, part) -> None:
    with pytest.raises(ModelError, match=part):
        load_model("torchvision/squeezenet1_1", None, **settings)
