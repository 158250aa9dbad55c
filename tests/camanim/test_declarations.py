"""Declarations: every value of every setting is checked; options come from the declaration."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import camanim
from camanim import samples
from camanim.cli import app, options
from camanim.declarations import Check, Checked, Positive, Range, Seed, checked, settings_of
from camanim.errors import CamError, ModelError, RenderError, ScoreError, SettingError
from camanim.models.overrides import ModelOverrides
from camanim.render.movie import write_movie
from camanim.settings import Settings, checked_settings


@dataclass(frozen=True)
class Example(Checked, error=ScoreError):
    """Settings of every type.

    Attributes
    ----------
    count : int
        Number of things. More about it.
    share : float, optional
        Share of things.
    kind : {"a", "b"}
        Kind of things.
    several : sequence of float
        Several shares.
    pair : (int, int)
        Two numbers.
    special : object
        Something special.
    """

    count: Positive = 3
    share: Annotated[float, Range(0, 1)] | None = None
    kind: Literal["a", "b"] = "a"
    several: Annotated[tuple[float, ...], Range(0, 1)] = (0.5,)
    pair: tuple[int, int] = (1, 2)
    special: Annotated[Any, Check(callable, "a function")] = print
    flag: bool = False
    name: str = ""


def test_a_declaration_has_type_range_choices_default_and_sentence() -> None:
    declared = settings_of(Example)
    assert list(declared) == [
        "count", "share", "kind", "several", "pair", "special", "flag", "name",
    ]  # fmt: skip
    count, share, kind = (declared[name] for name in ("count", "share", "kind"))
    assert (count.kind, count.range, count.default, count.optional) == (int, Range(1), 3, False)
    assert count.help == "Number of things."
    assert (share.kind, share.range, share.optional) == (float, Range(0, 1), True)
    assert (kind.choices, declared["several"].count, declared["pair"].count) == (("a", "b"), 0, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0}, {"count": 1.5}, {"count": "3"}, {"count": None}, {"count": True},
        {"share": 1.1}, {"share": float("nan")}, {"share": "x"}, {"kind": "c"}, {"kind": 1},
        {"kind": ["a"]}, {"several": ()}, {"several": 0.5}, {"several": (2,)}, {"several": "0.5"},
        {"several": ("x",)}, {"pair": (1,)}, {"pair": (1, 2, 3)}, {"pair": (1, "x")}, {"pair": None},
        {"special": 3}, {"flag": 1}, {"flag": "yes"}, {"name": 3},
    ],
)  # fmt: skip
def test_invalid_values_raise_the_given_error(wrong) -> None:
    [name] = wrong
    with pytest.raises(ScoreError, match=f"^{name} ") as caught:
        Example(**wrong)
    assert str(caught.value).endswith(".")


def test_values_are_converted_to_the_declared_type() -> None:
    example = Example(count=np.int64(2), share=1, several=np.array([0.25, 1]), pair=[3, 4])
    assert (example.count, type(example.count), type(example.share)) == (2, int, float)
    assert (example.several, example.pair) == ((0.25, 1.0), (3, 4))


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())
    )
)
def test_any_value_is_accepted_or_raises_the_given_error(value) -> None:
    for name in settings_of(Example):
        with contextlib.suppress(ScoreError):
            Example(**{name: value})


def test_functions_are_checked_at_each_call() -> None:
    @checked(RenderError)
    def double(x: float, *, times: Annotated[int, Range(1, 3)] = 2) -> float:
        return x * times

    assert double(1.5, times=3) == 4.5
    with pytest.raises(RenderError, match="times"):
        double(1, times=4)


# -- The settings of a run -------------------------------------------------------------------------

HUGE = 10**23


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": "x"}, {"seed": 1.5}, {"seed": None}, {"seed": -1}, {"seed": HUGE},
        {"options": None}, {"options": 3}, {"options": {3: 4}}, {"batch_size": "x"},
        {"batch_size": 0}, {"batch_size": True}, {"layouts": "x"}, {"layouts": 3},
        {"layouts": {3: "NCHW"}}, {"layouts": {"a": 3}}, {"layers": 3}, {"layers": None},
        {"window": 3}, {"window": (1,)}, {"window": (2, 1)}, {"window": (0, float("nan"))},
        {"window": "x"}, {"fit": "x"}, {"fit": None}, {"device": 3}, {"device": "meta"},
        {"device": torch.device("meta")}, {"precision": "x"}, {"progress": 3}, {"slices": "yes"},
        {"slices": 1}, {"eigen_smooth": None}, {"augment": 0}, {"counterfactual": "no"},
        {"show_1d": 2}, {"sed": 3},
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_run_is_a_setting_error(wrong) -> None:
    with pytest.raises(SettingError, match=r"\.$|\?$"):
        checked_settings(wrong)
    with pytest.raises(SettingError):
        camanim.animate(torch.nn.Conv2d(1, 2, 3), np.zeros((8, 8), np.uint8), **wrong)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(SettingError, match="batch_size"):
        checked_settings({"batchsize": 3})
    with pytest.raises(TypeError):
        checked_settings({"nothing": 3})


def test_settings_accept_equivalent_types() -> None:
    checked = checked_settings(
        {
            "device": torch.device("cpu"),
            "seed": np.int32(4),
            "layers": iter(["a", "b"]),
            "window": [0, np.float32(2)],
            "layouts": {"blocks.*": torch.nn.Identity()},
        }
    )
    assert (checked.seed, checked.layers) == (4, ["a", "b"])
    assert "progress" not in checked.record()


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": float("nan")}, {"size": float("inf")}, {"size": 10_000_000}, {"size": "x"},
        {"size": 0}, {"size": (224, "x")}, {"size": (1, 2, 3, 4)}, {"mean": "x"},
        {"mean": (0.5, None)}, {"std": float("inf")}, {"channels": "3"}, {"channels": 0},
        {"outputs": 3}, {"outputs": "x"}, {"classes": 5}, {"device": "nowhere"},
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_network_is_a_model_error(wrong) -> None:
    with pytest.raises(ModelError):
        camanim.load_model("demo/ultrasound", **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"fps": "x"}, {"fps": 0}, {"fps": float("nan")}, {"opacity": "x"}, {"opacity": 2},
        {"size": 1.5}, {"size": 10**6}, {"quality": 3}, {"normalization": None}, {"signed": "x"},
        {"colormap": 3}, {"z": "x"},
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_movie_is_a_render_error(wrong, tmp_path) -> None:
    animation = camanim.animate(
        camanim.load_model("demo/ultrasound"), samples.image("benign_1"), layers="features.conv0"
    )
    with pytest.raises(RenderError):
        animation.write_movie(tmp_path / "movie.mp4", **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": "x"}, {"repeats": 0}, {"noise": "x"}, {"noise": -1}, {"draws": 1}, {"draws": 2.5},
        {"percentiles": ()}, {"percentiles": (0, 50)}, {"percentiles": "x"}, {"batch_size": "x"},
        {"precision": "x"}, {"memory_format": 3}, {"baseline": "yes"},
    ],
)  # fmt: skip
def test_a_wrong_setting_of_a_score_is_a_score_error(wrong) -> None:
    with pytest.raises(ScoreError):
        camanim.Animation.score(object(), **wrong)


# -- The command line ------------------------------------------------------------------------------

GROUPS = {
    "network": (options.NETWORK_OPTIONS, ModelOverrides),
    "run": (options.RUN_OPTIONS, Settings),
    "movie": (options.MOVIE_OPTIONS, write_movie),
}


@pytest.mark.parametrize("name", GROUPS)
def test_every_declared_setting_is_an_option_with_its_default_and_help(name) -> None:
    group, declared = GROUPS[name]
    command = typer.main.get_command(app).commands["run"]
    parameters = {parameter.name: parameter for parameter in command.params}
    excluded = {"progress", "resize", "interpolation", "dims", "name", "domain"}
    by_name = {option.setting.name: option for option in group.options}
    assert set(by_name) == set(settings_of(declared)) - excluded
    for option in by_name.values():
        parameter = parameters[option.keyword]
        # Two declarations of a seed share one help.
        shell_help = option.shell.help if option.shell else options.HELP.get(option.keyword, "")
        assert parameter.help == (shell_help or option.setting.help.replace("``", ""))
        assert option.value(parameter.default) == option.setting.default or option.shell


def test_a_new_setting_becomes_an_option() -> None:
    group = options.Group(Example, "Panel")
    [share] = [o for o in group.options if o.keyword == "share"]
    parameter = share.parameter()
    assert parameter.default is None
    assert parameter.annotation.__metadata__[0].max == 1
    assert group.values({o.keyword: o.setting.default for o in group.options}) == group.defaults


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "nan"], ["--size", "inf"], ["--size", "10000000"], ["--size", "x"],
        ["--device", "meta"], ["--seed", "99999999999999999999999", "--checks"], ["--seed", "-1"],
        ["--fps", "nan", "--movie", "movie.mp4"], ["--batch-size", "0"], ["--mean", "x"],
        ["--window", "2", "1"], ["--precision", "x"], ["--opacity", "2", "--movie", "movie.mp4"],
        ["--find", "nothing"], ["--find", "road:repeats=x"], ["--find", "road:nothing=3"],
        ["--measure", "nothing"],
    ],
)  # fmt: skip
def test_invalid_values_on_the_command_line_end_without_a_traceback(
    arguments, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = samples.SAMPLE_DATA / "images" / "benign_1.png"
    done = CliRunner().invoke(app, ["run", str(sample), "--layers", "features.conv0", *arguments])
    assert done.exit_code in (1, 2), done.output
    assert done.exit_code == 2 or isinstance(done.exception, CamError), done.exception
    assert list(tmp_path.iterdir()) == []


def test_torch_and_numpy_accept_the_largest_seed() -> None:
    @checked(SettingError)
    def draw(seed: Seed = 0) -> tuple[Any, Any]:
        return torch.Generator("cpu").manual_seed(seed), np.random.default_rng(seed)

    assert draw(2**63 - 1)
