"""Memory of a run: estimated before it, compared with what is free."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

import camanim
from camanim import Model, OutOfMemory, Preprocess
from camanim.execution import memory
from camanim.execution.memory import PassMemory, available_memory, estimate
from camanim.models import fitting

LARGE = np.random.default_rng(0).random((320, 384, 3)).astype(np.float32)


class ReadsValues(nn.Module):
    """Reads a value of its input, so that it does not run without values."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) if x.mean().item() > -9 else self.net(-x)


@pytest.fixture
def limit(monkeypatch):
    """Set the memory that is free, in bytes."""
    return lambda free: monkeypatch.setattr(memory, "available_memory", lambda device: free)


@pytest.fixture
def sizes(zoo):
    """A network, and the sizes of the images that it was called with."""
    net, seen = zoo.shake(zoo.Residual()), []
    net.stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[2:]))
    return net, seen


def traced(model: Model, image: np.ndarray) -> PassMemory:
    found = estimate(model.forward(), model.to("meta").forward(), model.prepare(image).tensor)
    assert found is not None
    return found


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("kind", ["Plain", "Residual", "Branches"])
def test_the_estimate_lies_between_the_sum_of_the_activations_and_twice_that(
    zoo, kind, inplace
) -> None:
    net = zoo.shake(getattr(zoo, kind)(inplace=inplace))
    tensors: dict[int, torch.Tensor] = {}
    handles = [
        m.register_forward_hook(lambda module, inputs, output: tensors.update({id(output): output}))
        for m in net.modules()
    ]
    model = Model(net)
    with torch.no_grad():
        net(model.prepare(LARGE).tensor)
    for handle in handles:
        handle.remove()
    activations = sum(t.nbytes for t in tensors.values())
    largest = max(t.nbytes for t in tensors.values())
    found = traced(model, LARGE)
    assert activations <= found.gradients <= 2 * activations + 4 * largest
    assert 2 * largest <= found.forward < activations + largest


def test_both_ways_to_estimate_agree_and_grow_with_the_area(zoo) -> None:
    model = Model(zoo.shake(zoo.Residual()))
    whole, quarter = traced(model, LARGE), traced(model, LARGE[:160, :192])
    assert whole.gradients == pytest.approx(4 * quarter.gradients, rel=0.02)
    extrapolated = estimate(model.forward(), None, model.prepare(LARGE).tensor)
    assert extrapolated is not None
    assert extrapolated.gradients == pytest.approx(whole.gradients, rel=0.02)
    assert extrapolated.forward == pytest.approx(whole.forward, rel=0.02)


@pytest.mark.parametrize("reads_values", [False, True])
@pytest.mark.parametrize("use", ["animate", "predict"])
def test_a_run_that_does_not_fit_is_refused_before_it(zoo, sizes, limit, use, reads_values) -> None:
    net, seen = sizes
    before = zoo.state_of(net)
    model = Model(ReadsValues(net) if reads_values else net)
    limit(2_000_000)
    run = camanim.animate if use == "animate" else Model.predict
    with pytest.raises(OutOfMemory, match="320 x 384"):
        run(model, LARGE)
    assert all(max(size) < 200 for size in seen)
    assert zoo.state_of(net) == before


def test_the_proposed_size_fits(sizes, limit) -> None:
    net, seen = sizes
    limit(8_000_000)
    with pytest.raises(OutOfMemory) as caught:
        camanim.animate(net, LARGE)
    size = tuple(map(int, re.search(r"size=\((\d+), (\d+)\)", str(caught.value)).groups()))
    assert min(size) > 32
    assert len(camanim.animate(camanim.load_model(net, size=size), LARGE).maps) > 3
    assert size in [tuple(shape) for shape in seen]


def test_a_network_with_a_size_is_to_be_used_at_it(sizes, limit) -> None:
    net, _ = sizes
    model = Model(net, Preprocess(size=(64, 64)))
    limit(8_000_000)
    with pytest.raises(OutOfMemory, match='fit="stretch"'):
        camanim.animate(model, LARGE, fit="native")
    camanim.animate(model, LARGE, fit="stretch")


def test_where_memory_suffices_nothing_is_estimated(zoo, image, limit, monkeypatch) -> None:
    monkeypatch.setattr(memory, "estimate", None)
    for method in ("GradCAM", "ScoreCAM"):
        camanim.animate(zoo.shake(zoo.Plain()), image, method=method)
    limit(2**33)
    camanim.animate(zoo.shake(zoo.Plain()), np.zeros((224, 224, 3), np.uint8))
    # Unknown.
    limit(None)
    camanim.animate(zoo.shake(zoo.Plain()), LARGE)


def test_fewer_slices_at_a_time_where_not_all_fit(zoo, limit) -> None:
    net = zoo.shake(zoo.Plain())
    volume = np.random.default_rng(0).random((6, 64, 64)).astype(np.float32)
    expected = camanim.animate(net, volume, target=0, slices=True)
    model = Model(net)
    one = fitting._MARGIN * traced(model, np.zeros((64, 64, 3), np.float32)).gradients
    limit(int(2.5 * one))
    animation = camanim.animate(net, volume, target=0, slices=True)
    assert any("2" in note for note in animation.notes)
    assert not expected.notes
    for a, b in zip(animation.maps, expected.maps, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_fewer_images_at_a_time_in_perturbations_and_road(zoo, limit) -> None:
    net = zoo.shake(zoo.Plain())
    batches: list[int] = []
    net[0].register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    image = LARGE[:64, :64]
    needed = traced(Model(net), image)
    free = int(5.5 * fitting._MARGIN * needed.forward)
    assert free > fitting._MARGIN * needed.gradients
    limit(free)
    animation = camanim.animate(net, image, target=0, method="AblationCAM")
    assert max(batches) == 5
    assert animation.score(percentiles=(50,), draws=2, batch_size=16).settings["batch_size"] == 5
    limit(int(3 * needed.forward))
    with pytest.raises(OutOfMemory):
        animation.score(percentiles=(60,), draws=2)


def test_a_network_that_takes_one_size_only_is_run(limit, zoo) -> None:
    class OneSize(ReadsValues):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if tuple(x.shape[2:]) != LARGE.shape[:2]:
                raise ValueError("another size")
            return super().forward(x)

    limit(2_000_000)
    assert camanim.animate(OneSize(zoo.shake(zoo.Plain())), LARGE).maps


def test_free_memory_of_a_gpu_includes_what_torch_has_cached(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    assert available_memory(torch.device("cuda", 0)) == 1300


def group(folder, limit: str, usage: str, reclaimable: int, names: tuple[str, str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {reclaimable}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_containers_count(tmp_path, version) -> None:
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    if version == 2:
        membership.write_text("0::/pod/box\n")
        top, names = root, ("memory.max", "memory.current", "inactive_file")
    else:
        membership.write_text("5:cpu,cpuacct:/other\n4:memory:/pod/box\n")
        top = root / "memory"
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    group(top / "pod", "1000", "400", 50, names)
    group(top / "pod" / "box", "max", "300", 50, names)
    assert [each.free() for each in memory.control_groups(membership, root)] == [650]


def test_the_memory_of_this_machine_is_known() -> None:
    free = memory.system_memory()
    assert free is None or 2**20 < free < 2**50
