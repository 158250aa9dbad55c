"""A zoo of tiny networks, each with one habit that trips up tools of this kind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

SHARED = Path(__file__).parents[3] / "shared"
CLASSES = 3


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


class Plain(nn.Sequential):
    """Convolution, batch normalisation, ReLU; twice, and a linear layer."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=inplace),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(inplace=inplace),
            *head(8),
        )


class Residual(nn.Module):
    """ResNet's block: a ReLU in place after batch normalisation, one module for two calls, ``+=``."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        self.inplace = inplace
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=inplace)
        self.head = nn.Sequential(*head(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = self.relu(self.bn1(self.stem(x)))
        out = self.bn2(self.conv(identity))
        if self.inplace:
            out += identity
        else:
            out = out + identity
        return self.head(self.relu(out))


class Reused(nn.Module):
    """One ReLU module that is called three times."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, stride=2)
        self.c = nn.Conv2d(5, 6, 3)
        self.relu = nn.ReLU(inplace=inplace)
        self.head = nn.Sequential(*head(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in (self.a, self.b, self.c):
            x = self.relu(conv(x))
        return self.head(x)


class Branches(nn.Module):
    """Two branches that meet, and one whose output nobody uses."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 3, padding=1)
        self.unused = nn.Conv2d(4, 2, 1)
        self.relu = nn.ReLU(inplace=inplace)
        self.head = nn.Sequential(*head(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        self.unused(x)
        return self.head(self.relu(torch.cat([self.left(x), self.right(x)], 1)))


class PassThrough(nn.Module):
    """Modules that return their input, before one that overwrites it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Identity(), nn.Dropout(0.5))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Sequential(*head(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.features(x)))


class Pair(nn.Module):
    """Return two tensors."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x * 2


class Shapes(nn.Module):
    """Outputs of every kind: a pair, channels last, tokens, a vector."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.pair = Pair()
        self.last = nn.LayerNorm(6)
        self.tokens = nn.Linear(6, 5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.pair(self.stem(x))
        x = self.last(x.permute(0, 2, 3, 1))
        x = self.tokens(x.flatten(1, 2))
        return self.head(x.relu().mean(1))


class Words(nn.Module):
    """Return no tensor."""

    def forward(self, x: torch.Tensor) -> str:
        return "nothing to see"


class TextOutput(nn.Module):
    """Has a module whose output is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.words = nn.Conv2d(3, 4, 3), Words()
        self.head = nn.Sequential(*head(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        self.words(x)
        return self.head(x)


class WithOperation(nn.Module):
    """A convolution whose output is changed by an operation outside of any module."""

    def __init__(self, operation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.operation = operation
        self.head = nn.Sequential(*head(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.operation(self.conv(x)))


class Raises(nn.Module):
    """Raise a given error after the first layer."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.first(x)
        raise self.error


class CustomOutput(nn.Module):
    """Return the result of an operation on the feature map."""

    def __init__(self, operation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CLASSES, 3)
        self.operation = operation

    def forward(self, x: torch.Tensor):
        return self.operation(self.conv(x))


class Peak(nn.Module):
    """Return the value of the brightest cell of a grid; its maps mark that cell alone."""

    def __init__(self, cell: int) -> None:
        super().__init__()
        self.cells = nn.AvgPool2d(cell)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        peak = self.cells(x).sum(1).flatten(1).amax(1, keepdim=True)
        return torch.cat([peak, 0 * peak], 1)


def shake(net: nn.Module, seed: int = 0) -> nn.Module:
    """Set all weights and statistics to random values, so that no two paths are alike."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
        elif name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.2)
    return net.eval()


def by_hand(
    net: nn.Module, tensor: torch.Tensor, target: int
) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray | None]]:
    """Activation and gradient (C, h, w) of every call with a (1, C, h, w) output.

    By ``torch.autograd.grad`` of the logit towards all outputs at once: right only for a network
    that writes nothing in place.
    """
    outputs: dict[tuple[str, int], torch.Tensor] = {}

    def keep(name):
        def hook(module, inputs, output):
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                outputs[name, sum(n == name for n, _ in outputs)] = output

        return hook

    handles = [m.register_forward_hook(keep(name)) for name, m in net.named_modules()]
    logits = net(tensor.detach().clone().requires_grad_())
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(logits[0, target], list(outputs.values()), allow_unused=True)
    return {
        key: (a.detach()[0].numpy().copy(), None if g is None else g[0].numpy())
        for (key, a), g in zip(outputs.items(), gradients, strict=True)
    }


def hirescam_by_hand(activation: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    return np.einsum("chw,chw->hw", gradient, activation)


def state_of(net: nn.Module) -> dict[str, object]:
    """Return the state of a network that a run must restore."""
    state: dict[str, object] = {
        f"weights {name}": value.detach().contiguous().view(torch.uint8).numpy().tobytes()
        if value.ndim
        else value.item()
        for name, value in net.state_dict().items()
    }
    for name, module in net.named_modules():
        hooks = [k for k in vars(module) if "hooks" in k and not k.startswith("_state_dict")]
        state |= {f"{name} {k}": len(vars(module)[k] or ()) for k in hooks}
        state[f"{name} training"] = module.training
        state[f"{name} inplace"] = getattr(module, "inplace", None)
        state[f"{name} attributes"] = sorted(vars(module))
    for name, parameter in net.named_parameters():
        state[f"{name} requires_grad"] = parameter.requires_grad
        state[f"{name} grad"] = None if parameter.grad is None else parameter.grad.tolist()
        state[f"{name} hooks"] = len(parameter._backward_hooks or ())
    return state


@pytest.fixture(scope="session")
def zoo() -> SimpleNamespace:
    """Return small networks, and functions to examine them."""
    return SimpleNamespace(
        **{
            kind.__name__: kind
            for kind in (
                Plain, Residual, Reused, Branches, PassThrough, Shapes, TextOutput,
                WithOperation, Raises,
                CustomOutput, Peak,
            )
        },
        head=head,
        shake=shake,
        by_hand=by_hand,
        hirescam_by_hand=hirescam_by_hand,
        state_of=state_of,
    )  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny tensors are faster on one thread, and many times so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def image() -> np.ndarray:
    """A small colour image, floating."""
    return np.random.default_rng(0).random((20, 24, 3)).astype(np.float32)


@pytest.fixture
def grey(image: np.ndarray) -> np.ndarray:
    """A small grey image, 8 bits."""
    return (image[:, :, 0] * 255).astype(np.uint8)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository with photographs and weights; where there is none, skip."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` beside the repository")
    return SHARED


@pytest.fixture
def torch_home(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's cache with the published weights of MobileNetV2."""
    home = shared / "torch"
    if not home.is_dir():
        pytest.skip("no weights in `shared`")
    monkeypatch.setenv("TORCH_HOME", str(home))
    return home


@pytest.fixture
def cli(capsys):
    """Return a function that runs a command in this process: code, stdout, stderr."""

    def run(*arguments):
        from camanim.cli import main

        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out = capsys.readouterr()
        return end.value.code, out.out, out.err

    return run
