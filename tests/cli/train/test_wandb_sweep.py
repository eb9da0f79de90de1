"""A sweep recorded offline holds all that its dashboard shows, one W&B run for each cell."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import wandb
from omegaconf import OmegaConf

from sdpo_exp.cli.dashboard.dashboard import main as dashboard
from sdpo_exp.loggers.offline import OfflineRun, find_runs, read_run
from sdpo_exp.loggers.panels import missing_keys, sections
from tests.cli.command import SMALL, here, run

OBJECTIVES, SWITCH = ("dpo", "dspo", "dmpo"), {"true": "on", "false": "off"}
STEPS = 2
SHOWN = (
    "callbacks=[default,images]",
    "callbacks.images.prompts.n=2",
    "callbacks.images.steps=1",
    "callbacks.images.every_n_steps=1",
    "callbacks.lambda_histogram.every_n_steps=1",
    "callbacks.throughput.every_n_steps=1",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    axes = (f"objective={','.join(OBJECTIVES)}", f"safeguard={','.join(SWITCH)}")
    done = run(folder, "-m", *axes, "logger=[csv,wandb]", "name=grid", *SMALL, *SHOWN)
    assert done.returncode == 0, done.stdout + done.stderr
    wandb.teardown()
    return folder


@pytest.fixture(scope="module")
def runs(sweep: Path) -> list[OfflineRun]:
    return [read_run(path) for path in find_runs(sweep)]


def test_each_cell_is_a_run_of_its_own_and_says_which(runs: list[OfflineRun], sweep: Path) -> None:
    assert len({told.id for told in runs}) == 6
    assert {told.group for told in runs} == {"grid"}
    assert {(told.project, told.job_type) for told in runs} == {("sdpo_exp", "train")}
    assert {told.exit_code for told in runs} == {0}
    cells = {(told.config["cell"]["objective"], told.config["cell"]["safeguard"]) for told in runs}
    assert cells == {(name, switch) for name in OBJECTIVES for switch in SWITCH.values()}
    for told in runs:
        cell = told.config["cell"]
        assert told.tags == ("tiny", cell["objective"], f"safeguard-{cell['safeguard']}")
        assert told.name == f"{cell['objective']}-{cell['safeguard']}-seed0-{cell['hash']}"
        folder = told.folder.parents[1]
        assert folder.parent.name.endswith(cell["hash"])
        saved = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        assert isinstance(saved, dict)
        for group in ("objective", "safeguard", "optimizer", "recipe", "logger"):
            given = {k: v for k, v in saved[group].items() if not isinstance(v, list | dict)}
            assert given.items() <= told.config[group].items(), group
        assert saved["logger"]["wandb"]["cell"] == cell  # written resolved
    # Nothing of W&B outside the runs' folders.
    assert {path.name for path in sweep.iterdir()} == {"outputs"}


def test_every_step_is_one_row_with_the_numbers_of_metrics_csv(runs: list[OfflineRun]) -> None:
    for told in runs:
        assert [row["_step"] for row in told.history] == list(range(STEPS + 1))
        assert [row["trainer/global_step"] for row in told.history] == list(range(STEPS + 1))
        with (told.folder.parents[1] / "metrics.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == len(told.history)
        for row, ours in zip(rows, told.history, strict=True):
            for key in ("train/loss", "pair/margin", "safeguard/lambda_mean", "probe/margin"):
                if row[key]:
                    assert ours[key] == pytest.approx(float(row[key]), rel=1e-6), key
                else:
                    assert key not in ours
        for row in told.history[1:]:
            assert sum(row["safeguard/lambda_histogram"]["values"]) == 8
            applied = row["safeguard/lambda_histogram"]["values"][-1] == 8
            assert applied or told.config["cell"]["safeguard"] == "on"


def test_images_and_tables_are_there(runs: list[OfflineRun]) -> None:
    for told in runs:
        files = told.folder / "files"
        for row in told.history:
            assert all((files / name).is_file() for name in row["eval/images"]["filenames"])
        last = told.history[-1]
        assert all((files / name).is_file() for name in last["eval/before_after"]["filenames"])
        (staged,) = [told.artifacts[name] for name in told.artifacts if "evaltable" in name]
        table = json.loads(staged["eval/table.table.json"].read_text())
        assert table["columns"][:5] == ["prompt", "base", "tuned", "base reward", "tuned reward"]
        assert len(table["data"]) == 2
        for row in table["data"]:
            assert all(staged[image["path"]].is_file() for image in row[1:3])
        with (told.folder.parents[1] / "scores.csv").open(newline="") as stream:
            scores = [float(row["reward"]) for row in csv.DictReader(stream)]
        assert [row[3] for row in table["data"]] == pytest.approx(scores[:2], rel=1e-5)
        assert [row[4] for row in table["data"]] == pytest.approx(scores[2:], rel=1e-5)
        by_time = json.loads((files / last["probe/by_time"]["path"]).read_text())
        steps = [row[by_time["columns"].index("step")] for row in by_time["data"]]
        assert steps == [0, STEPS]


def test_every_panel_has_its_keys(runs: list[OfflineRun], sweep: Path) -> None:
    assert missing_keys([told.keys() for told in runs], sections()) == []
    done = here(sweep, dashboard, "--dry-run", "runs=outputs/grid", "group=grid")
    assert done.returncode == 0, done.stderr
    assert "every panel has what it shows in each of 6 runs" in done.stdout
