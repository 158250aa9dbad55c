"""Methods from subclasses of grad-cam's ``BaseCAM``: equal maps, and an unchanged network."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_grad_cam as reference
import torch
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from camanim.cam_methods import find_method
from camanim.cam_methods.grad_cam_adapter import adapt
from camanim.cam_methods.grad_cam_listing import classes_in
from camanim.errors import MethodError, NoMap, TargetError

CLASS = 1
IMAGE = torch.rand(1, 3, 14, 18, generator=torch.Generator().manual_seed(0))
#: A target of the engine.
TARGET = SimpleNamespace(score=lambda output: output[:, CLASS], name="one")


def run(zoo, method, net, name: str, call: int = 0, options=None, **more):
    """Return the map of one layer, with ingredients as from the engine."""
    with torch.random.fork_rng():
        twin = getattr(zoo, type(net).__name__)(inplace=False)
    twin.load_state_dict(net.state_dict())
    activation, gradient = zoo.by_hand(twin.eval(), IMAGE, CLASS)[name, call]
    ingredients = {
        "activation": torch.from_numpy(activation),
        "image": IMAGE[0],
        "module": net.get_submodule(name),
        "net": net,
        "target": TARGET,
        "generator": torch.Generator().manual_seed(3),
    }
    if not method.needs_reevaluation:
        ingredients["gradient"] = torch.from_numpy(gradient)
    ingredients = {key: ingredients[key] for key in method.needs} | more
    with torch.no_grad():
        return method.weigh(ingredients, options).numpy()


def scaled_as_grad_cam(raw: np.ndarray) -> np.ndarray:
    """Return a raw map scaled as in grad-cam for a single layer, i.e. twice."""
    size = IMAGE.shape[:1:-1]
    return scale_cam_image(scale_cam_image(np.maximum(raw, 0)[None], tuple(size)))[0]


def reference_map(cls: type, net: nn.Module, name: str, **options) -> np.ndarray:
    with cls(net, [net.get_submodule(name)], **options) as cam:
        return cam(IMAGE.clone(), [ClassifierOutputTarget(CLASS)])[0]


EXPORTED = sorted(
    name
    for name, cls in vars(reference).items()
    if isinstance(cls, type) and issubclass(cls, BaseCAM)
)
#: Classes that run forward or backward passes.
NOT_SUPPORTED = ("FullGrad", "ShapleyCAM")


@pytest.mark.parametrize("name", sorted({*EXPORTED} - {*NOT_SUPPORTED, "RandomCAM"}))
@pytest.mark.parametrize("layer", ["2", "5"])
def test_the_map_of_an_adapted_class_equals_that_of_grad_cam(zoo, name: str, layer: str) -> None:
    """For ReLUs, so that AblationCAM does not divide by tiny scores."""
    net = zoo.shake(zoo.Plain(inplace=False))
    cls = getattr(reference, name)
    expected = reference_map(cls, net, layer)
    raw = run(zoo, adapt(cls), net, layer)
    assert raw.shape == zoo.by_hand(net, IMAGE, CLASS)[layer, 0][0].shape[1:]
    scaled = scaled_as_grad_cam(raw)
    if "Eigen" in name or "KPCA" in name:
        # The sign of a singular vector is arbitrary.
        other = scaled_as_grad_cam(-raw)
        scaled = min(scaled, other, key=lambda m: np.abs(m - expected).max())
    np.testing.assert_allclose(scaled, expected, atol=1e-3)
    assert np.ptp(expected) > 0.5


@pytest.mark.parametrize("name", NOT_SUPPORTED)
def test_classes_of_grad_cam_that_run_passes_have_a_counterpart(name) -> None:
    with pytest.raises(MethodError, match=name):
        adapt(getattr(reference, name))
    assert find_method(getattr(reference, name)) is find_method(name)


def test_random_numbers_are_seeded_and_global_states_restored(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    method = adapt(reference.RandomCAM)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    raw = run(zoo, method, net, "0")
    np.testing.assert_array_equal(raw, run(zoo, method, net, "0"))
    other = run(zoo, method, net, "0", generator=torch.Generator().manual_seed(4))
    assert np.abs(raw - other).max() > 0
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    ("name", "one_pass", "gradient"),
    [
        ("GradCAM", True, True),
        ("LayerCAM", True, True),
        ("EigenCAM", False, False),
        ("ScoreCAM", False, False),
    ],
)
def test_classes_without_gradients_run_layer_by_layer(
    name: str, one_pass: bool, gradient: bool
) -> None:
    method = adapt(getattr(reference, name))
    assert method.needs_reevaluation is not one_pass
    assert method.needs_gradient is gradient
    assert method.smoothable


# -- User-defined classes ----------------------------------------------------------------------------


class Mine(BaseCAM):
    """Weigh by the largest gradient.

    Further details.
    """

    def __init__(self, model, target_layers, reshape_transform=None, power: float = 1.0, top=None):
        super().__init__(model, target_layers, reshape_transform)
        self.power, self.top = power, top

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        return grads.max((2, 3)) ** self.power


class OverridesForward(Mine):
    """Overrides the forward pass: explains twice the score."""

    def forward(self, input_tensor, targets, eigen_smooth=False):
        return super().forward(input_tensor, [lambda output: 2 * targets[0](output)], eigen_smooth)


class OverridesLayers(Mine):
    """Overrides the loop over layers."""

    def compute_cam_per_layer(self, *args):
        return super().compute_cam_per_layer(*args)


class NeedsGraph(BaseCAM):
    """Requires tensors attached to the autograd graph."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform, detach=False)


class NeedsInputGradient(BaseCAM):
    """Requires the gradient of the input."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform, compute_input_gradient=True)


class RunsNetwork(BaseCAM):
    """Runs the network to compute the weights."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform, uses_gradients=False)

    def get_cam_weights(self, input_tensor, target_layer, targets, activations, grads):
        assert grads is None
        output = self.model(input_tensor)
        return activations.mean((2, 3)) * float(targets[0](output[0]))


class Careless(BaseCAM):
    """Modifies the network and its arguments, and optionally fails."""

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


def test_a_class_of_the_user_is_a_method(zoo) -> None:
    method = find_method(Mine)
    assert (method.name, method.summary) == ("Mine", "Weigh by the largest gradient.")
    assert set(method.options) == {"power", "top"}
    net = zoo.shake(zoo.Plain(inplace=False))
    activation, gradient = zoo.by_hand(net, IMAGE, CLASS)["4", 0]
    for power in (1.0, 2.0):
        expected = np.einsum("c,chw->hw", gradient.max((1, 2)) ** power, activation)
        raw = run(zoo, method, net, "4", options={"power": power})
        np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(MethodError, match=r"reshape_transform.*power, top"):
        method.checked({"reshape_transform": None})


def test_eigen_smoothing_of_a_class_equals_that_of_a_function(zoo) -> None:
    net = zoo.shake(zoo.Plain(inplace=False))
    method = find_method(Mine)
    activation, gradient = zoo.by_hand(net, IMAGE, CLASS)["4", 0]
    ingredients = {
        "activation": torch.from_numpy(activation), "gradient": torch.from_numpy(gradient),
        "image": IMAGE[0], "net": net, "module": net[4], "target": TARGET,
        "generator": torch.Generator(),
    }  # fmt: skip
    raw = method.weigh(ingredients, eigen_smooth=True).numpy()
    expected = find_method(lambda gradient: gradient.flatten(1).max(1).values).weigh(
        ingredients, eigen_smooth=True
    )
    sign = np.sign((raw * expected.numpy()).sum())
    np.testing.assert_allclose(raw, sign * expected.numpy(), atol=1e-5 * np.abs(raw).max())


@pytest.mark.parametrize("cls", [OverridesForward, OverridesLayers, NeedsGraph, NeedsInputGradient])
def test_classes_that_run_passes_raise(cls: type) -> None:
    with pytest.raises(MethodError, match=cls.__name__):
        find_method(cls)


class NeedsGraphAndHead(BaseCAM):
    """Can be constructed only for a network with a head, and requires the graph."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform, detach=False)
        model.get_submodule("8")


def test_classes_that_can_be_checked_only_with_the_network_raise_on_use(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    before = zoo.state_of(net)
    with pytest.raises(MethodError, match="NeedsGraphAndHead"):
        run(zoo, find_method(NeedsGraphAndHead), net, "4")
    assert zoo.state_of(net) == before


def test_a_class_can_run_the_network_within_get_cam_weights(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    method = find_method(RunsNetwork)
    assert method.needs_reevaluation
    raw = run(zoo, method, net, "4")
    activation, _ = zoo.by_hand(zoo.shake(zoo.Plain(inplace=False)), IMAGE, CLASS)["4", 0]
    with torch.no_grad():
        score = float(net(IMAGE)[0, CLASS])
    expected = score * np.einsum("c,chw->hw", activation.mean((1, 2)), activation)
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", [Mine, RunsNetwork, Careless, reference.AblationCAM])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_network_is_unchanged_afterwards(zoo, cls: type, frozen: bool) -> None:
    net = zoo.shake(zoo.Plain())
    net.train()
    net[1].eval()
    net[0].weight.grad = torch.full_like(net[0].weight, 3.0)
    net[3].register_forward_hook(lambda *_: None)
    if frozen:
        net.requires_grad_(False)
    before, children = zoo.state_of(net), list(net)
    run(zoo, adapt(cls), net, "4")
    assert zoo.state_of(net) == before
    assert [a is b for a, b in zip(net, children, strict=True)] == [True] * len(children)


def test_an_error_of_the_class_becomes_the_status_of_the_layer(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    before, children = zoo.state_of(net), list(net)
    with pytest.raises(NoMap, match=r"ValueError.*Careless.*no such thing$"):
        run(zoo, find_method(Careless), net, "4", options={"fail": True})
    assert zoo.state_of(net) == before
    assert all(a is b for a, b in zip(net, children, strict=True))


def test_arguments_of_a_class_are_copies(zoo) -> None:
    net = zoo.shake(zoo.Plain())
    activation, gradient = (torch.rand(8, 4, 4) for _ in range(2))
    before = activation.clone()
    ingredients = {
        "activation": activation, "gradient": gradient, "image": IMAGE[0], "net": net,
        "module": net[4], "target": TARGET, "generator": torch.Generator(),
    }  # fmt: skip
    find_method(Careless).weigh(ingredients)
    assert torch.equal(activation, before)


def test_an_error_of_the_target_is_not_converted(zoo) -> None:
    def fail(output):
        raise TargetError("message")

    target = SimpleNamespace(score=fail, name="failing")
    with pytest.raises(TargetError, match="message"):
        run(zoo, find_method(RunsNetwork), zoo.shake(zoo.Plain()), "4", target=target)


class NoMapAtAll(Mine):
    def get_cam_image(self, *given):
        return np.zeros((1, 7))


def test_a_result_of_another_shape_is_no_map(zoo) -> None:
    with pytest.raises(NoMap, match=r"NoMapAtAll.*\(7,\)"):
        run(zoo, find_method(NoMapAtAll), zoo.shake(zoo.Plain()), "4")


class NeedsMore(BaseCAM):
    def __init__(self, model, target_layers, colour):
        super().__init__(model, target_layers)


def test_a_class_with_further_required_parameters_raises() -> None:
    with pytest.raises(MethodError, match=r"'colour'.*NeedsMore"):
        find_method(NeedsMore)


class NeedsHead(Mine):
    """Can be constructed only for a network with a head."""

    def __init__(self, model, target_layers, reshape_transform=None):
        super().__init__(model, target_layers, reshape_transform)
        self.head = model.get_submodule("8")


def test_a_constructor_can_access_the_network(zoo) -> None:
    net = zoo.shake(zoo.Plain(inplace=False))
    result = run(zoo, find_method(NeedsHead), net, "4")
    np.testing.assert_allclose(result, run(zoo, find_method(Mine), net, "4"), rtol=1e-4, atol=1e-6)


def test_outputs_that_are_lists_are_passed_to_the_target_as_lists() -> None:
    from camanim.cam_methods.grad_cam_adapter import as_grad_cam_target

    boxes = {"scores": torch.tensor([0.2, 0.7])}
    target = SimpleNamespace(
        score=lambda outputs: torch.stack([o["scores"].max() for o in outputs])
    )
    assert float(as_grad_cam_target(target)(boxes)) == pytest.approx(0.7)


# -- Import and listing of classes -------------------------------------------------------------------


def test_a_class_is_imported_by_its_name() -> None:
    assert find_method("pytorch_grad_cam:GradCAM") is find_method("GradCAM")
    assert find_method("pytorch_grad_cam.layer_cam:LayerCAM") is find_method("LayerCAM")
    assert (
        find_method(type("GradCAM", (reference.GradCAM,), {"__module__": "mine"})).gives
        == "any map"
    )
    for wrong in (
        "pytorch_grad_cam:Nothing",
        "pytorch_grad_cam:AblationLayer",
        "pytorch_grad_cam:",
    ):
        with pytest.raises(MethodError):
            find_method(wrong)


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """Return the folder of a later version of grad-cam, with a method that camanim lacks."""
    package = tmp_path / "pytorch_grad_cam"
    package.mkdir()
    sources = {
        "__init__": """
            from pytorch_grad_cam.grad_cam import GradCAM
            from pytorch_grad_cam.new import LaterCAM as AliasCAM, LaterCAM, helper
            from pytorch_grad_cam.other import NoCAM
            import pytorch_grad_cam.base_cam
        """,
        "base_cam": "import torch\nclass BaseCAM: pass\n",
        "grad_cam": "from pytorch_grad_cam.base_cam import BaseCAM\nclass GradCAM(BaseCAM): pass\n",
        "middle": "",
        "new": '''
            from pytorch_grad_cam import base_cam
            class Middle(base_cam.BaseCAM): pass
            class LaterCAM(Middle):
                """A summary.

                More.
                """
            def helper(): pass
        ''',
        "other": "class NoCAM: pass\n",
    }
    for name, source in sources.items():
        (package / f"{name}.py").write_text(textwrap.dedent(source))
    return tmp_path


def test_exported_classes_are_listed_without_import(later: Path) -> None:
    listed = classes_in(later / "pytorch_grad_cam")
    assert set(listed) == {"GradCAM", "LaterCAM"}
    assert listed["LaterCAM"].source == "pytorch_grad_cam.new:LaterCAM"
    assert listed["LaterCAM"].summary == "A summary."
    installed = classes_in(Path(reference.__file__).parent)
    assert sorted(installed) == EXPORTED
    assert classes_in(later / "nothing") == {}


def test_a_later_method_is_listed_without_torch(later: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(later)!r})\n"
        "import camanim\n"
        "listed = camanim.methods()\n"
        "print(listed['LaterCAM'].summary, list(listed).count('GradCAM'))\n"
        "print([m for m in ('torch', 'pytorch_grad_cam') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["A summary. 1", "[]"]


def test_a_listed_class_runs_under_its_name(zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    from camanim.cam_methods import methods, registry
    from camanim.cam_methods.grad_cam_listing import Entry

    module = SimpleNamespace(__name__="later", MineToo=Mine)
    monkeypatch.setitem(sys.modules, "later", module)
    entry = {"MineToo": Entry("later:MineToo", "Weighs.")}
    monkeypatch.setattr(registry, "grad_cam_classes", lambda: entry)
    listed = methods()["MineToo"]
    net = zoo.shake(zoo.Plain())
    expected = run(zoo, find_method(Mine), net, "4")
    for name in (listed, "minetoo", "Mine-Too"):
        np.testing.assert_array_equal(run(zoo, find_method(name), net, "4"), expected)
    with pytest.raises(MethodError):
        listed.weigh({"activation": torch.zeros(1, 2, 2)})
