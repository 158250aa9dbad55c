"""Networks from Python files of the user."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from camanim.errors import ModelError
from camanim.models.base import Model
from camanim.models.building import Untrusted, first_line, seeded
from camanim.models.files import load_into, read_weights


def load(path: Path, function: str, weights: str | Path | None, trust: bool) -> Model:
    """Return the model that a function of a Python file returns; it is called without arguments."""
    from torch import nn

    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    if not trust:
        raise Untrusted(path, "is Python code that would be run")
    module = _import(path)
    build = getattr(module, function, None)
    if not callable(build):
        raise ModelError(f"{path} has no function {function}: write {path.name}:NAME.")
    try:
        with seeded():
            returned = build()
    # The file may call sys.exit.
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{path.name}:{function} fails with {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(returned, Model | nn.Module):
        raise ModelError(
            f"{path.name}:{function} must return a torch.nn.Module or a camanim.Model, "
            f"not {type(returned).__name__}."
        )
    model = returned if isinstance(returned, Model) else Model(returned)
    if weights is not None and weights != "DEFAULT":
        load_into(model.net, read_weights(weights), weights, path.name)
    return model


def _import(path: Path) -> ModuleType:
    """Import a file, which may import modules of its folder, and run it again if it was imported."""
    name = f"camanim_script_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle need their module here.
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ModelError(
            f"{path} cannot be imported: {type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    return module
