"""Stages of networks: consecutive layers with the same leading name."""

from __future__ import annotations

import pytest

from camanim.layer_info import LayerInfo
from camanim.stages import stages


def layers(*names: str) -> list[LayerInfo]:
    return [LayerInfo(i, n, 0, "Conv2d", (1, 4, 8, 8), 10) for i, n in enumerate(names)]


def named(*names: str) -> list[tuple[str, int, int]]:
    return [(s.name, s.first, s.last) for s in stages(layers(*names))]


def leaves(model: str) -> list[LayerInfo]:
    from torchvision.models import get_model

    network = get_model(model, weights=None)
    names = [name for name, module in network.named_modules() if not [*module.children()]]
    return layers(*names)


def test_layers_are_grouped_by_the_first_part_of_their_names() -> None:
    assert named("a.0", "a.1.conv", "b.0", "b.1", "b.2", "a.0") == [
        ("a", 0, 1), ("b", 2, 4), ("a", 5, 5),
    ]  # fmt: skip


def test_single_modules_in_sequence_are_one_stage() -> None:
    names = ("conv1", "bn1", "relu", "layer1.0", "layer1.1", "pool", "layer2.0", "layer2.1")
    assert named(*names) == [
        ("conv1 to relu", 0, 2), ("layer1", 3, 4), ("pool", 5, 5), ("layer2", 6, 7),
    ]  # fmt: skip


def test_a_part_with_nearly_all_layers_is_divided() -> None:
    names = [f"net.features.{i}.{j}" for i in range(5) for j in range(3)] + ["net.fc"]
    assert named(*names) == [
        *[(f"net.features.{i}", 3 * i, 3 * i + 2) for i in range(5)], ("net.fc", 15, 15),
    ]  # fmt: skip


def test_a_part_with_most_but_not_nearly_all_layers_stays() -> None:
    names = ["layer1.0", "layer1.1", *[f"layer2.{i}" for i in range(6)], "layer3.0", "layer3.1"]
    assert [name for name, _, _ in named(*names)] == ["layer1", "layer2", "layer3"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("resnet152", ["layer1", "layer2", "layer3", "layer4"]),
        ("mobilenet_v2", [f"features.{i}" for i in range(19)]),
        ("densenet161", [f"features.denseblock{i}" for i in range(1, 5)]),
        ("vit_b_16", [f"encoder.layers.encoder_layer_{i}" for i in range(12)]),
        ("convnext_tiny", ["features.1", "features.3", "features.5", "features.7"]),
    ],
)
def test_stages_of_real_networks(model: str, expected: list[str]) -> None:
    calls = leaves(model)
    found = stages(calls)
    names = [stage.name for stage in found]
    assert [name for name in names if name in expected] == expected
    # They cover all layers once, in order.
    covered = [i for stage in found for i in range(stage.first, stage.last + 1)]
    assert covered == list(range(len(calls)))
    for stage in found:
        if stage.name in expected:
            inside = {calls[i].name for i in range(stage.first, stage.last + 1)}
            assert inside == {c.name for c in calls if f"{c.name}.".startswith(f"{stage.name}.")}


def test_few_or_no_layers() -> None:
    assert stages([]) == []
    assert named("") == [("(network)", 0, 0)]
    assert named("features.0") == [("features.0", 0, 0)]
