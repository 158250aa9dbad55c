"""Networks by name, 2-D and 3-D: every layer is read as what it is, and has the map of brute force.

Gradients and activations are autograd's, each brought to channels over space by hand, as the network's
architecture has it: tokens reshaped, windows put together, shifts undone.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

import camanim
from camanim.layer_info import Status
from camanim.layout import tensors_of
from camanim.targets import Detection, FunctionTarget, Segmentation

SCRIPT = Path(__file__).parents[2] / "docs" / "make_matrix.py"
SPEC = importlib.util.spec_from_file_location("make_matrix", SCRIPT)
matrix = importlib.util.module_from_spec(SPEC)
sys.modules["make_matrix"] = matrix
SPEC.loader.exec_module(matrix)

Reshape = Callable[[torch.Tensor], torch.Tensor]


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def bare_model(net: nn.Module, **settings: Any) -> camanim.Model:
    """A network with weights that are the same every time, shown images as they are."""
    matrix._fill(net.eval())
    return camanim.Model(net, **settings)


def unread(animation: camanim.Animation) -> list[str]:
    """Layers with more than one side that were not read as channels over space."""
    return [
        f"{layer.label} {layer.shape}"
        for layer in animation.layer_calls
        if layer.status == Status.NOT_SPATIAL and sum(side > 1 for side in layer.shape) > 1
    ]


def kinds(animation: camanim.Animation) -> dict[str, int]:
    """How the layers that have a map were read, without the path into the output."""
    words = [layer.layout.rpartition("] ")[2] for layer in animation.layers]
    return dict(Counter(words))


def by_autograd(
    animation: camanim.Animation, score: Callable[[Any], torch.Tensor], labels: Iterable[str]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Activation and gradient of some calls, as the network gives them.

    Each of these outputs is handed on as a copy, so that nothing can be written into it.
    """
    net, labels = animation.model.net, set(labels)
    counts: Counter[str] = Counter()
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            label = f"{name}:{counts[name]}" if counts[name] else name
            counts[name] += 1
            if label not in labels:
                return None
            kept[label] = tensors_of(output)[0][1]
            return output.clone() if isinstance(output, torch.Tensor) else None

        return hook

    with ExitStack() as stack:
        for name, module in net.named_modules():
            stack.callback(module.register_forward_hook(keep(name)).remove)
        output = net(animation.tensor.clone().requires_grad_())
    gradients = torch.autograd.grad(score(output).sum(), list(kept.values()))
    return {
        label: (activation.detach(), gradient)
        for (label, activation), gradient in zip(kept.items(), gradients, strict=True)
    }


def check_by_hand(
    animation: camanim.Animation,
    score: Callable[[Any], torch.Tensor],
    by_hand: dict[str, Reshape],
) -> None:
    """Compare maps by HiResCAM with gradient times activation, put in place by hand."""
    tensors = by_autograd(animation, score, by_hand)
    assert set(tensors) == set(by_hand)
    maps = {x.label: raw for x, raw in zip(animation.layers, animation.maps, strict=True)}
    largest = 0.0
    for label, reshape in by_hand.items():
        activation, gradient = tensors[label]
        expected = (reshape(gradient) * reshape(activation)).sum(1)[0].numpy()
        assert expected.ndim == animation.tensor.ndim - 2, label
        # Where only the class token goes on, nothing of the cells does.
        atol = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(maps[label], expected, rtol=1e-3, atol=atol, err_msg=label)
        largest = max(largest, atol)
    assert largest > 0


def as_it_is(output: torch.Tensor) -> torch.Tensor:
    return output


def channels_last(output: torch.Tensor) -> torch.Tensor:
    return rearrange(output, "b h w c -> b c h w")


def spread(animation: camanim.Animation, layout: str, count: int = 3) -> dict[str, Reshape]:
    """Choose some layers that are read in one way, from the first to the last."""
    labels = [x.label for x in animation.layers if x.layout == layout and x.same_as is None]
    chosen = np.linspace(0, len(labels) - 1, min(count, len(labels))).round().astype(int)
    return {labels[i]: as_it_is for i in chosen}


def explain(model: camanim.Model, image: np.ndarray, **settings: Any) -> camanim.Animation:
    return camanim.animate(
        model, image, **{"method": "HiResCAM", "target": 1, "layers": "all", "fit": "native"} | settings
    )  # fmt: skip


def logit(output: Any) -> torch.Tensor:
    return tensors_of(output)[0][1][:, 1]


# --- The seeds' networks ---------------------------------------------------------------------

PAPER = (
    "alexnet", "convnext_tiny", "densenet161", "efficientnet_b7", "squeezenet1_1", "resnet18",
    "resnet50", "resnet152", "vgg16", "mobilenet_v2", "inception_v3",
)  # fmt: skip


def sides(net: nn.Module, tensor: torch.Tensor) -> list[tuple[int, ...]]:
    """Shapes of all outputs, in order."""
    shapes: list[tuple[int, ...]] = []

    def see(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        shapes.append(tuple(output.shape))

    with ExitStack() as stack, torch.no_grad():
        for module in net.modules():
            stack.callback(module.register_forward_hook(see).remove)
        net(tensor.clone())
    return shapes


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_the_paper_networks(name: str) -> None:
    """Every output of more than a pixel has a map, with the channels where ConvNeXt has them."""
    size = matrix.size_of(name)
    animation = explain(camanim.Model(matrix.network(name)), picture(size, size, 3), target=None)
    shapes = sides(animation.model.net, animation.tensor)
    assert [layer.shape for layer in animation.layer_calls] == shapes
    first = sum(len(x) == 4 and x[2] == x[3] > 1 for x in shapes)
    last = sum(len(x) == 4 and x[1] == x[2] > 1 != x[3] for x in shapes)
    assert kinds(animation) == {"NCHW": first} | ({"NHWC": last} if name == "convnext_tiny" else {})
    assert unread(animation) == []
    index = animation.target.index
    by_hand = spread(animation, "NCHW", 5)
    by_hand |= dict.fromkeys(spread(animation, "NHWC"), channels_last)
    check_by_hand(animation, lambda scores: scores[:, index], by_hand)


def test_monais_densenet_on_grey_images_of_64_pixels() -> None:
    model = camanim.load_model(
        "monai/DenseNet121?spatial_dims=2&in_channels=1&out_channels=6", None
    )
    animation = explain(model, picture(64, 64), target=5)
    assert animation.tensor.shape == (1, 1, 64, 64)
    assert kinds(animation) == {"NCHW": 490}
    assert unread(animation) == []
    check_by_hand(animation, lambda scores: scores[:, 5], spread(animation, "NCHW", 5))


@pytest.mark.slow
def test_xception_of_timm() -> None:
    pytest.importorskip("timm")
    model = camanim.load_model("timm/legacy_xception", None)
    animation = explain(model, picture(96, 96, 3))
    assert kinds(animation) == {"NCHW": 211}
    assert unread(animation) == []
    check_by_hand(animation, logit, spread(animation, "NCHW", 5))


@pytest.mark.slow
def test_maxvit_has_windows_and_grids() -> None:
    """56 x 56 cells are 8 x 8 windows of 7 x 7 neighbours, or of 7 x 7 cells eight apart."""
    animation = explain(camanim.Model(matrix.network("maxvit_t")), picture(224, 224, 3))
    assert unread(animation) == []
    assert set(kinds(animation)) >= {"NCHW", "windows 7 x 7", "grid 7 x 7"}
    block = "blocks.0.layers.0.layers"

    def window(x: torch.Tensor) -> torch.Tensor:
        return rearrange(x, "b (y x) (i j) c -> b c (y i) (x j)", y=8, i=7)

    def grid(x: torch.Tensor) -> torch.Tensor:
        return rearrange(x, "b (y x) (i j) c -> b c (i y) (j x)", y=8, i=7)

    check_by_hand(animation, logit, {
        f"{block}.MBconv": as_it_is,
        f"{block}.window_attention.attn_layer.0": window,
        f"{block}.window_attention.attn_layer.1": window,
        f"{block}.window_attention.mlp_layer.1": window,
        f"{block}.window_attention": as_it_is,
        f"{block}.grid_attention.attn_layer.1.merge": grid,
        f"{block}.grid_attention.mlp_layer": grid,
        f"{block}.grid_attention": as_it_is,
        "blocks.3": as_it_is,
    })  # fmt: skip


# --- Transformers ----------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [0, 1, 2, 5])
def test_tokens_of_a_vit_with_and_without_its_own(leading: int) -> None:
    """None, a class token, DeiT's two, four registers beside it; not square: rows are no columns."""
    vit = pytest.importorskip("timm").models.vision_transformer.VisionTransformer
    net = vit(
        img_size=(24, 40), patch_size=8, embed_dim=18, depth=2, num_heads=3, num_classes=4,
        class_token=leading > 0, reg_tokens=max(leading - 1, 0), global_pool="avg",
    )  # fmt: skip
    animation = explain(bare_model(net), picture(24, 40, 3))
    name = "tokens 3 x 5" + f" after {leading}" * (leading > 0)
    assert kinds(animation)[name] > 20
    assert unread(animation) == []

    def reshape(x: torch.Tensor) -> torch.Tensor:
        return rearrange(x[:, leading:], "b (h w) c -> b c h w", h=3)

    labels = ("patch_drop", "blocks.0.norm1", "blocks.0.attn", "blocks.1.mlp.act", "norm")
    check_by_hand(animation, logit, dict.fromkeys(labels, reshape))


def from_windows(size: int, rows: int, shift: int) -> Reshape:
    """Put (windows, cells, channels) together, and undo the shift."""

    def reshape(x: torch.Tensor) -> torch.Tensor:
        image = rearrange(x, "(b y x) (i j) c -> b c (y i) (x j)", b=1, y=rows, i=size)
        return image.roll((shift, shift), (2, 3))

    return reshape


def test_windows_of_timms_swin_shifted_or_not() -> None:
    swin = pytest.importorskip("timm").models.swin_transformer.SwinTransformer
    net = swin(
        img_size=(32, 64), patch_size=4, window_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 2),
        num_classes=4, strict_img_size=False,
    )  # fmt: skip
    animation = explain(bare_model(net), picture(32, 64, 3))
    assert kinds(animation)["shifted windows 4 x 4"] > 1

    check_by_hand(animation, logit, {
        "patch_embed": channels_last,
        "layers.0.blocks.0.norm1": channels_last,
        "layers.0.blocks.0.attn.qkv": from_windows(4, 2, 0),
        "layers.0.blocks.0.attn": from_windows(4, 2, 0),
        "layers.0.blocks.1.attn.qkv": from_windows(4, 2, 2),
        "layers.0.blocks.1.attn.proj": from_windows(4, 2, 2),
        "layers.0.blocks.1.mlp": lambda x: rearrange(x, "b (h w) c -> b c h w", h=8),
        "layers.1.downsample": channels_last,
        "layers.1": channels_last,
    })  # fmt: skip


def test_attention_of_a_swin_is_no_image() -> None:
    """Windows of 4 x 4 cells have 16 x 16 numbers of attention; a grid of 16 x 16 came before."""
    swin = pytest.importorskip("timm").models.swin_transformer_v2.SwinTransformerV2
    net = swin(
        img_size=64, patch_size=4, window_size=4, embed_dim=8, depths=(1, 1, 1), num_heads=(2, 2, 2),
        num_classes=4,
    )  # fmt: skip
    animation = explain(bare_model(net), picture(64, 64, 3))
    attention = [
        x for x in animation.layer_calls if x.name.endswith(("softmax", "attn_drop", "cpb_mlp"))
    ]
    assert len(attention) == 9
    assert {layer.status for layer in attention} <= {Status.NOT_SPATIAL, Status.OFF_PATH}


TINY = {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 24, "num_labels": 4}


def test_huggingfaces_vit() -> None:
    hf = pytest.importorskip("transformers")
    net = hf.ViTForImageClassification(hf.ViTConfig(image_size=(16, 24), patch_size=8, **TINY))
    animation = explain(bare_model(net), picture(16, 24, 3))
    assert kinds(animation)["tokens 2 x 3 after 1"] > 20
    assert unread(animation) == []

    def reshape(x: torch.Tensor) -> torch.Tensor:
        return rearrange(x[:, 1:], "b (h w) c -> b c h w", h=2)

    labels = [n for n, m in net.named_modules() if isinstance(m, nn.LayerNorm | nn.Dropout)]
    ran = {x.label for x in animation.layers if x.same_as is None}
    assert len(ran & set(labels)) > 4
    check_by_hand(animation, logit, dict.fromkeys(ran & set(labels), reshape))


def test_huggingfaces_swin() -> None:
    hf = pytest.importorskip("transformers")
    net = hf.SwinForImageClassification(hf.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4,
        num_labels=4,
    ))  # fmt: skip
    animation = explain(bare_model(net), picture(32, 32, 3))
    shifted = [x for x in animation.layers if x.layout == "shifted windows 4 x 4"]
    plain = [x for x in animation.layers if x.layout == "windows 4 x 4" and x.same_as is None]
    by_hand: dict[str, Reshape] = {}
    for layers, undo in ((plain, 0), (shifted, 2)):
        for layer in layers:
            rows = 4 if layer.shape[0] == 16 else 2
            if len(layer.shape) == 3 and layer.shape[1] == 16:
                by_hand[layer.label] = from_windows(4, rows, undo)
    assert len(by_hand) > 9
    check_by_hand(animation, logit, by_hand)
    assert all("relative_position_bias" in layer for layer in unread(animation))


def test_huggingfaces_convnext() -> None:
    hf = pytest.importorskip("transformers")
    net = hf.ConvNextForImageClassification(
        hf.ConvNextConfig(hidden_sizes=[6, 8, 10, 12], depths=[1, 1, 1, 1], num_labels=4)
    )
    animation = explain(bare_model(net), picture(64, 96, 3))
    assert set(kinds(animation)) == {"NCHW", "NHWC"}
    assert unread(animation) == []
    check_by_hand(animation, logit, spread(animation, "NCHW"))
    check_by_hand(animation, logit, dict.fromkeys(spread(animation, "NHWC"), channels_last))


def test_tokens_that_are_no_rows_of_the_image_are_not_read_as_such() -> None:
    """Hiera orders its tokens by the units that it may mask."""
    hiera = pytest.importorskip("timm").models.hiera.Hiera
    net = hiera(
        img_size=(32, 32), embed_dim=8, num_heads=1, stages=(1, 1), num_classes=4,
        q_pool=1, mask_unit_size=(4, 4), mask_unit_attn=(True, False), patch_kernel=(3, 3),
        patch_stride=(2, 2), patch_padding=(1, 1),
    )  # fmt: skip
    animation = explain(bare_model(net), picture(32, 32, 3))

    def rolled(x: torch.Tensor) -> torch.Tensor:
        # One step of its order: the parity of row and column comes first.
        return rearrange(x, "b (i j y x) c -> b c (y i) (x j)", i=2, j=2, y=8)

    maps = [x.label for x in animation.layers if x.label == "blocks.0.norm1"]
    # A map there must be the right one.
    check_by_hand(animation, logit, dict.fromkeys(maps, rolled))


def place_of(change: torch.Tensor) -> tuple[float, ...] | None:
    """Where in the image, from 0 to 1, the channels over space (C, *s) change most.

    None where the change is all over the place, as attention may have it: in more than a few cells.
    """
    amount = change.square().sum(0)
    ordered = amount.flatten().sort(descending=True).values.cumsum(0)
    if not ordered[-1] > 0 or ordered[max(4, len(ordered) // 33) - 1] < 0.9 * ordered[-1]:
        return None
    where = np.unravel_index(int(amount.argmax()), amount.shape)
    return tuple((i + 0.5) / n for i, n in zip(where, amount.shape, strict=True))


def activations(model: camanim.Model, image: np.ndarray) -> dict[str, torch.Tensor]:
    """Channels over space of all layers."""
    kept: list[torch.Tensor] = []

    def keep(activation: torch.Tensor) -> torch.Tensor:
        kept.append(activation.clone())
        return torch.full(activation.shape[1:], len(kept) - 1.0)

    result = explain(model, image, method=keep)
    return {x.label: kept[int(m.flat[0])] for x, m in zip(result.layers, result.maps, strict=True)}


PLACED = [
    "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "hiera_tiny_224", "xcit_nano_12_p16_224",
    "mobilevit_xs", "nest_tiny", "twins_svt_small", "davit_tiny", "mvitv2_tiny", "edgenext_xx_small",
    "gcvit_xxtiny", "levit_128s", "pvt_v2_b0", "maxvit_tiny_tf_224", "coatnet_0_rw_224",
    "eva02_tiny_patch14_224",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PLACED)
def test_a_change_of_the_image_is_seen_where_it_was_made(name: str) -> None:
    """In every layer whose change has a place: rows, columns and windows of whatever order are found."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False).eval()
    size = 240 if name == "crossvit_9_240" else 224
    model, image = camanim.Model(net), picture(size, size, 3)
    before, compared = activations(model, image), 0
    for place in ((0.3, 0.8), (0.8, 0.2)):
        other = image.copy()
        rows, columns = (slice(int((p - 0.04) * size), int((p + 0.04) * size)) for p in place)
        other[rows, columns] = 1 - other[rows, columns]
        for label, activation in activations(model, other).items():
            position = place_of(activation - before[label])
            if position is None or activation[0].numel() < 16:
                continue
            compared += 1
            for at, side, cells in zip(position, place, activation.shape[1:], strict=True):
                assert abs(at - side) < 0.1 + 0.5 / cells, (label, position, place)
    assert compared > 20


# --- Volumes ---------------------------------------------------------------------------------

VOLUMES = {
    "DenseNet": ("spatial_dims=3&in_channels=1&out_channels=2&init_features=4&growth_rate=2&"
                 "block_config=(2,2)", (16, 24, 32)),
    "SEResNet50": ("spatial_dims=3&in_channels=1&num_classes=2", (32, 32, 40)),
    "resnet18": ("spatial_dims=3&n_input_channels=1&num_classes=2", (16, 24, 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", VOLUMES)
def test_monais_networks_of_volumes(name: str) -> None:
    query, shape = VOLUMES[name]
    animation = explain(camanim.load_model(f"monai/{name}?{query}", None), picture(*shape))
    assert set(kinds(animation)) == {"NCDHW"}
    assert unread(animation) == []
    assert {raw.ndim for raw in animation.maps} == {3}
    check_by_hand(animation, logit, spread(animation, "NCDHW", 4))


def test_monais_vit_of_volumes() -> None:
    model = camanim.load_model(
        "monai/ViT?in_channels=1&img_size=(16,24,32)&patch_size=(8,8,8)&hidden_size=24&mlp_dim=32&"
        "num_layers=2&num_heads=3&classification=True&num_classes=3&spatial_dims=3", None,
    )  # fmt: skip
    animation = explain(model, picture(16, 24, 32))
    assert kinds(animation)["tokens 2 x 3 x 4 after 1"] > 20
    # Attention of each token to each.
    assert {layer.rpartition(" (")[2] for layer in unread(animation)} <= {"1, 3, 25, 25)"}

    def reshape(x: torch.Tensor) -> torch.Tensor:
        return rearrange(x[:, 1:], "b (d h w) c -> b c d h w", d=2, h=3)

    labels = ("blocks.0.norm1", "blocks.0.attn", "blocks.1.mlp.linear2", "norm")
    check_by_hand(animation, logit, dict.fromkeys(labels, reshape))


def test_monais_unet_explains_a_class_of_a_segmentation() -> None:
    model = camanim.load_model(
        "monai/UNet?spatial_dims=3&in_channels=1&out_channels=2&channels=(4,8,16)&strides=(2,2)",
        None,
    )
    mask = np.zeros((16, 24, 32), bool)
    mask[4:9, 5:12, 6:20] = True
    animation = explain(model, picture(16, 24, 32), target=Segmentation(1, mask))
    assert set(kinds(animation)) == {"NCDHW"}
    assert {layer.status for layer in animation.layer_calls} == {Status.OK}
    assert animation.stack().shape[1:] == (16, 24, 32)

    def score(output: torch.Tensor) -> torch.Tensor:
        return (output[:, 1] * torch.from_numpy(mask)).sum((1, 2, 3))

    check_by_hand(animation, score, spread(animation, "NCDHW", 4))


def test_a_video_network_on_a_few_frames() -> None:
    """Frames are the first axis of its space."""
    video = pytest.importorskip("torchvision.models.video")
    model = bare_model(video.r3d_18(weights=None, num_classes=4))
    animation = explain(model, picture(4, 24, 32))
    assert kinds(animation) == {"NCDHW": 89}
    assert unread(animation) == []
    check_by_hand(animation, logit, spread(animation, "NCDHW", 4))


# --- Other outputs ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "fcn_resnet50"])
def test_torchvisions_segmentations(name: str) -> None:
    from torchvision.models import segmentation

    net = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=3)
    mask = np.zeros((64, 96), bool)
    mask[10:30, 20:60] = True
    animation = explain(bare_model(net), picture(64, 96, 3), target=Segmentation(1, mask))
    assert set(kinds(animation)) == {"NCHW"}
    assert unread(animation) == []

    def score(output: Any) -> torch.Tensor:
        return (output["out"][:, 1] * torch.from_numpy(mask)).sum((1, 2))

    check_by_hand(animation, score, spread(animation, "NCHW", 4))


@pytest.mark.parametrize(
    "name", ["fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn"]
)
def test_torchvisions_detectors(name: str) -> None:
    """They resize inside: what is read are feature maps of another size than the input's."""
    from torchvision.models import detection

    thresh = "score_thresh" if name.startswith("retina") else "box_score_thresh"
    torch.manual_seed(0)
    net = getattr(detection, name)(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=96, **{thresh: 0.0}
    ).eval()  # fmt: skip
    animation = explain(camanim.Model(net), picture(64, 96, 3), target=Detection(box=0))
    assert set(kinds(animation)) <= {"NCHW", "NHWC"}
    assert kinds(animation)["NCHW"] > 100
    ok = [x for x in animation.layers if x.name.startswith("backbone.body") and x.same_as is None]
    assert len(ok) > 40
    # The heads score boxes in rows, and look at parts of the feature maps.
    assert all(layer.startswith(("head", "roi_heads", "rpn", "(")) for layer in unread(animation))

    def score(output: Any) -> torch.Tensor:
        return output[0]["scores"][:1]

    check_by_hand(animation, score, {ok[0].label: as_it_is, ok[-2].label: as_it_is})


# --- Gradients of gradients ------------------------------------------------------------------


class Attending(nn.Module):
    """A patch embedding, torch's own attention, of the fast kind, and a gate that is hard."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.patches, self.qkv = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 24)
        self.out, self.gate, self.head = nn.Linear(8, 8), gate, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = (y.unflatten(2, (2, 4)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.out(y)
        return self.head((x * self.gate(4 * x)).mean(1))


@pytest.mark.parametrize(
    "gate", [nn.Hardsigmoid(), nn.Hardsigmoid(inplace=True)], ids=["", "in place"]
)
def test_shapleycam_takes_gradients_of_gradients_that_torch_has_not(gate: nn.Module) -> None:
    """Fast attention and hard sigmoids have none; the answer is the Hessian, number by number."""
    net = Attending(gate).eval()
    matrix._fill(net)
    model = camanim.Model(net)
    animation = camanim.animate(
        model, picture(8, 12, 3), method="ShapleyCAM", target=1, layers="patches"
    )
    activation = net.patches(animation.tensor).detach()

    def score(a: torch.Tensor) -> torch.Tensor:
        x = a.flatten(2).transpose(1, 2)
        q, k, v = (y.unflatten(2, (2, 4)).transpose(1, 2) for y in net.qkv(x).chunk(3, -1))
        y = (q @ k.transpose(2, 3) / 2).softmax(-1) @ v
        x = x + net.out(y.transpose(1, 2).flatten(2))
        return net.head((x * nn.functional.relu6(4 * x + 3) / 6).mean(1))[0, 1]

    gradient = torch.autograd.functional.jacobian(score, activation)
    hessian = torch.autograd.functional.hessian(score, activation).reshape(activation.numel(), -1)
    product = (hessian @ activation.flatten()).view_as(activation)
    assert product.abs().max() > 1e-3
    weights = (gradient - product / 2).mean((2, 3), keepdim=True)
    expected = (weights * activation).sum(1)[0].numpy()
    np.testing.assert_allclose(animation.maps[0], expected, rtol=1e-3, atol=1e-6)


def test_any_function_of_a_modeloutput_is_explained() -> None:
    hf = pytest.importorskip("transformers")
    net = hf.CLIPVisionModel(hf.CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3,
        image_size=16, patch_size=8,
    ))  # fmt: skip

    def score(output: Any) -> torch.Tensor:
        return output.pooler_output[:, 3]

    animation = explain(bare_model(net), picture(16, 16, 3), target=FunctionTarget(score))
    layers = [x for x in animation.layers if x.layout == "tokens 2 x 2 after 1"]
    assert len(layers) > 20

    def reshape(x: torch.Tensor) -> torch.Tensor:
        return rearrange(x[:, 1:], "b (h w) c -> b c h w", h=2)

    labels = [x.label for x in layers if x.kind == "LayerNorm"]
    check_by_hand(animation, score, dict.fromkeys(labels, reshape))
