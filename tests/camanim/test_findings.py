"""Findings: a new kind appears wherever results are shown; records round-trip."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

import camanim
from camanim import samples
from camanim.errors import ScoreError
from camanim.findings import FindingRequest, find_kind, finding_kinds
from camanim.render import plot


@pytest.fixture(scope="module")
def new() -> ModuleType:
    """Register the finding of ``new_finding.py`` for the tests of this file."""
    path = Path(__file__).with_name("new_finding.py")
    spec = importlib.util.spec_from_file_location("new_finding", path)
    module = sys.modules["new_finding"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register()
    yield module
    module.unregister()
    del sys.modules["new_finding"]


@pytest.fixture(scope="module")
def animation() -> camanim.Animation:
    model = camanim.load_model("demo/ultrasound")
    return camanim.animate(model, samples.image("malignant_1"), layers="blocks")


def test_a_new_finding_is_in_table_caption_and_plot(new, animation, tmp_path) -> None:
    sparsity = animation.find("sparsity", above=0.25)
    assert animation.findings["sparsity"] is sparsity
    rows = [row for row in animation.table() if row["status"] == "ok"]
    assert [row["covered"] for row in rows] == sparsity.covered.tolist()
    assert f"covered {sparsity.covered[2]:.3g}" in animation.caption(2)
    [line] = [ln for ln in plot(animation).axes[0].get_lines() if ln.get_label() == "covered"]
    np.testing.assert_array_equal(line.get_ydata(), sparsity.covered)
    assert animation.write_plot(tmp_path / "plot.png").stat().st_size > 1000


def test_a_new_finding_has_a_curve_in_frames(new, animation) -> None:
    animation.find("sparsity")
    frame = camanim.render.FrameRenderer(animation).frame(2)
    animation.findings.pop("sparsity")
    assert camanim.render.FrameRenderer(animation).frame(2).shape[0] < frame.shape[0]


def test_a_new_finding_is_on_the_command_line(new, tmp_path, monkeypatch) -> None:
    from camanim.cli import app

    monkeypatch.chdir(tmp_path)
    sample = samples.SAMPLE_DATA / "images" / "malignant_1.png"
    arguments = ["run", str(sample), "--layers", "blocks", "--find", "sparsity:above=0.25"]
    done = CliRunner().invoke(app, [*arguments, "--plot", "plot.pdf"])
    assert done.exit_code == 0, done.output
    assert "highest" in " ".join(done.output.split())
    assert "covered" in done.output.partition("raw max")[2].partition("\n")[0]
    assert (tmp_path / "plot.pdf").read_bytes()[:4] == b"%PDF"
    listed = CliRunner().invoke(app, ["findings"]).output
    assert "above=0.5  Share of the maximum." in listed
    wrong = CliRunner().invoke(app, [*arguments[:-1], "sparsity:above=2"])
    assert isinstance(wrong.exception, ScoreError)


def test_settings_of_a_finding_are_checked_by_its_declarations(new, animation) -> None:
    setting = find_kind("sparsity").settings["above"]
    assert (setting.range.low, setting.range.high, setting.default) == (0, 1, 0.5)
    request = FindingRequest("sparsity", {"above": 0.1})
    assert request.arguments({"mask": None, "progress": print}) == {"progress": print, "above": 0.1}
    with pytest.raises(ScoreError, match="nothing"):
        animation.find("nothing")


def test_records_of_all_findings_round_trip_through_json(animation) -> None:
    few_steps = {"measure": {"steps": 4}, "randomisation": {"steps": 2}, "road": {"repeats": 2}}
    for name, kind in finding_kinds().items():
        mask = {"mask": samples.mask("malignant_1")} if kind.needs_mask else {}
        finding = animation.find(name, **mask, **few_steps.get(name, {}))
        assert set(finding.parameters) == set(kind.settings)
    animation.measure("drop", "mean")
    assert animation.findings["road"].record()["parameters"]["repeats"] == 2
    order = [finding.order for finding in animation.findings.values()]
    assert order == sorted(order)
    for key, finding in animation.findings.items():
        record = json.loads(json.dumps(finding.record()))
        restored = find_kind(record["kind"]).finding.from_record(record, animation.layers)
        assert (restored.key, type(restored)) == (key, type(finding))
        for name, values in finding.columns().items():
            for a, b in zip(values, restored.columns()[name], strict=True):
                assert a == b or (a != a and b != b)
        assert restored.summary() == finding.summary()
        assert [restored.caption(i) for i in range(3)] == [finding.caption(i) for i in range(3)]
        with pytest.raises(ScoreError, match=record["kind"]):
            type(finding).from_record({"kind": record["kind"]}, animation.layers)
    animation.findings.clear()
