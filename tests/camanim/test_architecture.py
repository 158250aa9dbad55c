"""Architecture: imports of the engine, their time and direction."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SRC = Path(importlib.util.find_spec("camanim").origin).parents[1]
ENGINE = SRC / "camanim"
# In a checkout, sample_data is a link to a folder with scripts that are not part of the package.
FILES = [p for p in sorted(ENGINE.rglob("*.py")) if "sample_data" not in p.parts]
GUI = {"napari", "qtpy", "magicgui", "superqt", "PyQt5", "PyQt6", "PySide2", "PySide6"}
HEAVY = ("torch", "torchvision", "monai", "scipy", "matplotlib")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_name(path) for path in FILES]
by_file = pytest.mark.parametrize("path", FILES, ids=MODULES)


def imports(node: ast.AST) -> Iterator[str]:
    """Yield all names that are imported anywhere below a node."""
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield child.module or ""
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


def at_head(body: list[ast.stmt]) -> Iterator[str]:
    """Yield names imported at module level, except for the type checker."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        yield from imports(statement)


def python(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_modules_of_the_engine_are_collected() -> None:
    assert len(FILES) > 15
    assert {"camanim.execution.capture", "camanim.models.base", "camanim.road"} <= set(MODULES)


@by_file
def test_the_engine_imports_no_gui(path: Path) -> None:
    names = {name.partition(".")[0] for name in imports(tree(path))}
    assert not names & GUI
    # The commands `demo` and `view` import the plugin when they open a window.
    assert "napari_camanim" not in names or path == ENGINE / "cli" / "window.py"
    assert "napari_camanim" not in {name.partition(".")[0] for name in at_head(tree(path).body)}


def test_importing_all_modules_loads_no_gui() -> None:
    loaded = python(
        "import importlib, sys\n"
        f"for name in {MODULES!r}: importlib.import_module(name)\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        f"print(sorted(loaded & {GUI | {'napari_camanim'}!r}))"
    )
    assert loaded == "[]"


@pytest.mark.parametrize(
    "code",
    [
        "import camanim",
        "import camanim; camanim.methods()",
        "import camanim; camanim.list_models()",
        "import camanim; camanim.Animation, camanim.LayerInfo, camanim.Geometry, dir(camanim)",
        "from camanim import Cancelled, ImageError, methods",
        "import camanim.cli",
    ],
)
def test_listings_import_no_heavy_module(code: str) -> None:
    assert python(f"{code}\nimport sys\nprint([m for m in {HEAVY} if m in sys.modules])") == "[]"


@pytest.mark.parametrize(
    "words",
    ["--help", "run --help", "--version", "models", "methods", "methods GradCAM", "findings"],
)
def test_commands_that_list_import_no_heavy_module(words: str) -> None:
    out = python(
        "import sys\n"
        "from camanim.cli import main\n"
        f"try: main({words.split()!r})\n"
        f"except SystemExit as end: print(end.code, [m for m in {HEAVY} if m in sys.modules])"
    )
    assert out.splitlines()[-1] == "0 []"


def test_all_public_names_exist() -> None:
    import camanim

    for name in camanim.__all__:
        assert getattr(camanim, name) is not None
    assert dir(camanim) == sorted(camanim.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = camanim.nothing


def at_head_and_functions(module: ast.Module) -> Iterator[str]:
    """Yield all imports except those for the type checker."""
    for statement in module.body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        yield from imports(statement)


def dependencies(name: str, path: Path) -> set[str]:
    """Return modules of the project that a module imports, also within functions."""
    needed = set()
    for imported in at_head_and_functions(tree(path)):
        # ``from package import name`` needs the module `name`, or the package if that is not a module.
        parent = imported.rpartition(".")[0]
        if imported in ALL:
            needed.add(imported)
        elif parent in ALL:
            needed.add(parent)
    return needed - {name}


PLUGIN = {module_name(p): p for p in sorted((SRC / "napari_camanim").rglob("*.py"))}
ALL = dict(zip(MODULES, FILES, strict=True)) | PLUGIN


def test_imports_form_no_cycle() -> None:
    graph = {name: dependencies(name, path) for name, path in ALL.items()}
    # ``from package import submodule`` also names the package.
    for name, needed in graph.items():
        graph[name] = {n for n in needed if not any(m.startswith(f"{n}.") for m in needed)}
    # Raises a CycleError that names the cycle.
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_the_package_itself_imports_only_the_errors() -> None:
    names = {n for n in at_head(tree(ENGINE / "__init__.py").body) if n.startswith("camanim.")}
    assert {n.split(".")[1] for n in names} == {"_version", "errors"}


def discards_error(handler: ast.ExceptHandler) -> bool:
    """Return whether an except neither raises, returns, calls nor assigns."""
    effects = ast.Raise | ast.Return | ast.Call | ast.Assign | ast.AugAssign | ast.Yield
    return not any(isinstance(n, effects) for s in handler.body for n in ast.walk(s))


@by_file
def test_no_error_is_caught_broadly_or_discarded(path: Path) -> None:
    for handler in ast.walk(tree(path)):
        if isinstance(handler, ast.ExceptHandler):
            where = f"{path.name}:{handler.lineno}"
            assert handler.type is not None, f"{where}: a bare except"
            reraised = any(isinstance(n, ast.Raise) for n in ast.walk(handler))
            names = {n.id for n in ast.walk(handler.type) if isinstance(n, ast.Name)}
            assert reraised or not names & {"Exception", "BaseException"}, f"{where}: too broad"
            assert not discards_error(handler), f"{where}: an error is discarded"
        if isinstance(handler, ast.Call) and ast.unparse(handler.func).endswith("suppress"):
            assert "Exception" not in ast.unparse(handler).split("(", 1)[1], path.name


def test_every_error_is_of_one_family_and_none_a_runtime_error() -> None:
    """Napari's workers discard a RuntimeError, and the run would never end."""
    from camanim import errors

    kinds = [v for v in vars(errors).values() if isinstance(v, type)]
    kinds = [kind for kind in kinds if kind not in (errors.CamError, errors.NoMap)]
    assert len(kinds) > 8
    for kind in kinds:
        assert issubclass(kind, errors.CamError)
        assert not issubclass(kind, RuntimeError)
        assert kind.__doc__
