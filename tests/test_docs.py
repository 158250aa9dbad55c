"""The docs: generated parts are up to date, links lead somewhere, snippets and commands run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted(DOCS.rglob("*.md")),
]
FENCE = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```", re.M | re.S
)
CODE = re.compile(r"^```(python|sh)\n", re.M)

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands_of(code: str) -> Iterator[list[str]]:
    """Split a block of a shell into the words of its commands."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


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
        linked = page.parent / file if file else page
        assert linked.exists(), target
        assert not anchor or anchor in make.anchors(read(linked)).values(), target


#: Pages whose code runs for minutes.
LONG = ("guide.md", "trust.md")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=[pytest.mark.slow] if p.name in LONG else [])
        for p in PAGES
        if CODE.search(read(p))
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_the_code_of_a_page_runs_in_its_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from camanim import catalogue, findings
    from camanim.cam_methods import registry

    assert catalogue.finding_kinds()
    # What a page enters into the registries leaves with it.
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(findings, "_KINDS", dict(findings._KINDS))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    scope: dict[str, object] = {"__name__": page.stem}
    text = read(page)
    for match in FENCE.finditer(text):
        if match["file"]:
            Path(match["file"]).write_text(match["code"], encoding="utf-8")
            sys.modules.pop(Path(match["file"]).stem, None)
        elif match["kind"] == "python":
            # Empty lines before it, so that an error names the line of the page.
            lines = "\n" * text[: match.start("code")].count("\n")
            exec(compile(lines + match["code"], str(page), "exec"), scope)
        elif match["kind"] == "sh":
            for words in commands_of(match["code"]):
                run_command(words)


def run_command(words: list[str]) -> None:
    """Run a command of a page, unless it installs, downloads or opens a window."""
    from camanim.cli import app

    if words[0] == "python" and words[1] == "-c":
        subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
    elif words[0] == "camanim" and not any(re.match(r"(torchvision|timm)/", w) for w in words):
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, (words, done.output, done.exception)


@by_page
def test_commands_and_options_are_those_there_are(page: Path) -> None:
    import typer

    from camanim.cli import app

    group = typer.main.get_command(app)
    commands = group.commands
    text = read(page)
    blocks = [m["code"] for m in FENCE.finditer(text) if m["kind"] == "sh"]
    blocks += re.findall(r"`(camanim [^`\n]+)`", FENCE.sub("", text))
    for words in (words for block in blocks for words in commands_of(block)):
        if words[:1] == ["camanim"]:
            command = group if words[1].startswith("-") else commands[words[1]]
            if hasattr(command, "commands") and words[2:3] not in ([], ["NAME"]):
                command = command.commands[words[2]]
            known = {opt for param in command.params for opt in param.opts} | {"--help"}
            assert {word for word in words if word.startswith("-")} <= known, words
    if page.parent == DOCS:
        commands = commands | commands["figure"].commands
        known = {o for c in commands.values() for param in c.params for o in param.opts}
        options = set(re.findall(r"`(--[a-z][a-z0-9-]+)[^`]*`", FENCE.sub("", text)))
        assert options <= known | {"--help"}, options - known
