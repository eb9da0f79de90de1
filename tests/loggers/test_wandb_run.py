"""A W&B run says what it is, keeps everything at its step, and never stops a training."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.composition import compose_cell
from sdpo_exp.loggers.offline import OfflineRun, find_runs, read_run
from sdpo_exp.loggers.wandb_run import WandbRun, nested

register_resolvers()
KEY = "0123456789abcdef" * 3


def logger(folder: Path, **options: Any) -> WandbRun:
    folder.mkdir(exist_ok=True)
    return WandbRun(str(folder), **options)


def read(folder: Path) -> OfflineRun:
    wandb.finish()
    wandb.teardown()  # until then the end of the file may still be on its way
    runs = [path for path in find_runs(folder) if path.parent.name.startswith("offline-run-")]
    (path,) = runs
    return read_run(path)


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Our warnings, whatever level an earlier test left."""
    mine = [record for record in caplog.records if record.name.startswith("sdpo_exp")]
    return [record.message for record in mine if record.levelno >= logging.WARNING]


def chosen(*overrides: str) -> Any:
    config = compose_cell("train", ["logger=[csv,wandb]", *overrides]).config
    assert config is not None
    return {"run_dir": config.run_dir, **OmegaConf.to_container(config.logger, resolve=True)}  # type: ignore[dict-item]


def test_a_run_is_named_by_what_it_is() -> None:
    config = chosen("objective=dmpo", "safeguard=off", "seed=3", "name=grid")
    node = config["wandb"]
    digest = node["cell"]["hash"]
    assert config["run_dir"].split("/")[2] == f"tiny-dmpo-off-seed3-{digest}"
    assert node["name"] == f"dmpo-off-seed3-{digest}"
    assert (node["group"], node["job_type"]) == ("grid", "train")
    assert node["tags"] == ["tiny", "dmpo", "safeguard-off"]
    assert node["cell"] == {
        "model": "tiny",
        "objective": "dmpo",
        "safeguard": "off",
        "hash": digest,
    }


def test_how_a_run_is_logged_changes_neither_hash_nor_folder() -> None:
    quiet = chosen()["run_dir"].split("/")[2]
    online = ("logger.wandb.offline=false", "logger.wandb.project=mine")
    assert chosen(*online)["run_dir"].split("/")[2] == quiet


def test_a_choice_without_hydra_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # of a command run here before
    config = OmegaConf.create({"a": "${choice:objective}", "b": "${cell_hash:}", "c": 1})
    assert config.a == "unknown"
    assert len(config.b) == 8
    composed = compose_cell("train", ["+extra=${choice:nothing}"]).config
    assert composed is not None
    assert composed.extra == "unknown"


def test_everything_of_a_step_stands_in_one_row(tmp_path: Path) -> None:
    run = logger(tmp_path / "run", name="n", group="g", tags=["a"], cell={"objective": "dpo"})
    run.log_hyperparams({"safeguard.mu": 0.9, "seed": 1})
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    run.log_metrics({"probe/t0.5/margin": 0.25, "probe/t0.1/margin": 0.5}, 0)
    for step in (1, 2, 3):
        run.log_histogram("lambda", [0.0, 0.5, 1.0, 1.0], step)
        run.log_metrics({"loss": float(step)}, step)
    run.log_image("picture", [image], step=3)
    run.log_table("table", ["prompt", "image"], [["a kite", image]], step=3)
    run.finalize("success")
    told = read(tmp_path)
    assert (told.name, told.group, told.tags, told.exit_code) == ("n", "g", ("a",), 0)
    assert told.config["safeguard"] == {"mu": 0.9}
    assert told.config["cell"] == {"objective": "dpo"}
    assert [row["_step"] for row in told.history] == [0, 1, 2, 3]
    assert [row["trainer/global_step"] for row in told.history] == [0, 1, 2, 3]
    assert [row.get("loss") for row in told.history] == [None, 1, 2, 3]
    counts = told.history[2]["lambda"]["values"]
    assert (len(counts), counts[0], counts[10], counts[19]) == (20, 1, 1, 2)
    last = told.history[3]
    (picture,) = last["picture"]["filenames"]
    for path in (picture, last["table"]["path"]):
        assert (told.folder / "files" / path).is_file()
    assert last["probe/by_time"]["nrows"] == 2


def test_all_files_are_below_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = logger(tmp_path / "run", log_model=True)
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "last.ckpt").write_bytes(b"weights")
    run.log_table("table", ["image"], [[np.zeros((4, 4, 3), dtype=np.uint8)]], step=1)
    run.finalize("success")
    told = read(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "config", "cache"}
    model = told.artifacts.pop(f"model-{told.id}")
    assert model == {"last.ckpt": checkpoints / "last.ckpt"}
    staged = [path for files in told.artifacts.values() for path in files.values()]
    assert staged
    assert all(path.is_relative_to(tmp_path / "run") and path.is_file() for path in staged)
    assert "WANDB_DATA_DIR" not in os.environ
    assert "WANDB_MODE" not in os.environ


def test_wandb_dir_is_heard_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    logger(tmp_path / "run").log_metrics({"x": 1.0}, 0)
    assert read(tmp_path).folder.is_relative_to(tmp_path / "elsewhere")


def test_a_failed_training_is_a_failed_run(tmp_path: Path) -> None:
    run = logger(tmp_path / "run")
    run.log_metrics({"x": 1.0}, 0)
    run.finalize("failed")
    assert wandb.run is None
    assert read(tmp_path).exit_code == 1


def test_each_run_is_its_own(tmp_path: Path) -> None:
    for name in ("first", "second"):  # the first is left open
        logger(tmp_path / name, name=name).log_metrics({"x": 1.0}, 0)
    assert [read(tmp_path / name).name for name in ("first", "second")] == ["first", "second"]


def test_what_is_refused_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = logger(tmp_path / "run")
    with caplog.at_level(logging.WARNING, "sdpo_exp"):
        for step in (1, 2):
            run.log_image("picture", ["no/such/file.png"], step=step)
            run.log_table("table", ["one", "two"], [["a"]], step=step)
        run.log_metrics({"x": 1.0}, 3)
    (message,) = ours(caplog)
    assert "the training goes on" in message
    assert read(tmp_path).summary["x"] == 1


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_wandb_mode_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    run = logger(tmp_path / "run", offline=False)
    run.log_metrics({"x": 1.0}, 0)
    wandb.finish()
    assert len(find_runs(tmp_path)) == (mode == "offline")


def offline_instead(folder: Path, caplog: pytest.LogCaptureFixture, timeout: float = 30.0) -> str:
    """Ask for an online run; the warning, after the run was recorded offline."""
    with caplog.at_level(logging.WARNING, "sdpo_exp"):
        run = logger(folder / "run", offline=False, timeout=timeout)
        run.log_metrics({"x": 1.0}, 0)
    assert read(folder).summary["x"] == 1
    (message,) = ours(caplog)
    assert message.endswith("; this run is recorded offline")
    return message


def test_without_a_key_it_goes_on_offline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "no API key" in offline_instead(tmp_path, caplog)


def test_with_a_wrong_key_it_goes_on_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert "API" in offline_instead(tmp_path, caplog)


@pytest.mark.slow
def test_without_a_server_it_goes_on_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port} cannot be reached" in offline_instead(tmp_path, caplog)


@pytest.mark.slow
def test_with_a_silent_server_it_goes_on_offline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "timed out" in offline_instead(tmp_path, caplog, timeout=1.0)


def test_dotted_keys_become_mappings() -> None:
    assert nested({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert nested({"a": 1, "a.b": 2, "a.b.c": 3}) == {"a": 1, "a.b": 2, "a.b.c": 3}
