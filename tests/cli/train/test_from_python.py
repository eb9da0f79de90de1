"""`sdpo_exp.compose` and `sdpo_exp.train`: as the command line, and a good guest of its process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

import sdpo_exp
from sdpo_exp.config.cell_name import config_hash
from sdpo_exp.errors import Interrupted, UserError
from sdpo_exp.training import PreferenceModule
from tests.cli.command import BARE, SMALL, metric_rows, python, run, run_folders

WORDS = (*SMALL, "objective=dmpo", "safeguard=false", "recipe.alpha=0.02")
# What a clock, a process or the way of calling decides.
OWN = {"started", "pid", "command", "seconds", "pairs_per_second"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["notebook", "-f", "kernel.json"])
    return tmp_path


def guest_state() -> list[Any]:
    root = logging.getLogger()
    return [
        *(list(root.handlers), root.level, root.filters, list(sys.argv), Path.cwd()),
        *(signal.getsignal(signal.SIGINT), random.getstate(), torch.get_rng_state().tolist()),
        *(torch.get_num_threads(), GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
        *(os.environ.get("PL_GLOBAL_SEED"), logging.getLogger("lightning.pytorch").level),
    ]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[sdpo_exp.RunResult, Path]:
    """One training by Python, in a running event loop, and the same by the command line."""
    folder = tmp_path_factory.mktemp("python")

    async def cell_of_a_notebook() -> sdpo_exp.RunResult:
        return sdpo_exp.train(WORDS)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["notebook", "-f", "kernel.json"])
        before = guest_state()
        result = asyncio.run(cell_of_a_notebook())
        assert guest_state() == before
    assert run(folder, *WORDS, "name=line").returncode == 0
    (other,) = run_folders(folder, "line")
    return result, other


def told(folder: Path, name: str) -> dict[str, Any]:
    content = json.loads((folder / name).read_text())
    return {key: value for key, value in content.items() if key not in {*OWN, "name", "overrides"}}


def test_it_leaves_the_folder_of_a_command_line(both: tuple[sdpo_exp.RunResult, Path]) -> None:
    result, other = both
    mine, theirs = (
        sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        for root in (result.folder, other)
    )
    assert mine == theirs
    for name in ("run.json", "summary.json", "environment.json"):
        assert told(result.folder, name) == told(other, name)
    assert metric_rows(result.folder) == metric_rows(other)
    words = ["safeguard=off" if word == "safeguard=false" else word for word in WORDS]
    assert OmegaConf.load(result.folder / ".hydra/overrides.yaml") == words
    command = json.loads((result.folder / "environment.json").read_text())["command"]
    assert command == ["sdpo_exp.train", *words]


def test_the_result_has_summary_pipeline_and_the_hash_of_compose(
    both: tuple[sdpo_exp.RunResult, Path],
) -> None:
    result, _ = both
    assert result.summary["status"] == "finished"
    assert result.pipeline is result.pipeline
    config = sdpo_exp.compose(WORDS)
    assert "hydra" not in config
    assert config.recipe.alpha == config.objective.alpha == 0.02
    assert config_hash(config) == told(result.folder, "run.json")["hash"]
    assert Path(config.run_dir).parent.name == result.folder.parent.name
    log = (result.folder / "sdpo_exp.log").read_text()
    assert "finished: 2 steps" in log


@pytest.mark.parametrize(
    "words",
    [
        ["objective=dpoo", "sead=3", "safeguard.mu=1.5"],
        ["x"],
        ["resume=/no/such/run"],
        ["optimizer.betas=3"],
        ["evaluation.n=99999"],
    ],
    ids=" ".join,
)
def test_mistakes_are_told_in_the_words_of_the_command_line(here: Path, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        sdpo_exp.train(words)
    assert str(error.value) in run(here, *words).stderr


@pytest.mark.parametrize(
    ("words", "named", "message"),
    [
        ("lr=1", {}, "overrides: must be a list of words"),
        ([1], {}, "overrides: must be a list of words"),
        (["-m"], {}, "-m: flags are the command line's"),
        (["seed=1,2"], {}, "seed=1,2: several values make a sweep"),
        (["experiment=sweep_mu"], {}, "a sweep takes the command line"),
        (["trainer.devices=2"], {}, "from Python a run takes one device"),
        (["trainer.devices=[0,1]"], {}, "from Python a run takes one device"),
        ([], {"config_dir": "nope"}, "config_dir=nope: no such folder"),
    ],
)
def test_what_only_the_command_line_can_is_refused(
    here: Path, words: Any, named: Any, message: str
) -> None:
    with pytest.raises(UserError) as error:
        sdpo_exp.train(words, **named)
    assert message in str(error.value)
    assert not list(here.iterdir())


@pytest.mark.slow
def test_own_configurations_and_a_callers_own_log(here: Path) -> None:
    (here / "mine" / "objective").mkdir(parents=True)
    (here / "mine" / "objective" / "soft.yaml").write_text("defaults:\n  - dpo\n\nbeta: 7.0\n")
    heard: list[str] = []

    class Own(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.levelname)

    handler = Own()
    logging.getLogger().addHandler(handler)
    try:
        result = sdpo_exp.train(["objective=soft", *BARE], config_dir="mine")
    finally:
        logging.getLogger().removeHandler(handler)
    assert "INFO" not in heard
    record = json.loads((result.folder / "run.json").read_text())
    assert (record["objective"], record["config_dir"]) == ("soft", str(here / "mine"))
    saved = OmegaConf.load(result.folder / "config.yaml")
    assert (
        saved.objective.beta
        == sdpo_exp.compose(["objective=soft"], config_dir="mine").objective.beta
        == 7
    )


@pytest.mark.slow
def test_an_interrupt_leaves_a_run_that_goes_on_where_it_was(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["max_steps=4", "callbacks=[winner_loss,checkpoint]", "evaluation=off"]
    whole = sdpo_exp.train([*words, "run_dir=whole"])
    step = PreferenceModule.training_step

    def interrupted(module: PreferenceModule, *arguments: Any) -> Any:
        if module.trainer.global_step == 1:
            signal.raise_signal(signal.SIGINT)
        return step(module, *arguments)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(PreferenceModule, "training_step", interrupted)
        with pytest.raises(Interrupted) as error:
            sdpo_exp.train([*words, "run_dir=first"])
        monkeypatch.setattr(PreferenceModule, "training_step", step)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    onward = "sdpo_exp.train(['resume=first'])"
    assert str(error.value) == f"interrupted; go on with: {onward}"
    assert json.loads(Path("first/summary.json").read_text())["steps"] == 2
    resumed = sdpo_exp.train(["resume=first", "run_dir=second"])
    assert metric_rows(resumed.folder) == metric_rows(whole.folder)
    assert resumed.summary["resumed"]["step"] == 2


@pytest.mark.slow
def test_importing_and_composing_imports_no_torch(tmp_path: Path) -> None:
    code = "import sys, sdpo_exp; {}; print([m for m in ('torch', 'hydra') if m in sys.modules])"
    for body, said in (("pass", "[]\n"), ("sdpo_exp.compose()", "['hydra']\n")):
        assert python(tmp_path, "-c", code.format(body), libraries=()).stdout == said
