"""The docs: what comes from the code is up to date, links lead somewhere, the code of how-tos runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted(DOCS.rglob("*.md")),
]
HOWTOS = ("my-own-network.md", "my-own-cam.md")
FENCE = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```", re.M | re.S
)

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The script that fills the pages in."""
    spec = importlib.util.spec_from_file_location("make_methods", DOCS / "make_methods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@by_page
def test_what_is_made_from_the_code_is_up_to_date(make: ModuleType, page: Path) -> None:
    assert make.filled(read(page)) == read(page), "run: python docs/make_methods.py --tables"


def test_every_method_has_its_facts_in_the_page_of_its_family(make: ModuleType) -> None:
    for name, method in make.shipped().items():
        page = read(DOCS / "methods" / f"{make.page_of(method)}.md")
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"<!-- made: {name} -->\n" in section, name
    tables = ["methods/README.md", "guide.md"]
    assert ["<!-- made: " in read(DOCS / table) for table in tables] == [True, True]


@by_page
def test_links_lead_somewhere(make: ModuleType, page: Path) -> None:
    text = FENCE.sub("", read(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = page.parent / file if file else page
        assert found.exists(), target
        assert not anchor or anchor in make.anchors(read(found)).values(), target


@pytest.mark.parametrize("name", HOWTOS)
def test_the_code_of_a_howto_runs_as_it_stands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from camanim.cam_methods import registry

    # What a page enters into the registry leaves with it.
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {"__name__": name}
    text = read(DOCS / name)
    ran = 0
    for match in FENCE.finditer(text):
        if match["file"]:
            Path(match["file"]).write_text(match["code"], encoding="utf-8")
        elif match["kind"] == "python":
            # Empty lines before it, so that an error tells the line of the page.
            lines = "\n" * text[: match.start("code")].count("\n")
            exec(compile(lines + match["code"], str(DOCS / name), "exec"), scope)
            ran += 1
    assert ran > 3


@by_page
def test_other_code_is_python_at_least(page: Path) -> None:
    for match in FENCE.finditer(read(page)):
        if match["kind"] == "python":
            compile(match["code"], str(page), "exec")


@by_page
def test_commands_and_options_are_those_there_are(page: Path) -> None:
    import typer

    from camanim.cli import app

    commands = typer.main.get_command(app).commands
    text = read(page)
    blocks = [m["code"] for m in FENCE.finditer(text) if m["kind"] == "sh"]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(camanim [^`\n]+)`", FENCE.sub("", text))
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[:1] == ["camanim"]:
            command = commands[words[1]]
            known = {opt for param in command.params for opt in param.opts} | {"--help"}
            assert {word for word in words if word.startswith("-")} <= known, line
    if page.parent == DOCS:
        known = {o for c in commands.values() for param in c.params for o in param.opts}
        options = set(re.findall(r"`(--[a-z][a-z0-9-]+)[^`]*`", FENCE.sub("", text)))
        assert options <= known | {"--help"}, options - known
