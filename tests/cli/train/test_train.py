"""Command lines that must work, run for real with size limits added."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
import wandb
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tests.cli.command import BARE, SMALL, metric_rows, run, run_folders


def ok(folder: Path, *arguments: str) -> str:
    done = run(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("default")
    return folder, ok(folder, *SMALL)


def test_a_run_leaves_a_complete_folder(default_run: tuple[Path, str]) -> None:
    root, _ = default_run
    (folder,) = run_folders(root)
    assert folder.parent.name.startswith("tiny-dpo-on-")
    config = OmegaConf.load(folder / "config.yaml")
    assert config.objective._target_ == "sdpo_exp.objectives.dpo.DPO"
    assert config.objective.beta == config.recipe.beta
    environment = json.loads((folder / "environment.json").read_text())
    assert {"git_revision", "git_dirty", "versions", "seed", "data_fingerprint"} <= set(environment)
    assert environment["versions"]["torch"] == torch.__version__.split("+")[0]
    assert len(environment["data_fingerprint"]) == 64
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("finished", 2)
    assert (folder / "plots" / "trajectories.png").stat().st_size > 10_000
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    weights = load_file(folder / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    for name, weight in weights.items():
        assert torch.equal(weight, checkpoint["state_dict"][f"policy.{name}"]), name
    assert [p.name for p in root.iterdir()] == ["outputs"]  # nothing anywhere else


def test_the_log_has_the_promised_keys(default_run: tuple[Path, str]) -> None:
    (folder,) = run_folders(default_run[0])
    rows = metric_rows(folder)
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    promised = {"train/loss", "train/lr", "probe/winner_minus_ref", "probe/t0.5/margin"}
    promised |= {f"pair/{k}" for k in ("winner_error", "loser_error", "margin")}
    promised |= {f"pair/{k}" for k in ("winner_minus_ref", "loser_minus_ref", "implicit_accuracy")}
    names = ("mean", "min", "max", "p10", "p50", "p90", "active", "would_be")
    promised |= {f"safeguard/lambda_{k}" for k in names} | {"safeguard/cosine"}
    assert promised <= set(rows[0])
    assert float(rows[1]["train/loss"]) == pytest.approx(0.6931472, abs=1e-6)


def test_base_and_tuned_are_compared(default_run: tuple[Path, str]) -> None:
    (folder,) = run_folders(default_run[0])
    with (folder / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["model"], row["index"]) for row in rows] == [
        ("base", "0"),
        ("base", "1"),
        ("tuned", "0"),
        ("tuned", "1"),
    ]
    assert rows[0]["prompt"] == rows[2]["prompt"]
    rewards = [float(row["reward"]) for row in rows]
    summary = json.loads((folder / "summary.json").read_text())
    change = summary["evaluation"]["scores"]["reward"]["change"]["mean"]
    assert change == pytest.approx(sum(rewards[2:]) / 2 - sum(rewards[:2]) / 2, abs=1e-5)
    assert (folder / "plots" / "before_after.png").stat().st_size > 10_000
    report = (folder / "summary.md").read_text()
    for picture in re.findall(r"!\[.*?\]\((.+?)\)", report):
        assert (folder / picture).is_file()
    assert report.count("| reward |") == report.count("| winner drift |") == 1


@pytest.mark.slow
def test_a_run_stopped_after_its_training_goes_on_with_the_images(tmp_path: Path) -> None:
    ok(tmp_path, *SMALL, "run_dir=outputs/whole")
    stopped = tmp_path / "outputs" / "whole" / "summary.json"
    stopped.write_text(stopped.read_text().replace('"finished"', '"interrupted"', 1))
    ok(tmp_path, *SMALL, "resume=outputs/whole", "run_dir=outputs/again")
    for name in ("scores.csv", "metrics.csv"):
        first, second = ((tmp_path / "outputs" / d / name).read_text() for d in ("whole", "again"))
        assert first == second
    summary = json.loads((tmp_path / "outputs" / "again" / "summary.json").read_text())
    assert summary["steps"] == 2
    assert "probe/winner_minus_ref" in summary["probe"]
    ok(tmp_path, *BARE[1:], "max_steps=3", "resume=outputs/again")


@pytest.mark.slow
def test_a_folder_that_is_used_again_says_nothing_of_the_earlier_run(tmp_path: Path) -> None:
    ok(tmp_path, *SMALL, "run_dir=outputs/here")
    ok(tmp_path, *BARE, "run_dir=outputs/here")
    folder = tmp_path / "outputs" / "here"
    assert not (folder / "scores.csv").exists()
    assert json.loads((folder / "summary.json").read_text())["evaluation"] is None


def test_without_evaluation_there_are_no_images_but_a_model(tmp_path: Path) -> None:
    said = ok(tmp_path, *BARE)
    (folder,) = run_folders(tmp_path)
    assert not (folder / "scores.csv").exists()
    assert (folder / "model" / "model_index.json").is_file()
    assert "evaluating" not in said
    assert json.loads((folder / "summary.json").read_text())["evaluation"] is None


def test_the_terminal_says_what_matters(default_run: tuple[Path, str]) -> None:
    _, said = default_run
    for words in ("recipe: ", "beta=200", "held-out probe", "finished: 2 steps", "run folder: "):
        assert words in said
    assert re.search(r"2 images of test captions, guidance 2 +base +tuned +change +s\.e\.", said)
    assert re.search(r"reward( +[+-]?\d\.\d{3}){4}", said)
    assert "START-UP CHECK" not in said


def test_one_seed_gives_identical_metrics(default_run: tuple[Path, str], tmp_path: Path) -> None:
    ok(tmp_path, *SMALL)
    (first,), (second,) = run_folders(default_run[0]), run_folders(tmp_path)
    assert metric_rows(first) == metric_rows(second)
    assert len(metric_rows(first)) == 3


@pytest.mark.slow
def test_a_run_can_be_continued_from_its_folder(
    default_run: tuple[Path, str], tmp_path: Path
) -> None:
    (folder,) = run_folders(default_run[0])
    limits = ("max_steps=4", *SMALL[1:])
    said = ok(tmp_path, *limits, f"resume={folder}")
    assert f"resuming at step 2 from {folder / 'checkpoints' / 'last.ckpt'}" in said
    ok(tmp_path, *limits, "name=whole")
    (resumed,), (whole,) = run_folders(tmp_path), run_folders(tmp_path, "whole")
    keys = ["train/loss", "pair/winner_error", "safeguard/lambda_mean"]
    ours = {row["step"]: [row[k] for k in keys] for row in metric_rows(resumed)}
    theirs = {row["step"]: [row[k] for k in keys] for row in metric_rows(whole)}
    assert set(ours) == {"0", "1", "2", "3", "4"}
    assert ours["3"] == theirs["3"]
    assert ours["4"] == theirs["4"]
    over = run(tmp_path, *SMALL, f"resume={folder}")
    assert "the run is at step 2 already; max_steps=2 leaves nothing to do" in over.stderr
    again = run(tmp_path, *limits, f"resume={folder}", "seed=5")
    assert "that run was trained with other values:\n    seed: 0 -> 5" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.slow
def test_six_cells_by_one_command(tmp_path: Path) -> None:
    limits = ("max_steps=1", "callbacks=[winner_loss,lambda_statistics]", "evaluation=off")
    ok(tmp_path, "-m", "objective=dpo,dspo,dmpo", "safeguard=true,false", *limits)
    cells = run_folders(tmp_path)
    assert [cell.parent.name.split("-maxsteps")[0] for cell in cells] == [
        f"tiny-{objective}-{guard}"
        for objective in ("dmpo", "dpo", "dspo")
        for guard in ("off", "on")
    ]
    for cell in cells:
        row = metric_rows(cell)[0]
        off = "-off-" in cell.parent.name
        # dspo's published mu of 0.2 can leave lambda at 1 with the safeguard on.
        if off or "-dspo-" not in cell.parent.name:
            assert (float(row["safeguard/lambda_mean"]) == 1.0) == off
        would_be = float(row["safeguard/lambda_would_be"])
        assert 0 < would_be <= 1
        # Off or on, the recipe's rule sees the same first batch.
        assert off or would_be == pytest.approx(float(row["safeguard/lambda_mean"]))
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.slow
def test_every_other_objective_and_safeguard_trains(tmp_path: Path) -> None:
    limits = ("max_steps=1", "callbacks=[winner_loss,lambda_statistics,guard]", "evaluation=off")
    ok(tmp_path, "-m", "objective=sft,ipo,hinge,dspo_sdxl", "safeguard=pair", *limits)
    ok(tmp_path, "-m", "safeguard=pair,global,weighted,constant", *limits, "name=guards")
    assert len(run_folders(tmp_path)) == 4
    assert len(run_folders(tmp_path, "guards")) == 4


@pytest.mark.slow
def test_precision_optimizer_checkpointing_and_micro_batches(tmp_path: Path) -> None:
    options = ("optimizer=adafactor", "tuning.gradient_checkpointing=true", "data.micro_batch=4")
    ok(tmp_path, *SMALL, "trainer.precision=bf16-mixed", *options)
    (folder,) = run_folders(tmp_path)
    # Autocast on both sides and float32 errors: the first loss is exactly ln 2.
    assert float(metric_rows(folder)[1]["train/loss"]) == pytest.approx(0.6931472, abs=1e-6)


@pytest.mark.slow
def test_every_logger_gets_the_resolved_config(tmp_path: Path) -> None:
    ok(tmp_path, *SMALL, "logger=[csv,tensorboard,wandb]")
    (folder,) = run_folders(tmp_path)
    hparams = OmegaConf.load(folder / "hparams.yaml")
    assert hparams["safeguard.mu"] == 0.9
    assert hparams["objective._target_"] == "sdpo_exp.objectives.dpo.DPO"
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    wandb.teardown()  # until then the end of the file may still be on its way
    (offline,) = (folder / "wandb").glob("offline-run-*")
    written = next(offline.glob("run-*.wandb")).read_bytes()
    assert b'"mu":0.9' in written
    assert b"eval/reward_change" in written
    assert list(offline.glob("files/media/images/eval/before_after_*.png"))
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("argument", "target"),
    [
        ("safeguard=true", "PreserveWinner"),
        ("safeguard=True", "PreserveWinner"),
        ("safeguard=on", "PreserveWinner"),
        ("safeguard=false", "NoSafeguard"),
        ("safeguard=FALSE", "NoSafeguard"),
        ("safeguard=off", "NoSafeguard"),
        ("safeguard.mu=0.3", "mu: 0.3"),
        ("safeguard.official_compat=true", "official_compat: true"),
        ("objective=dmpo", "sdpo_exp.objectives.dmpo.DMPO"),
    ],
)
def test_looking_without_running(tmp_path: Path, argument: str, target: str) -> None:
    done = run(tmp_path, argument, "--cfg", "job", watch=True)
    assert done.returncode == 0
    assert target in done.stdout
    assert "LOADED []" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_help_and_info(tmp_path: Path) -> None:
    said = run(tmp_path, "--help", watch=True).stdout
    for words in ("objective: dmpo, dpo, dspo", "safeguard: backtracking", "-m objective=", "mu:"):
        assert words in said
    assert "LOADED []" in said
    info = run(tmp_path, "--info", "defaults", watch=True)
    assert "recipe/tiny_dpo" in info.stdout
    assert "LOADED []" in info.stdout


@pytest.mark.slow
def test_two_ranks_of_one_command_train_like_one(tmp_path: Path) -> None:
    two = ("trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
    guard = ("safeguard=pair", "data.micro_batch=4")
    said = ok(tmp_path, *SMALL, *guard, *two, "name=two")
    assert said.count("recipe: ") == 1
    ok(tmp_path, *SMALL, *guard, "name=one")
    (ours,), (theirs,) = run_folders(tmp_path, "two"), run_folders(tmp_path, "one")
    for mine, other in zip(metric_rows(ours), metric_rows(theirs), strict=True):
        for key, value in other.items():
            if value:
                assert float(mine[key]) == pytest.approx(float(value), abs=1e-4), key


@pytest.mark.slow
def test_a_config_folder_of_the_user_s_own(tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "objective").mkdir(parents=True)
    (tmp_path / "mine.py").write_text(
        "from sdpo_exp.objectives.dpo import dpo_loss\n\n\n"
        "class Mine:\n    def __init__(self, sharpness=1.0):\n        self.beta = sharpness\n\n"
        "    def __call__(self, errors):\n        return dpo_loss(errors, beta=self.beta)\n"
    )
    (tmp_path / "my_conf" / "objective" / "mine.yaml").write_text(
        "_target_: mine.Mine\nsharpness: 100.0\n"
    )
    ok(tmp_path, "--config-dir", "my_conf", "objective=mine", *BARE)
    (folder,) = run_folders(tmp_path)
    assert folder.parent.name.startswith("tiny-mine-on-")
    wrong = run(tmp_path, "--config-dir", "my_conf", "objective=mine", "+objective.sharpnes=2")
    assert "objective.sharpnes: unknown key; did you mean 'sharpness'" in wrong.stderr
    weighted = run(tmp_path, "--config-dir", "my_conf", "objective=mine", "safeguard=weighted")
    assert "the objective has no closed-form weights(errors)" in weighted.stderr
    assert "Traceback" not in weighted.stderr


@pytest.mark.slow
def test_metrics_csv_is_always_written_and_run_dir_can_be_chosen(tmp_path: Path) -> None:
    ok(tmp_path, *SMALL, "logger=tensorboard", "run_dir=outputs/here")
    assert (tmp_path / "outputs" / "here" / "summary.json").is_file()
    assert len(metric_rows(tmp_path / "outputs" / "here")) == 3


@pytest.mark.slow
def test_a_run_says_which_recipe_it_follows(tmp_path: Path) -> None:
    said = ok(tmp_path, "-m", "objective=hinge,dspo", *BARE)
    assert "no published recipe for this cell; using\n  beta=200" in said
    assert "the safeguard cannot matter in this cell" in said
