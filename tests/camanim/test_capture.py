"""One pass: the network comes back as it was, whatever happens; and what was computed is kept."""

from __future__ import annotations

import copy
import gc
import random
import threading
from collections import OrderedDict
from inspect import signature

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.checkpoint import checkpoint

import camanim
from camanim import Cancelled, LayerError, ModelError, OutOfMemory, TargetError
from camanim.cam_methods import find_method
from camanim.errors import InternalError
from camanim.layer_info import Status

METHODS = ("GradCAM", "EigenCAM")


class Stop:
    """A progress callback that raises at its k-th call and counts them all."""

    def __init__(self, at: int | None = None, error: BaseException | None = None) -> None:
        self.at, self.error = at, error or Cancelled("enough")
        self.calls: list[tuple[str, int, int]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.calls.append((stage, done, total))
        if len(self.calls) - 1 == self.at:
            raise self.error


@pytest.fixture
def busy(zoo) -> nn.Module:
    """A network in the middle of its owner's work: mixed modes, gradients, hooks, frozen parts."""
    net = zoo.shake(zoo.Residual())
    net.head.train()
    net.bn2.train()
    net.stem.weight.requires_grad = False
    net.conv.weight.grad = torch.full_like(net.conv.weight, 3.0)
    net.conv.register_forward_hook(lambda module, inputs, output: None)
    net.bn1.register_forward_pre_hook(lambda module, inputs: None)
    net.conv.register_full_backward_hook(lambda module, gin, gout: None)
    net.head[2].weight.register_hook(lambda gradient: gradient)
    return net


# --- The network comes back as it was --------------------------------------------------------


@pytest.mark.parametrize("method", camanim.methods())
def test_a_run_changes_nothing_about_the_network(zoo, image, busy, method) -> None:
    before = zoo.state_of(busy)
    camanim.animate(busy, image, method=method, layers="all")
    assert zoo.state_of(busy) == before


def test_a_prediction_changes_nothing_about_the_network(zoo, image, busy) -> None:
    before = zoo.state_of(busy)
    camanim.Model(busy).predict(image)
    assert zoo.state_of(busy) == before


def test_batch_normalisation_and_dropout_run_in_evaluation_mode(zoo, image) -> None:
    """A network left in training mode gives the same maps, and its statistics stay."""
    net = zoo.shake(zoo.Plain())
    net.append(nn.Dropout(0.9))
    evaluated = camanim.animate(net.eval(), image)
    trained = camanim.animate(net.train(), image)
    for a, b in zip(evaluated.maps, trained.maps, strict=True):
        np.testing.assert_array_equal(a, b)
    assert net[1].num_batches_tracked == 0


ERRORS = [
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ModelError),
    (ValueError("bad"), ModelError),
    (TypeError("bad"), ModelError),
    (AssertionError("Wrong image height!"), ModelError),
    (IndexError("bad"), ModelError),
    (KeyError("bad"), ModelError),
    (AttributeError("bad"), ModelError),
    (ZeroDivisionError("bad"), ModelError),
    (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
    (MemoryError(), OutOfMemory),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OutOfMemory),
]


@pytest.mark.parametrize(("raised", "expected"), ERRORS, ids=lambda e: getattr(e, "__name__", e))
def test_whatever_a_network_raises_becomes_one_of_our_errors(zoo, image, raised, expected) -> None:
    """One that is no RuntimeError, which napari would swallow; and the network is put back."""
    net = zoo.Raises(raised).train()
    before = zoo.state_of(net)
    with pytest.raises(expected, match="1 x 3 x 20 x 24") as info:
        camanim.animate(net, image)
    assert info.value.__cause__ is raised
    with pytest.raises(expected):
        camanim.Model(net).predict(image)
    assert zoo.state_of(net) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(2)])
def test_an_interrupt_inside_the_network_passes_through(zoo, image, error) -> None:
    net = zoo.Raises(error).train()
    before = zoo.state_of(net)
    with pytest.raises(type(error)):
        camanim.animate(net, image)
    assert zoo.state_of(net) == before


@pytest.mark.parametrize("error", [ValueError("mine"), RuntimeError("mine"), KeyError("mine")])
def test_an_error_in_a_predicate_is_not_blamed_on_the_network(zoo, image, busy, error) -> None:
    """Nor lost: whoever wrote the predicate reads their own error."""

    def predicate(info):
        if info.index == 4:
            raise error
        return True

    before = zoo.state_of(busy)
    with pytest.raises((type(error), LayerError), match="mine") as info:
        camanim.animate(busy, image, layers=predicate)
    assert "network fails" not in str(info.value)
    assert zoo.state_of(busy) == before


def test_an_error_in_camanim_is_not_blamed_on_the_network(zoo, image, busy, monkeypatch) -> None:
    before = zoo.state_of(busy)
    # A bug within a hook, below the forward of a module.
    monkeypatch.setattr("camanim.execution.recorder.LayerInfo", None)
    with pytest.raises(InternalError, match="TypeError"):
        camanim.animate(busy, image)
    assert zoo.state_of(busy) == before


@pytest.mark.parametrize("method", ["GradCAM", "ScoreCAM", "GuidedGradCAM"])
@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.reshape(7, 7, 7, 7),
        lambda x: torch.nn.functional.conv2d(x, torch.zeros(1, 99, 1, 1)),
        lambda x: np.zeros(3)[5] + x,
        lambda x: endless(x),
        lambda x: FailingBackward.apply(x),
    ],
    ids=["operation", "function", "numpy", "recursion", "backward"],
)
def test_an_error_in_the_network_is_not_blamed_on_camanim(
    zoo, image, method, operation, request
) -> None:
    if "ScoreCAM-backward" in request.node.name or "backward-ScoreCAM" in request.node.name:
        pytest.skip("ScoreCAM needs no backward pass")
    with pytest.raises(ModelError, match="network fails"):
        camanim.animate(zoo.WithOperation(operation), image, method=method)


def endless(x):
    return endless(x)


class FailingBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.reshape(7, 7, 7)


@pytest.mark.parametrize("at", [0, 4, 13])
def test_an_error_in_progress_is_not_blamed_on_the_network(zoo, image, busy, at) -> None:
    """Such as Qt's "wrapped C/C++ object has been deleted", forward and backward."""
    before = zoo.state_of(busy)
    with pytest.raises(Exception, match="deleted") as info:
        camanim.animate(busy, image, progress=Stop(at, RuntimeError("deleted")))
    assert "network fails" not in str(info.value)
    assert zoo.state_of(busy) == before


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_at_any_step_passes_through(zoo, image, busy, method) -> None:
    whole = Stop()
    camanim.animate(busy, image, method=method, progress=whole)
    before = zoo.state_of(busy)
    for at in range(len(whole.calls)):
        with pytest.raises(KeyboardInterrupt):
            camanim.animate(busy, image, method=method, progress=Stop(at, KeyboardInterrupt()))
        assert zoo.state_of(busy) == before


@pytest.mark.parametrize("target", [3, -4, "wolf", 10**30])
def test_an_unknown_target_is_named_and_changes_nothing(zoo, image, busy, target) -> None:
    before = zoo.state_of(busy)
    with pytest.raises(TargetError, match=str(target)):
        camanim.animate(camanim.Model(busy, classes=["cat", "dog", "ox"]), image, target=target)
    assert zoo.state_of(busy) == before


# --- Cancelling keeps what there is ----------------------------------------------------------


def test_progress_tells_both_stages_and_never_beyond_the_total(zoo, image) -> None:
    told = Stop()
    animation = camanim.animate(zoo.shake(zoo.Residual()), image, progress=told)
    forward = [done for stage, done, _ in told.calls if stage == "forward"]
    maps = [done for stage, done, _ in told.calls if stage == "maps"]
    assert forward == list(range(1, len(animation.layer_calls) + 1))
    assert maps == list(range(1, len(animation) + 1))
    assert all(0 < done <= total for _, done, total in told.calls)
    assert told.calls[-1] == ("maps", len(animation), len(animation))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("at", range(18))
def test_cancelled_at_any_step_it_keeps_the_maps_it_has(zoo, image, busy, method, at) -> None:
    whole = camanim.animate(busy, image, method=method)
    complete = {layer.index: m for layer, m in zip(whole.layers, whole.maps, strict=True)}
    before = zoo.state_of(busy)
    stop = Stop(at)
    try:
        animation = camanim.animate(busy, image, method=method, progress=stop)
    except Cancelled:
        stage, done, _ = stop.calls[at]
        # There was no map yet: gradient methods make theirs in the backward pass.
        assert stage == "forward"
        assert method == "GradCAM" or not any(index < done - 1 for index in complete)
        return
    finally:
        assert zoo.state_of(busy) == before
    kept = {layer.index: m for layer, m in zip(animation.layers, animation.maps, strict=True)}
    for index, raw in kept.items():
        np.testing.assert_array_equal(raw, complete[index])
    lost = {layer.index for layer in animation.layer_calls if layer.status == Status.CANCELLED}
    assert kept.keys() | lost == complete.keys()
    assert not kept.keys() & lost
    assert animation.cancelled == bool(lost)
    assert animation.probability == whole.probability
    if at < len(stop.calls):
        stage, done, _ = stop.calls[at]
        want = done if stage == "maps" else sum(index < done - 1 for index in complete)
        assert len(kept) == want
        assert len(stop.calls) == at + 1, "progress is not called again once it has said stop"
    else:
        assert kept.keys() == complete.keys()


# --- Nothing stays behind --------------------------------------------------------------------


def feature_maps() -> int:
    """Count live tensors (1, C, h, w) that are no weights."""
    return sum(type(o) is torch.Tensor and o.ndim == 4 and len(o) == 1 for o in gc.get_objects())


@pytest.mark.parametrize("method", METHODS)
def test_activations_die_with_the_run(zoo, image, method) -> None:
    """Without waiting for the cycle collector: on a GPU that would be gigabytes until it runs."""
    net = zoo.shake(zoo.Residual())
    camanim.animate(net, image, method=method)
    gc.collect()
    gc.disable()
    try:
        before = feature_maps()
        animation = camanim.animate(net, image, method=method)
        kept = 1 if animation.input_gradient is None else 2
        assert feature_maps() - before == kept, (
            "the input and its gradient, which the animation keeps"
        )
        assert not animation.tensor.requires_grad
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["cancelled", "progress fails", "network fails", "unknown target"])
def test_activations_die_with_a_run_that_fails(zoo, image, how) -> None:
    """Also where the callback keeps its error, as a worker does.

    The error holds the frames, these the tensors, these their hooks, and nobody collects that
    cycle if the hooks lead back to the callback: it runs through autograd's graph.
    """
    net = zoo.Raises(RuntimeError("bad")) if how == "network fails" else zoo.Residual()
    error = Cancelled() if how == "cancelled" else ValueError("mine")
    progress = Stop(13, error) if how == "progress fails" else Stop(4, error)
    gc.collect()
    before = feature_maps()
    with pytest.raises(Exception):  # noqa: B017, PT011 (which one is another test's matter)
        camanim.animate(
            net, image, target=7 if how == "unknown target" else 0,
            progress=camanim.progress.silent if how == "unknown target" else progress,
        )  # fmt: skip
    del net, progress, error
    gc.collect()
    assert feature_maps() - before <= 0


def test_the_maps_share_no_memory_with_anything(zoo, image) -> None:
    animation = camanim.animate(zoo.shake(zoo.Plain()), image, layers="all")
    for i, raw in enumerate(animation.maps):
        assert raw.dtype == np.float32
        assert raw.flags.writeable
        assert not any(np.shares_memory(raw, other) for other in animation.maps[:i])


# --- Whoever calls it, from wherever ---------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_is_of_no_consequence(zoo, image, mode) -> None:
    net = zoo.shake(zoo.Residual())
    plain = camanim.animate(net, image)
    with mode():
        inside = camanim.animate(net, image)
        likeliest = camanim.Model(net).predict(image)[0]
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    assert likeliest.index == inside.target.index
    for a, b in zip(plain.maps, inside.maps, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("still_inside", [False, True])
def test_a_network_made_in_inference_mode_is_refused_in_our_own_words(
    zoo, image, still_inside
) -> None:
    """Its weights cannot enter autograd; that it says, rather than end in a RuntimeError."""
    with torch.inference_mode():
        net = zoo.Plain().eval()
    with pytest.raises(ModelError, match="nference"), torch.inference_mode(still_inside):
        camanim.animate(net, image)


def test_the_callers_random_numbers_stay_as_they_were(zoo, image) -> None:
    net = zoo.shake(zoo.Plain())
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    for method in camanim.methods():
        camanim.animate(net, image, method=method)
    camanim.load_model("torchvision/squeezenet1_1", weights=None)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]


def test_it_runs_in_another_thread_and_reports_there(zoo, image) -> None:
    net = zoo.shake(zoo.Residual())
    here = camanim.animate(net, image)
    threads, results = set(), []

    def work() -> None:
        results.append(
            camanim.animate(net, image, progress=lambda *told: threads.add(threading.get_ident()))
        )

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert threads == {thread.ident}
    for a, b in zip(here.maps, results[0].maps, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("method", ["GradCAM", "RandomCAM"])
def test_another_default_device_is_of_no_consequence(zoo, image, method) -> None:
    """``torch.set_default_device("cuda")`` in the caller's script, while the network is on the CPU."""
    net = zoo.shake(zoo.Plain())
    with torch.device("meta"):
        animation = camanim.animate(net, image, method=method)
    assert len(animation) == 6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_precision(zoo, image, dtype) -> None:
    net = zoo.shake(zoo.Plain())
    single = camanim.animate(net, image, target=0)
    other = camanim.animate(net.to(dtype), image, target=0)
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    for a, b in zip(other.maps, single.maps, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_first_module_that_writes_in_place_gets_an_input_it_may_overwrite(
    zoo, image, method
) -> None:
    """Autograd forbids that on a leaf; and the user's own tensor is not to be written to."""
    ours, twin = (
        zoo.shake(nn.Sequential(nn.Hardtanh(0.2, 0.8, inplace=flag), *zoo.Plain()))
        for flag in (True, False)
    )
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    before = tensor.clone()
    model = camanim.Model(ours, preprocess=lambda _: tensor)
    maps = camanim.animate(model, image, method=method, target=0).maps
    model.predict(image)
    assert torch.equal(tensor, before)
    for a, b in zip(maps, camanim.animate(twin, image, method=method, target=0).maps, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_checkpointed_layers_have_their_maps(zoo, image) -> None:
    """Their activations are made twice, the second time during the backward pass."""

    class Checkpointed(zoo.Residual):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    ours, plain = (
        camanim.animate(zoo.shake(kind()), image, target=0) for kind in (Checkpointed, zoo.Residual)
    )
    assert [layer.label for layer in ours.layers] == [layer.label for layer in plain.layers]
    for a, b in zip(ours.maps, plain.maps, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_what_the_input_does_not_reach_by_gradients_is_still_on_the_targets_path(
    zoo, image
) -> None:
    """A network that normalises its input under ``no_grad``, as many published ones do."""

    class Normalises(zoo.Plain):
        def forward(self, x):
            with torch.no_grad():
                x = (x - 0.5) / 0.25
            return super().forward(x)

    net = zoo.shake(Normalises())
    plain = camanim.Model(zoo.shake(zoo.Plain()), camanim.Preprocess(mean=(0.5,), std=(0.25,)))
    ours = camanim.animate(net, image, method="HiResCAM", target=1)
    for a, b in zip(ours.maps, camanim.animate(
        plain, image, method="HiResCAM", target=1
    ).maps, strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "operation",
    [
        lambda y: y.detach().mean((2, 3)),
        lambda y: torch.zeros(1, 3),
        lambda y: torch.zeros(1, 3, requires_grad=True) * 1,
    ],
    ids=["detached", "constant", "of a parameter"],
)
def test_where_nothing_leads_to_the_target_it_says_so(zoo, image, operation) -> None:
    net = zoo.CustomOutput(operation)
    with pytest.raises(LayerError, match=Status.OFF_PATH):
        camanim.animate(net, image)
    assert len(camanim.animate(net, image, method="EigenCAM")) == 1


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (lambda y: y[0].flatten(1).T, "396 answers for 1 image"),
        (lambda y: y.mean(), r"\(\)"),
        (lambda y: y.mean((2, 3))[:, :0], r"\(1, 0\)"),
        (lambda y: y.mean((2, 3)).argmax(1, keepdim=True), r"\(1, 1\)"),
        (lambda y: y.mean((2, 3)) / 0, "finite"),
        (lambda y: y.mean((2, 3)).detach().numpy(), "ndarray"),
        (lambda y: None, "NoneType"),
    ],
    ids=[
        "many rows", "number", "no class", "integers", "infinite", "numpy", "nothing",
    ],
)  # fmt: skip
def test_an_output_without_a_row_of_scores_for_the_image_is_named(
    zoo, image, operation, says
) -> None:
    for call in (camanim.animate, lambda net, image: camanim.Model(net).predict(image)):
        with pytest.raises(TargetError, match=says):
            call(zoo.CustomOutput(operation), image)


# --- The target ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requested", "index"),
    [(2, 2), (-1, 2), ("dog", 1), ("DOG", 1), ("2", 2), (np.int64(1), 1), (torch.tensor(1), 1)],
)
def test_a_class_by_number_or_name(zoo, image, requested, index) -> None:
    model = camanim.Model(zoo.shake(zoo.Plain()), classes=["cat", "dog", "ox"])
    target = camanim.animate(model, image, target=requested).target
    assert (target.index, target.name) == (index, ["cat", "dog", "ox"][index])


def test_the_likeliest_class_is_the_default_and_its_probability_that_of_predict(zoo, image) -> None:
    model = camanim.Model(zoo.shake(zoo.Plain()), classes=["cat", "dog", "ox"])
    animation, ranking = camanim.animate(model, image), model.predict(image, k=9)
    assert animation.target.name == ranking[0].name
    assert animation.probability == pytest.approx(ranking[0].probability, rel=1e-6)
    assert sum(p.probability for p in ranking) == pytest.approx(1)
    assert [p.probability for p in ranking] == sorted(p.probability for p in ranking)[::-1]


@pytest.mark.parametrize(
    ("classes", "requested", "index"),
    [
        (["Cardigan", "cardigan", "x"], "cardigan", 1),
        (["1", "2", "3"], "1", 0),
        (["0", "4", "2"], "2", 2),
    ],
    ids=["ImageNet's dog and garment", "BI-RADS", "a name that is also a number"],
)
def test_an_exact_name_goes_before_a_similar_name_and_a_number(
    zoo, image, classes, requested, index
) -> None:
    """Or the wrong class is explained without a word."""
    model = camanim.Model(zoo.shake(zoo.Plain()), classes=classes)
    assert camanim.animate(model, image, target=requested).target.index == index


@pytest.mark.parametrize("wrong", [1.5, [1], "--5", "²", object(), ""])
def test_what_is_no_class_at_all_is_refused_as_a_target(zoo, image, wrong) -> None:
    with pytest.raises(TargetError):
        camanim.animate(zoo.shake(zoo.Plain()), image, target=wrong)


def test_a_single_logit_is_a_sigmoid(zoo, image) -> None:
    net = zoo.CustomOutput(lambda y: y.mean((2, 3))[:, :1])
    animation = camanim.animate(net, image)
    with torch.no_grad():
        logit = net(animation.tensor).item()
    positive = 1 / (1 + np.exp(-logit))
    # Its two classes are the logit and what speaks against it; the likelier one is explained.
    assert animation.target.index == int(positive > 0.5)
    assert animation.probability == pytest.approx(max(positive, 1 - positive), rel=1e-6)
    assert {p.index for p in camanim.Model(net).predict(image)} == {0, 1}


# --- What is written down --------------------------------------------------------------------


def test_the_record_suffices_to_tell_two_runs_apart(zoo, image, grey) -> None:
    model = camanim.Model(zoo.shake(zoo.Plain()))

    def record(picture=image, **settings):
        return camanim.animate(model, picture, **settings).provenance

    first = record()
    assert record() == first
    assert record(seed=1) != first
    assert record(target=(first["target"]["index"] + 1) % 3) != first
    assert record(picture=grey)["image sha256"] != first["image sha256"]
    model.net[0].weight.data[0, 0, 0, 0] += 1
    assert record()["weights sha256"] != first["weights sha256"]


def test_extra_state_in_a_network_does_no_harm(zoo, image) -> None:
    """``get_extra_state`` puts things into the state dict that are no tensors."""

    class Extra(zoo.Plain):
        def get_extra_state(self):
            return {"epoch": 3}

        def set_extra_state(self, state):
            raise NotImplementedError

    assert len(camanim.animate(zoo.shake(Extra()), image)) == 6


def test_the_table_has_a_row_for_every_call_and_a_reason_where_there_is_no_map(zoo, image) -> None:
    animation = camanim.animate(zoo.shake(zoo.PassThrough()), image)
    rows = animation.table()
    assert [row["index"] for row in rows] == list(range(len(animation.layer_calls)))
    by_name = {row["name"]: row for row in rows}
    assert by_name["features.1"]["status"] == "same as features.0"
    assert by_name["head.1"]["status"] == Status.NOT_SPATIAL
    assert by_name["features.0"]["output shape"] == "1x4x20x24"
    for row in rows:
        assert (row["raw max"] is None) == (row["status"] != Status.OK)
    i = [layer.name for layer in animation.layers].index("relu")
    assert by_name["relu"]["raw max"] == pytest.approx(float(animation.maps[i].max()))


def test_a_caption_says_when_there_is_no_positive_evidence(zoo, image) -> None:
    animation = camanim.animate(zoo.shake(zoo.Plain()), image)
    animation.maps[0] = -np.abs(animation.maps[0])
    animation.maps[1] = np.abs(animation.maps[1]) + 1
    assert "no positive evidence" in animation.caption(0)
    assert "no positive evidence" not in animation.caption(1)
    assert "Conv2d" in animation.caption(0)
    assert f"{animation.target.name} {animation.probability:.2f}" in animation.caption(0)


# --- Networks that interfere with their modules while they run ------------------------------------


class Scaled(nn.Module):
    """A convolution whose output is changed through ``.data``, which leaves its version unchanged."""

    def __init__(self, change) -> None:
        super().__init__()
        self.conv, self.change = nn.Conv2d(4, 4, 3, padding=1), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        self.change(y)
        return y


def classifier(*middle: nn.Module) -> nn.Sequential:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *middle, *head)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "change",
    [
        lambda y: y.data.mul_(-3), lambda y: y.data[:, 1:].zero_(),
        lambda y: torch._foreach_mul_([y.data], -2), lambda y: setattr(y, "data", y.data * -2),
    ],
    ids=["mul_", "slice", "foreach", "assigned"],
)  # fmt: skip
def test_a_write_through_data_makes_another_layer(zoo, image, method, change) -> None:
    net = zoo.shake(classifier(Scaled(change)))
    animation = camanim.animate(net, image, method=method, target=0, layers="all")
    maps = {layer.label: raw for layer, raw in zip(animation.layers, animation.maps, strict=True)}
    assert {layer.label: layer.same_as for layer in animation.layers}["1"] is None
    before = net[1].conv(net[0](animation.tensor)).detach()
    after = before.clone()
    change(after)
    after.requires_grad_()
    (gradient,) = torch.autograd.grad(net[2:](after)[0, 0], after)
    weigh = find_method(method).weigh
    for label, activation in (("1.conv", before), ("1", after.detach())):
        expected = weigh({"activation": activation[0], "gradient": gradient[0]})
        np.testing.assert_allclose(maps[label], expected, atol=1e-4, rtol=1e-3)


class Interfering(nn.Module):
    """Copies, replaces or inspects a convolution within its forward."""

    def __init__(self, call) -> None:
        super().__init__()
        self.conv, self.call = nn.Conv2d(4, 4, 3, padding=1), call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(self, x).relu()


def patched(self: Interfering, x: torch.Tensor) -> torch.Tensor:
    if "forward" not in vars(self.conv):
        original = self.conv.forward
        self.conv.forward = lambda x: 2 * original(x)
    return self.conv(x)


def reweighted(self: Interfering, x: torch.Tensor) -> torch.Tensor:
    other = copy.copy(self.conv)
    other._parameters = {name: -p for name, p in self.conv._parameters.items()}
    other._forward_hooks = OrderedDict()
    return other(x) + self.conv(x)


@pytest.mark.parametrize(
    "call",
    [
        patched, reweighted, lambda self, x: copy.deepcopy(self.conv)(x),
        lambda self, x: self.conv.forward.__func__(self.conv, x),
        lambda self, x: self.conv(*([x] * len(signature(self.conv.forward).parameters))),
    ],
    ids=["patched", "reweighted", "deep copy", "function", "signature"],
)  # fmt: skip
def test_a_network_that_interferes_with_a_module_computes_the_same(zoo, image, call) -> None:
    net, untouched = (zoo.shake(classifier(Interfering(call))) for _ in range(2))
    animation = camanim.animate(net, image, target=0, layers="all")
    expected = untouched(animation.tensor)
    assert float(animation.target.value(expected)) == pytest.approx(animation.probability, abs=1e-6)
    for _ in range(2):
        assert torch.equal(net(animation.tensor), untouched(animation.tensor))


def test_a_view_whose_base_was_written_to_has_a_map(zoo, image) -> None:
    """torch 2.14 crashes in `register_hook` of such a view."""

    class Stale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * 1
            view = x[:, :2]
            x += 1
            return self.drop(view).repeat(1, 2, 1, 1)

    net = zoo.shake(classifier(Stale()))
    animation = camanim.animate(net, image, target=0, layers="1.drop")
    assert np.isfinite(animation.maps[0]).all()


def test_an_interrupt_while_the_mode_is_suspended_leaves_no_mode(zoo, image) -> None:
    net = zoo.shake(zoo.Plain())
    before = zoo.state_of(net)

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Conv2d, "_conv_forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            camanim.animate(net, image)
    assert zoo.state_of(net) == before
    assert not _get_current_dispatch_mode_stack()
