"""The scripts of the committed studies run on real run folders."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.command import ROOT, python, run

STUDY = ROOT / "experiments" / "embedded_world"
# Reward changes of three prompts, by cell and seed; seed 1 of dpo-off is added unfinished.
CHANGES = {
    ("sft", 0): (0.0, 0.0, 0.0),
    ("sft", 1): (0.1, 0.1, 0.1),
    ("dpo-off", 0): (-0.3, -0.1, -0.2),
    ("dpo-on", 0): (0.0, 0.1, 0.2),
    ("dpo-on", 1): (0.2, 0.3, 0.4),
    ("dpo-constant-mean", 0): (-0.28, -0.08, -0.18),
}
WINNER = {"sft": -0.01, "dpo-off": 0.2, "dpo-on": 0.001, "dpo-constant-mean": 0.05}
# run.py that knows only the cells named in its first argument.
LIMITED = """
import sys
import run
run.CELLS = {cell: run.CELLS[cell] for cell in sys.argv.pop(1).split(",")}
run.main()
"""


def fake_run(root: Path, cell: str, seed: int, changes: Sequence[float], status: str) -> None:
    """A run folder with what the study's scripts read; lambda 0.2 and 0.4, base reward 0.5."""
    folder = root / "tiny" / cell / f"seed{seed}"
    (folder / "guidance2").mkdir(parents=True)
    winner = WINNER[cell] + 0.01 * seed
    last = {"winner_minus_ref": winner, "winner_minus_ref_se": 0.003}
    last |= {"loser_minus_ref": winner + 0.1, "margin": 0.1, "implicit_accuracy": 0.75}
    probe = {f"probe/{name}": {"first": 0.0, "last": value} for name, value in last.items()}
    (folder / "summary.json").write_text(json.dumps({"status": status, "probe": probe}))
    weight = "{weight: 0.3}" if "constant" in cell else "{mu: 0.9}"
    (folder / "config.yaml").write_text(f"safeguard: {weight}\n")
    (folder / "metrics.csv").write_text(
        "step,pair/winner_minus_ref,pair/implicit_accuracy,safeguard/lambda_mean,"
        f"probe/winner_minus_ref\n0,,,,0.0\n1,0.0,0.5,0.2,\n2,0.1,0.6,0.4,{winner}\n"
    )
    (folder / "guidance2" / "evaluation.json").write_text("{}")
    fake_scores(folder / "guidance2" / "scores.csv", changes)


def fake_scores(path: Path, changes: Sequence[float]) -> None:
    """Accuracy changes by a tenth of the reward, all else stays."""
    lines = [
        "model,index,prompt,reward,accuracy,shape,size,foreground,background,position,"
        "exact,cleanliness"
    ]
    for model, share in (("base", 0.0), ("tuned", 1.0)):
        for index, change in enumerate(changes):
            reward, accuracy = 0.5 + share * change, 0.8 + share * change / 10
            lines.append(f"{model},{index},prompt {index},{reward},{accuracy},1,0,1,1,1,0,0.25")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study") / "outputs" / "embedded_world"
    for (cell, seed), changes in CHANGES.items():
        fake_run(root, cell, seed, changes, "finished")
    fake_run(root, "dpo-off", 1, (9.0, 9.0, 9.0), "interrupted")
    return root


@pytest.fixture(scope="module")
def tables(study: Path) -> Path:
    done = python(study.parents[1], STUDY / "table.py", "--out", "tables")
    assert done.returncode == 0, done.stderr
    return study.parents[1] / "tables"


@pytest.mark.slow
def test_the_first_look_s_table_reads_runs(tmp_path: Path) -> None:
    limits = ("max_steps=1", "callbacks=[winner_loss,lambda_statistics,probe]", "evaluation=off")
    small = ("callbacks.probe.pairs=4", "callbacks.probe.times=[0.5]")
    sweep = ("-m", "name=first_look", "seed=0,1", "safeguard=on,off")
    assert run(tmp_path, *sweep, *limits, *small).returncode == 0
    path = ROOT / "experiments" / "first_look" / "table.py"
    done = python(tmp_path, path, "outputs/first_look")
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    assert table[0].startswith("| safeguard | runs | winner_minus_ref |")
    assert [line.split("|")[1:3] for line in table[2:]] == [[" on ", " 2 "], [" off ", " 2 "]]


def test_the_table_of_cells_holds_means_intervals_and_ranges(tables: Path) -> None:
    """Three prompts with standard deviation 0.1: half an interval is 4.3027 * 0.1 / sqrt(3)."""
    text = (tables / "table.md").read_text()
    assert (
        "| dpo on | 2 | +0.0060 (+0.0010 to +0.0110) | +0.1000 | 0.75 | 0.30 "
        "| +0.200 [-0.048, +0.448] (+0.100 to +0.300) | +0.020 ± 0.025 | +0.000 ± 0.000 |"
    ) in text
    assert "| sft | 2 | -0.0050 (-0.0100 to +0.0000) | +0.1000 | 0.75 | - |" in text


def test_missing_runs_are_counted_and_empty_pair_sets_left_out(tables: Path) -> None:
    text = (tables / "table.md").read_text()
    assert "from 6 finished runs" in text
    assert "| dpo off | 1 |" in text
    assert "[-0.448, +0.048] (-0.200 to -0.200)" in text  # of the finished run alone
    assert "| dmpo on | 0 | - |" in text
    assert [line for line in text.splitlines() if line.startswith("##")] == ["## tiny"]


def test_contrasts_are_paired_by_prompt_and_seed_and_corrected(tables: Path) -> None:
    """With two degrees of freedom p = 1 - t / sqrt(2 + t^2); t^2 is 27, 6.75 and 23.52.

    So p is 0.0351, 0.1217 and 0.0400. Holm: the least times 3 is 0.1053; the next times 2 would be
    less than that, so it takes it over; the largest stays. Over two seeds, 0.1 and 0.2, the
    interval is 0.15 +- 12.706 * 0.05.
    """
    text = (tables / "table.md").read_text()
    found = [line for line in text.splitlines() if line.startswith("| dpo on - ")]
    assert found == [
        "| dpo on - dpo off | 1 | +0.300 [+0.052, +0.548] | +0.300 to +0.300 | - | 0.035 | 0.105 |",
        "| dpo on - sft | 2 | +0.150 [-0.098, +0.398] | +0.100 to +0.200 | [-0.485, +0.785] "
        "| 0.122 | 0.122 |",
        "| dpo on - dpo constant mean | 1 | +0.280 [+0.032, +0.528] | +0.280 to +0.280 "
        "| - | 0.040 | 0.105 |",
    ]


def test_results_have_one_row_per_run(tables: Path) -> None:
    with (tables / "results.csv").open(newline="") as stream:
        rows = {(row["cell"], int(row["seed"])): row for row in csv.DictReader(stream)}
    assert rows.keys() == CHANGES.keys()
    row = rows["dpo-on", 0]
    expected = {"lambda_mean": 0.3, "winner_minus_ref": 0.001, "winner_minus_ref_se": 0.003}
    expected |= {"reward_base": 0.5, "reward_tuned": 0.6, "reward_change": 0.1}
    expected |= {"reward_change_se": 0.057735, "accuracy_change": 0.01, "size_tuned": 0.0}
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected, abs=1e-6)
    assert row["constant_weight"] == ""
    assert rows["dpo-constant-mean", 0]["constant_weight"] == "0.3"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["table.py", "plots.py"])
def test_nothing_to_read_is_said(tmp_path: Path, name: str) -> None:
    done = python(tmp_path, STUDY / name, "nowhere", "--out", "out")
    assert done.returncode == 1
    assert done.stderr.strip() == "no finished run judged at guidance 2 below nowhere; see run.py"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_other_prompts_are_refused(tmp_path: Path) -> None:
    fake_run(tmp_path, "sft", 0, (0.1, 0.2), "finished")
    fake_run(tmp_path, "dpo-on", 0, (0.1, 0.2, 0.3), "finished")
    done = python(tmp_path, STUDY / "table.py", tmp_path, "--out", "out")
    assert done.returncode == 1
    assert "were judged on other prompts" in done.stderr


@pytest.mark.slow
def test_plots_are_written_at_readme_width(study: Path, tmp_path: Path) -> None:
    done = python(tmp_path, STUDY / "plots.py", study, "--out", "plots", "--no-samples")
    assert done.returncode == 0, done.stderr
    paths = sorted((tmp_path / "plots").iterdir())
    assert [path.name for path in paths] == ["reward_tiny.png", "winner_trajectory_tiny.png"]
    for path in paths:
        with Image.open(path) as image:
            assert image.width == 1350


@pytest.mark.slow
def test_the_scripts_know_the_same_cells(tmp_path: Path) -> None:
    line = f"import sys; sys.path.insert(0, {str(STUDY)!r}); import run, table; "
    done = python(tmp_path, "-c", line + "print(set(run.CELLS) == set(table.CELLS))")
    assert done.stdout == "True\n", done.stderr


@pytest.mark.slow
def test_the_study_trains_only_what_is_missing(tmp_path: Path) -> None:
    """The matched control comes with the second call and takes its weight from the first's run."""
    limits = ("--data", "tiny", "--seeds", "0", "--workers", "1", "--images", "2")
    extra = ("--extra", "max_steps=1", "callbacks=[winner_loss,lambda_statistics]")
    line = f"import sys; sys.path.insert(0, {str(STUDY)!r})\n" + LIMITED
    done = [
        python(tmp_path, "-c", line, cells, *limits, *extra, nested=True)
        for cells in ("dpo-on", "dpo-on,dpo-constant-mean")
    ]
    assert [call.returncode for call in done] == [0, 0], [call.stderr for call in done]
    assert done[0].stdout.splitlines() == ["tiny dpo-on seed 0: done"]
    assert done[1].stdout.splitlines() == [
        "tiny dpo-on seed 0: finished before",
        "tiny dpo-constant-mean seed 0: done",
    ]
    cells = tmp_path / "outputs" / "embedded_world" / "tiny"
    with (cells / "dpo-on" / "seed0" / "metrics.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    config = (cells / "dpo-constant-mean" / "seed0" / "config.yaml").read_text()
    assert f"weight: {round(float(row['safeguard/lambda_mean']), 4)}\n" in config


def test_the_readme_s_numbers_are_the_study_s() -> None:
    table = (STUDY / "table.md").read_text().split("## tiny\n")[1].split("\n## ")[0]
    rows = {
        line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")
    }
    cells = {
        "dpo, safeguard off": "dpo off",
        "dpo, safeguard on": "dpo on",
        "dmpo, safeguard off": "dmpo off",
        "dmpo, safeguard on": "dmpo on",
        "control: sft, winners only": "sft",
        "control: dpo, constant weight 0.19": "dpo constant mean",
        "control: dpo, constant weight 0": "dpo constant 0",
    }
    readme = (ROOT / "README.md").read_text().replace("**", "")
    for shown, cell in cells.items():
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| {shown} |")]
        winner, accuracy, reward = (part.strip() for part in line.split("|")[2:5])
        _, _, _, measured, _, implicit, _, change, *_ = rows[cell].split("|")
        assert reward == change.strip()
        assert accuracy == implicit.strip()
        assert float(winner) == pytest.approx(float(measured.split()[0]), abs=6e-4)


def test_the_readme_s_other_pair_sets_are_the_study_s() -> None:
    with (STUDY / "results.csv").open(newline="") as stream:
        runs = list(csv.DictReader(stream))
    readme = (ROOT / "README.md").read_text()
    assert f"{len(runs)} runs" in readme
    cells = ("dpo-off", "dpo-on", "sft")
    for data in ("tiny_sampled", "tiny_hard", "tiny_flawed"):
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| `{data}`")]
        for cell, shown in zip(cells, line.split("|")[2:5], strict=True):
            ours = [r for r in runs if (r["data"], r["cell"]) == (data, cell)]
            assert len(ours) == 3
            mean = sum(float(run["reward_change"]) for run in ours) / 3
            assert float(shown) == pytest.approx(mean, abs=6e-4), (data, cell)


@pytest.mark.slow
def test_the_search_prints_what_ran_and_says_what_did_not(tmp_path: Path) -> None:
    limits = ("max_steps=1", "callbacks.probe.pairs=2", "callbacks.probe.times=[0.5]")
    images = ("evaluation.n=2", "evaluation.steps=1")
    only = ("--only", "dpo off, lr 2e-4", "--extra", *limits, *images)
    done = python(tmp_path, STUDY / "search.py", "--root", "there", *only, nested=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there" / "dpo_off-lr_2e-4" / "summary.json").is_file()
    assert done.stdout.splitlines()[2].startswith("| dpo off, lr 2e-4 | ")
    assert done.stdout.splitlines()[2].count("|") == 8
    (tmp_path / "there" / "dpo_off-lr_2e-4" / "summary.json").write_text('{"status": "failed"}')
    bad = ("--only", "dpo off, lr 2e-4", "--extra", "max_steps=0")
    again = python(tmp_path, STUDY / "search.py", "--root", "there", *bad, nested=True)
    assert "dpo off, lr 2e-4: FAILED" in again.stderr
    assert "| dpo off, lr 2e-4 | not run |" in again.stdout


def test_a_looser_safeguard_belongs_to_flawed_winners_alone() -> None:
    sys.path.insert(0, str(STUDY))
    try:
        study: Any = importlib.import_module("run")
    finally:
        sys.path.pop(0)
    everything = list(study.jobs(Path("x"), list(study.PAIR_SETS), list(study.CELLS), [0]))
    half = {job.data for job in everything if job.cell.endswith("half")}
    assert half == {"tiny_flawed"}
    assert len(everything) == 4 * 9 + 2


@pytest.mark.slow
def test_the_comparison_trains_evaluates_and_compares_and_then_does_nothing_twice(
    tmp_path: Path,
) -> None:
    script = ROOT / "experiments" / "comparison" / "run.py"
    small = ("--seeds", "0", "--images", "4", "--extra", "max_steps=1", "callbacks=[checkpoint]")
    done = python(tmp_path, script, *small, nested=True)
    assert done.returncode == 0, done.stdout + done.stderr
    root = tmp_path / "outputs" / "comparison"
    assert (root / "against_base" / "comparison.png").is_file()
    assert "dpo_safeguard_seed0" in (root / "against_dpo_seed0" / "comparison.md").read_text()
    scores = {f: f.stat().st_mtime_ns for f in root.glob("evaluate/*/scores.parquet")}
    assert len(scores) == 4
    again = python(tmp_path, script, *small, nested=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {f: f.stat().st_mtime_ns for f in scores} == scores


def test_the_flow_world_s_numbers_are_its_report_s() -> None:
    """Reward, winner drift, margin and lambda of each cell, rounded."""
    folder = ROOT / "experiments" / "flow_world"
    shown, found = (
        [line.split("|") for line in (folder / name).read_text().splitlines() if "|" in line]
        for name in ("README.md", "report.md")
    )
    cells = {
        "dpo, safeguard off, lr 5e-5": "dpo lr=5e-05 / off",
        "dpo, safeguard off, lr 2e-5": "dpo lr=2e-05 / off",
        "dpo, safeguard on": "dpo / on",
        "dpo, projection": "dpo / projection",
        "sft": "sft / off",
    }
    told = {row[1].strip(): row for row in shown}
    measured = {row[1].strip(): row for row in found if len(row) > 9 and "[" in row[3]}
    for cell, theirs in cells.items():
        ours = told[cell][2:6] if cell != "sft" else told[cell][2:5]
        numbers = [float(text.split()[0]) for text in ours]
        expected = [float(text.split()[0]) for text in measured[theirs][3:7]]
        assert numbers == pytest.approx(expected[: len(numbers)], abs=6e-3), cell
        rounded = [f"{value:+.3f}" for value in expected[:3]]
        assert [text.split()[0] for text in ours[:3]] == rounded, cell
