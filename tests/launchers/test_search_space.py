"""Hydra's override grammar as a search space."""

from __future__ import annotations

import pytest

from sdpo_exp.errors import UserError
from sdpo_exp.launchers.search_space import Axis, read_space


@pytest.mark.parametrize(
    ("line", "axis"),
    [
        ("a=interval(0.1,1)", Axis("a", "float", 0.1, 1.0)),
        ("a=tag(log,interval(1e-5,1e-3))", Axis("a", "float", 1e-5, 1e-3, log=True)),
        ("a=int(interval(1,9))", Axis("a", "int", 1, 9)),
        ("a=range(1,10,2)", Axis("a", "int", 1, 9, 2)),
        ("a=range(1,9,2)", Axis("a", "int", 1, 7, 2)),  # Hydra leaves the end out
        ("a=range(9,1,-2)", Axis("a", "int", 3, 9, 2)),
        ("a=range(0,1,0.25)", Axis("a", "float", 0, 0.75, 0.25)),
        ("a=x,y", Axis("a", "choice", choices=("x", "y"))),
        ("a=choice(true,1.5,[1,2])", Axis("a", "choice", choices=("True", "1.5", "[1,2]"))),
        ("+a.b=interval(1,2)", Axis("+a.b", "float", 1.0, 2.0)),
        ("a=shuffle(range(1,4))", None),
    ],
)
def test_each_kind_of_sweep_is_an_axis(line: str, axis: Axis | None) -> None:
    space = read_space([line, "b=1"], None)
    assert space.fixed == ("b=1",)
    if axis is None:
        assert sorted(space.axes[0].choices) == ["1", "2", "3"]
    else:
        assert space.axes == (axis,)


def test_the_command_line_comes_before_the_configured_ranges() -> None:
    space = read_space(["a=3"], {"a": "interval(0,1)", "b": "interval(0,2)", "c": "4"})
    assert [axis.key for axis in space.axes] == ["b"]
    assert space.fixed == ("a=3", "c=4")


def test_corners_name_each_end_once_and_each_choice() -> None:
    corners = read_space(["x=1", "a=interval(0,2)", "b=u,v,w"], None).corners()
    assert corners == [
        ["x=1", "a=0", "b=u"],
        ["x=1", "a=2", "b=u"],
        ["x=1", "a=0", "b=v"],
        ["x=1", "a=0", "b=w"],
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a=1", "nothing to search"),
        ("a=interval(2,1)", "nothing lies between"),
        ("a=tag(log,interval(0,1))", "must begin above 0"),
        ("a=tag(log,range(1,9))", "use interval"),
        ("a=interval(", "a=interval("),
        ("a=glob(*)", "use interval, range or choice"),
    ],
)
def test_a_space_that_cannot_be_searched_is_told(line: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        read_space([line], None)
    assert words in str(error.value)


def test_floats_are_written_in_six_digits() -> None:
    axis = Axis("a", "float", 0, 1)
    assert axis.override(0.5939321535345923) == "a=0.593932"
    assert axis.override(1.1268145953419502e-05) == "a=1.12681e-05"
    assert Axis("a", "int", 0, 9).override(7) == "a=7"


def test_an_optuna_trial_draws_within_every_axis() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    lines = ["a=tag(log,interval(1e-5,1e-3))", "b=range(1,10,2)", "c=x,y", "d=range(0,1,0.25)"]
    space = read_space(lines, None)
    for _ in range(20):
        trial = study.ask()
        values = {axis.key: axis.suggest(trial) for axis in space.axes}
        assert 1e-5 <= float(values["a"]) <= 1e-3
        assert values["b"] in (1, 3, 5, 7, 9)
        assert values["c"] in ("x", "y")
        assert values["d"] in (0, 0.25, 0.5, 0.75)
