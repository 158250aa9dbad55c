"""Subclasses of grad-cam's ``BaseCAM`` as methods: grad-cam's answers, and nothing changed by them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from camanim.cam_methods import find_method
from camanim.cam_methods.grad_cam_listing import classes_in
from camanim.errors import MethodError, NoMap, TargetError

reference = pytest.importorskip("pytorch_grad_cam")

from pytorch_grad_cam.base_cam import BaseCAM  # noqa: E402
from pytorch_grad_cam.utils.image import scale_cam_image  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

from camanim.cam_methods.grad_cam_adapter import adapt  # noqa: E402

CLASS = 1
IMAGE = torch.rand(1, 3, 14, 18, generator=torch.Generator().manual_seed(0))
#: A target as the engine has it.
TARGET = SimpleNamespace(score=lambda output: output[:, CLASS], name="one")
#: Outputs that are channels over space already.
AS_IS = SimpleNamespace(to_channels=lambda output: output)


def run(zoo, method, net, name: str, call: int = 0, options=None, **more):
    """Do what the engine does for one layer."""
    with torch.random.fork_rng():
        twin = getattr(zoo, type(net).__name__)(inplace=False)
    twin.load_state_dict(net.state_dict())
    activation, gradient = zoo.by_hand(twin.eval(), IMAGE, CLASS)[name, call]
    found = {
        "activation": torch.from_numpy(activation),
        "image": IMAGE[0],
        "module": net.get_submodule(name),
        "net": net,
        "target": TARGET,
        "arrangement": AS_IS,
        "generator": torch.Generator().manual_seed(3),
    }
    if not method.needs_reevaluation:
        found["gradient"] = torch.from_numpy(gradient)
    found = {key: found[key] for key in method.needs} | more
    with torch.no_grad():
        return method.weigh(found, options).numpy()


def as_they_show_it(raw: np.ndarray) -> np.ndarray:
    """What grad-cam makes of a raw map: for one layer, in the end it scales twice."""
    size = IMAGE.shape[:1:-1]
    return scale_cam_image(scale_cam_image(np.maximum(raw, 0)[None], tuple(size)))[0]


def their_map(found: type, net: nn.Module, name: str, **options) -> np.ndarray:
    with found(net, [net.get_submodule(name)], **options) as cam:
        return cam(IMAGE.clone(), [ClassifierOutputTarget(CLASS)])[0]


EXPORTED = sorted(
    name
    for name, found in vars(reference).items()
    if isinstance(found, type) and issubclass(found, BaseCAM)
)


@pytest.mark.parametrize("name", [n for n in EXPORTED if n not in ("RandomCAM", "FullGrad")])
@pytest.mark.parametrize("layer", ["2", "5"])
def test_each_of_grad_cams_classes_gives_what_grad_cam_gives(zoo, name: str, layer: str) -> None:
    """As if we had no form of our own; on ReLUs, so that AblationCAM does not divide by tiny scores."""
    net = zoo.shake(zoo.Plain(inplace=False))
    found = getattr(reference, name)
    expected = their_map(found, net, layer)
    made = run(zoo, adapt(found), net, layer)
    assert made.shape == zoo.by_hand(net, IMAGE, CLASS)[layer, 0][0].shape[1:]
    ours = as_they_show_it(made)
    if "Eigen" in name or "KPCA" in name:
        # The sign of a singular vector is whatever the library made of it.
        other = as_they_show_it(-made)
        ours = min(ours, other, key=lambda m: np.abs(m - expected).max())
    np.testing.assert_allclose(ours, expected, atol=1e-3)
    assert np.ptp(expected) > 0.5


def test_a_class_that_looks_at_the_whole_network_gives_its_own_map(zoo) -> None:
    net = zoo.shake(zoo.Plain(inplace=False))
    expected = their_map(reference.FullGrad, net, "0")
    made = run(zoo, adapt(reference.FullGrad), net, "0")
    assert made.shape == IMAGE.shape[2:]
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_random_numbers_come_from_our_seed_and_leave_the_callers_alone(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    method = adapt(reference.RandomCAM)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    made = run(zoo, method, net, "0")
    np.testing.assert_array_equal(made, run(zoo, method, net, "0"))
    other = run(zoo, method, net, "0", generator=torch.Generator().manual_seed(4))
    assert np.abs(made - other).max() > 0
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    ("name", "one_pass", "gradient"),
    [
        ("GradCAM", True, True),
        ("LayerCAM", True, True),
        ("EigenCAM", False, False),
        ("ScoreCAM", False, False),
        ("ShapleyCAM", False, False),
        ("FullGrad", False, False),
    ],
)
def test_the_way_is_found_by_looking(name: str, one_pass: bool, gradient: bool) -> None:
    method = adapt(getattr(reference, name))
    assert method.needs_reevaluation is not one_pass
    assert method.needs_gradient is gradient
    assert method.smoothable


# -- What a user might write -------------------------------------------------------------------------


class Mine(BaseCAM):
    """Weighs by the largest gradient.

    More about it.
    """

    def __init__(self, model, target_layers, reshape_transform=None, power: float = 1.0, top=None):
        super().__init__(model, target_layers, reshape_transform)
        self.power, self.top = power, top

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        return grads.max((2, 3)) ** self.power


class OwnForward(BaseCAM):
    """Explains twice the score, and turns the map upside down."""

    def __init__(self, model, target_layers):
        super().__init__(model, target_layers)

    def forward(self, input_tensor, targets, eigen_smooth=False):
        double = [lambda output: 2 * targets[0](output)]
        return super().forward(input_tensor, double, eigen_smooth)[:, ::-1]

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        return grads.mean((2, 3))


class Graph(BaseCAM):
    """Keeps the graph: its tensors are tensors, and it weighs by a second derivative."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(
            model, target_layers, reshape_transform, compute_input_gradient=True, detach=False
        )

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        assert input_tensor.requires_grad
        return grads.detach().numpy().mean((2, 3))


class AsksAgain(BaseCAM):
    """Runs the network: weighs by the score without the channel's mean."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform, uses_gradients=False)

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        assert grads is None
        output = self.model(input_tensor)
        return activations.mean((2, 3)) * float(targets[0](output[0]))


class Careless(BaseCAM):
    """Leaves everything changed, and fails when told to."""

    def __init__(self, model, target_layers, reshape_transform=None, fail: bool = False):
        super().__init__(model, target_layers, reshape_transform)
        self.fail = fail

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        activations *= 0
        for module in self.model.modules():
            module.register_forward_hook(lambda *_: None)
            module.register_full_backward_hook(lambda *_: None)
            module.train()
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.model._modules["2"] = nn.Identity()
        if self.fail:
            raise ValueError("no such thing\nmore")
        return grads.mean((2, 3))


def test_a_users_class_is_a_method(zoo) -> None:
    method = find_method(Mine)
    assert (method.name, method.summary) == ("Mine", "Weighs by the largest gradient.")
    assert set(method.options) == {"power", "top"}
    net = zoo.shake(zoo.Plain(inplace=False))
    activation, gradient = zoo.by_hand(net, IMAGE, CLASS)["4", 0]
    for power in (1.0, 2.0):
        expected = np.einsum("c,chw->hw", gradient.max((1, 2)) ** power, activation)
        made = run(zoo, method, net, "4", options={"power": power})
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(MethodError, match="there are power, top"):
        method.checked({"reshape_transform": None})


def test_eigen_smoothing_is_the_classs_own(zoo) -> None:
    net = zoo.shake(zoo.Plain(inplace=False))
    method = find_method(Mine)
    activation, gradient = zoo.by_hand(net, IMAGE, CLASS)["4", 0]
    found = {
        "activation": torch.from_numpy(activation), "gradient": torch.from_numpy(gradient),
        "image": IMAGE[0], "net": net, "module": net[4], "target": TARGET,
        "generator": torch.Generator(),
    }  # fmt: skip
    made = method.weigh(found, eigen_smooth=True).numpy()
    ours = find_method(lambda gradient: gradient.flatten(1).max(1).values).weigh(
        found, eigen_smooth=True
    )
    sign = np.sign((made * ours.numpy()).sum())
    np.testing.assert_allclose(made, sign * ours.numpy(), atol=1e-5 * np.abs(made).max())


def test_its_own_forward_is_respected(zoo) -> None:
    net = zoo.shake(zoo.Plain(inplace=False))
    made = run(zoo, find_method(OwnForward), net, "4")
    np.testing.assert_allclose(made, their_map(OwnForward, net, "4"), atol=1e-6)
    np.testing.assert_allclose(made[::-1], their_map(reference.GradCAM, net, "4"), atol=1e-5)


def test_a_class_that_keeps_the_graph_gets_tensors_and_its_map_its_own_size(zoo) -> None:
    net = zoo.shake(zoo.Plain(inplace=False))
    activation, gradient = zoo.by_hand(net, IMAGE, CLASS)["4", 0]
    made = run(zoo, find_method(Graph), net, "4")
    expected = np.einsum("c,chw->hw", gradient.mean((1, 2)), activation)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-6)


class InputGradient(reference.GradCAM):
    """Wants the input's gradient beside what GradCAM wants."""

    def __init__(self, model, target_layers, reshape_transform=None):
        BaseCAM.__init__(self, model, target_layers, reshape_transform, compute_input_gradient=True)

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        assert float(input_tensor.grad.abs().max()) > 0
        return super().get_cam_weights(input_tensor, target_layer, targets, activations, grads)


@pytest.mark.parametrize("call", [0, 1, 2])
def test_of_a_module_that_runs_more_than_once_it_gets_the_call_that_is_asked_for(
    zoo, call: int
) -> None:
    net = zoo.shake(zoo.Reused())
    twin = zoo.shake(zoo.Reused(inplace=False))
    activation, gradient = zoo.by_hand(twin, IMAGE, CLASS)["relu", call]
    made = run(zoo, find_method(InputGradient), net, "relu", call)
    expected = np.einsum("c,chw->hw", gradient.mean((1, 2)), activation)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-6)


def test_what_is_overwritten_after_the_layer_was_copied_before(zoo) -> None:
    """grad-cam itself is wrong here: a ReLU in place overwrites what its hook kept."""
    net, twin = (zoo.shake(zoo.Plain(inplace=flag)) for flag in (True, False))
    made = run(zoo, find_method(InputGradient), net, "1")
    activation, gradient = zoo.by_hand(twin, IMAGE, CLASS)["1", 0]
    expected = np.einsum("c,chw->hw", gradient.mean((1, 2)), activation)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-6)


def test_its_own_way_reads_the_layer_as_the_engine_does(zoo) -> None:
    class Last(nn.Module):
        """Channels last between two convolutions."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 3), nn.LayerNorm(4)
            self.head = nn.Sequential(*zoo.head(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(self.first(x).permute(0, 2, 3, 1))
            return self.head(x.permute(0, 3, 1, 2).relu())

    net = zoo.shake(Last())
    kept: list[torch.Tensor] = []
    handle = net.norm.register_forward_hook(lambda module, inputs, output: kept.append(output))
    score = net(IMAGE.clone().requires_grad_())[0, CLASS]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    method = find_method(InputGradient)
    to_channels = lambda output: output.permute(0, 3, 1, 2)
    activation = to_channels(kept[0])[0].detach()
    found = {
        "activation": activation, "image": IMAGE[0], "module": net.norm, "net": net, "target": TARGET,
        "arrangement": SimpleNamespace(to_channels=to_channels), "generator": torch.Generator(),
    }  # fmt: skip
    made = method.weigh(found)
    expected = torch.einsum("c,chw->hw", gradient[0].mean((0, 1)), activation)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-6)


def test_a_class_may_run_the_network(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    method = find_method(AsksAgain)
    assert method.needs_reevaluation
    made = run(zoo, method, net, "4")
    activation, _ = zoo.by_hand(zoo.shake(zoo.Plain(inplace=False)), IMAGE, CLASS)["4", 0]
    with torch.no_grad():
        score = float(net(IMAGE)[0, CLASS])
    expected = score * np.einsum("c,chw->hw", activation.mean((1, 2)), activation)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "found", [Mine, OwnForward, Graph, AsksAgain, Careless, reference.AblationCAM]
)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_network_comes_back_as_it_was(zoo, found: type, frozen: bool) -> None:
    net = zoo.shake(zoo.Plain())
    net.train()
    net[1].eval()
    net[0].weight.grad = torch.full_like(net[0].weight, 3.0)
    net[3].register_forward_hook(lambda *_: None)
    if frozen:
        net.requires_grad_(False)
    before, children = zoo.state_of(net), list(net)
    run(zoo, adapt(found), net, "4")
    assert zoo.state_of(net) == before
    assert [a is b for a, b in zip(net, children, strict=True)] == [True] * len(children)


def test_and_when_the_class_fails_the_layer_says_why(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    before, children = zoo.state_of(net), list(net)
    with pytest.raises(NoMap, match=r"^ValueError in Careless: no such thing$"):
        run(zoo, find_method(Careless), net, "4", options={"fail": True})
    assert zoo.state_of(net) == before
    assert all(a is b for a, b in zip(net, children, strict=True))


def test_what_it_writes_into_is_a_copy(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    activation, gradient = (torch.rand(8, 4, 4) for _ in range(2))
    before = activation.clone()
    found = {
        "activation": activation, "gradient": gradient, "image": IMAGE[0], "net": net,
        "module": net[4], "target": TARGET, "generator": torch.Generator(),
    }  # fmt: skip
    find_method(Careless).weigh(found)
    assert torch.equal(activation, before)


def test_our_own_errors_are_not_the_classs(zoo) -> None:
    def refuse(output):
        raise TargetError("There is no such class.")

    wrong = SimpleNamespace(score=refuse, name="wrong")
    with pytest.raises(TargetError, match="no such class"):
        run(zoo, find_method(OwnForward), zoo.shake(zoo.Plain()), "4", target=wrong)


class NoMapAtAll(Mine):
    def get_cam_image(self, *given):
        return np.zeros((1, 7))


def test_what_is_no_map_is_told(zoo) -> None:
    with pytest.raises(NoMap, match=r"NoMapAtAll gives \(7,\)"):
        run(zoo, find_method(NoMapAtAll), zoo.shake(zoo.Plain()), "4")


class NeedsMore(BaseCAM):
    def __init__(self, model, target_layers, colour):
        super().__init__(model, target_layers)


def test_a_class_that_needs_more_is_refused() -> None:
    with pytest.raises(MethodError, match="NeedsMore needs 'colour'"):
        find_method(NeedsMore)


class LooksAround(Mine):
    """Wants a network with a head, to begin with."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform)
        self.head = model.get_submodule("8")


def test_a_class_that_wants_to_see_the_network_sees_it_when_it_runs(zoo) -> None:
    method = find_method(LooksAround)
    assert method.needs_reevaluation
    net = zoo.shake(zoo.Plain(inplace=False))
    made = run(zoo, method, net, "4")
    np.testing.assert_allclose(made, run(zoo, find_method(Mine), net, "4"), rtol=1e-4, atol=1e-6)


def test_outputs_that_are_lists_reach_the_target_as_lists() -> None:
    from camanim.cam_methods.grad_cam_adapter import as_their_target

    boxes = {"scores": torch.tensor([0.2, 0.7])}
    target = SimpleNamespace(
        score=lambda outputs: torch.stack([o["scores"].max() for o in outputs])
    )
    assert float(as_their_target(target)(boxes)) == pytest.approx(0.7)


# -- Finding classes ---------------------------------------------------------------------------------


def test_a_class_is_found_by_where_it_is() -> None:
    assert find_method("pytorch_grad_cam:GradCAM") is find_method("GradCAM")
    assert find_method("pytorch_grad_cam.layer_cam:LayerCAM") is find_method("LayerCAM")
    assert find_method(type("GradCAM", (reference.GradCAM,), {"__module__": "mine"})).gives == "own"
    for wrong in (
        "pytorch_grad_cam:Nothing",
        "pytorch_grad_cam:AblationLayer",
        "pytorch_grad_cam:",
    ):
        with pytest.raises(MethodError):
            find_method(wrong)


@pytest.fixture
def tomorrow(tmp_path: Path) -> Path:
    """A grad-cam of tomorrow, with a method that nobody here has heard of."""
    package = tmp_path / "pytorch_grad_cam"
    package.mkdir()
    sources = {
        "__init__": """
            from pytorch_grad_cam.grad_cam import GradCAM
            from pytorch_grad_cam.new import TomorrowCAM as MorningCAM, TomorrowCAM, helper
            from pytorch_grad_cam.other import NoCAM
            import pytorch_grad_cam.base_cam
        """,
        "base_cam": "import torch\nclass BaseCAM: pass\n",
        "grad_cam": "from pytorch_grad_cam.base_cam import BaseCAM\nclass GradCAM(BaseCAM): pass\n",
        "middle": "",
        "new": '''
            from pytorch_grad_cam import base_cam
            class Middle(base_cam.BaseCAM): pass
            class TomorrowCAM(Middle):
                """Knows it all.

                Truly.
                """
            def helper(): pass
        ''',
        "other": "class NoCAM: pass\n",
    }
    for name, source in sources.items():
        (package / f"{name}.py").write_text(textwrap.dedent(source))
    return tmp_path


def test_what_a_grad_cam_exports_is_read_without_importing_it(tomorrow: Path) -> None:
    found = classes_in(tomorrow / "pytorch_grad_cam")
    assert set(found) == {"GradCAM", "TomorrowCAM"}
    assert found["TomorrowCAM"].source == "pytorch_grad_cam.new:TomorrowCAM"
    assert found["TomorrowCAM"].summary == "Knows it all."
    ours = classes_in(Path(reference.__file__).parent)
    assert sorted(ours) == EXPORTED
    assert classes_in(tomorrow / "nothing") == {}


def test_tomorrows_method_is_listed_today_without_torch(tomorrow: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(tomorrow)!r})\n"
        "import camanim\n"
        "found = camanim.methods()\n"
        "print(found['TomorrowCAM'].summary, list(found).count('GradCAM'))\n"
        "print([m for m in ('torch', 'pytorch_grad_cam') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["Knows it all. 1", "[]"]


def test_and_it_runs_under_its_name(zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    from camanim.cam_methods import methods, registry
    from camanim.cam_methods.grad_cam_listing import Entry

    module = SimpleNamespace(__name__="tomorrow", MineToo=Mine)
    monkeypatch.setitem(sys.modules, "tomorrow", module)
    entry = {"MineToo": Entry("tomorrow:MineToo", "Weighs.")}
    monkeypatch.setattr(registry, "grad_cam_classes", lambda: entry)
    listed = methods()["MineToo"]
    net = zoo.shake(zoo.Plain())
    expected = run(zoo, find_method(Mine), net, "4")
    for asked in (listed, "minetoo", "Mine-Too"):
        np.testing.assert_array_equal(run(zoo, find_method(asked), net, "4"), expected)
    with pytest.raises(MethodError):
        listed.weigh({"activation": torch.zeros(1, 2, 2)})


def test_without_grad_cam_nothing_of_it_is_listed() -> None:
    code = (
        "import sys; sys.modules['pytorch_grad_cam'] = None\n"
        "import camanim; from camanim.cam_methods import find_method\n"
        "assert 'GradCAM' in camanim.methods()\n"
        "try: find_method('TomorrowCAM')\n"
        "except camanim.MethodError: print('fine')\n"
        "try: find_method(dict)\n"
        "except camanim.MethodError: print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["fine", "fine"], done.stderr
