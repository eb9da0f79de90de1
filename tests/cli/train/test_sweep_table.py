"""What a sweep says: which cell of how many, how long still, and what came of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sdpo_exp.cli.train.sweep import Sweep
from sdpo_exp.cli.train.sweep_table import CellEnd, sweep_table
from sdpo_exp.config.composition import compose_cell
from sdpo_exp.reports.run_records import read_run
from tests.reports.run_folders import Made, make_run


def cell(folder: Path, seed: int) -> Any:
    overrides = [f"seed={seed}", f"hydra.sweep.dir={folder}"]
    config = compose_cell("train", overrides).config
    assert config is not None
    OmegaConf.update(config, "hydra.overrides.task", [f"seed={seed}"])
    return config


def test_a_cell_says_its_number_and_what_is_particular_to_it(tmp_path: Path) -> None:
    sweep = Sweep()
    assert sweep.title(0) is None
    sweep.begin([cell(tmp_path, seed) for seed in range(3)])
    assert sweep.title(1) == "cell 2/3: seed=1"
    sweep._seconds = [300.0]
    assert sweep.title(1) == "cell 2/3, 10 min left: seed=1"
    assert sweep.title(3) is None  # a sweeper that chose more on the way


def ends(tmp_path: Path) -> list[CellEnd]:
    good = read_run(make_run(tmp_path, Made(seed=0)))
    why = "stopped: the winner's error rose tenfold; lower lr"
    bad = read_run(make_run(tmp_path, Made(seed=1, status="stopped")))
    return [
        CellEnd("objective=dpo,seed=0", "done", 61.2, "outputs/run/tiny-dpo-on-0123abcd/x", good),
        CellEnd("objective=dpo,seed=1", "stopped", 5.0, why, bad),
        CellEnd("objective=dpo,seed=2", "not run", None, "", None),
    ]


def test_a_pipe_gets_everything_in_one_line_each(tmp_path: Path) -> None:
    header, done, stopped, absent = sweep_table(ends(tmp_path), None)
    assert header.split() == ["cell", "status", "seconds", "result", "note"]
    assert "reward " in done
    assert done.endswith("outputs/run/tiny-dpo-on-0123abcd/x")
    assert stopped.endswith("lower lr")
    assert absent == "objective=dpo,seed=2  not run"


def test_a_narrow_terminal_gets_results_and_reasons(tmp_path: Path) -> None:
    told = ends(tmp_path)
    for width in (80, 60):
        lines = sweep_table(told, width)
        assert max(map(len, lines)) <= width
        assert any("reward " in line for line in lines)
        assert "    stopped: the winner's error rose tenfold; lower lr" in lines
        assert not any("0123abcd" in line for line in lines)
