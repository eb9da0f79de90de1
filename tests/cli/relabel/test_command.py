"""`python -m sdpo_exp.relabel`: mistakes in words, a kill that costs little, pairs that train."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.cli.command import SMALL, looking, python, run, run_folders
from tests.cli.relabel.relabelling import TINY, fake, pairs_of, stamps


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["part=bot", "sead=1", "weights={a:-1}", "data.train.splitt=x", "min_margin=-1"],
            [
                "5 mistakes",
                "part: must be 'train', 'validation' or 'both', got 'bot'",
                "sead=1: unknown key; did you mean 'seed'",
                "weights: must be greater than 0",
                "did you mean 'data.train.split'",
                "min_margin: must be greater than or equal to 0",
            ],
        ),
        (["metric=[tiny_reward,tiny_accuracy]"], ["by: which metric decides?"]),
        (["by=clip", "weights={clip:1}"], ["by=clip: not among", "weights: belong to rule="]),
        (["metric=[]"], ["metric: by what? For example metric=[tiny_reward]"]),
        (["metric=[pickscor]"], ["did you mean 'pickscore'"]),
        (["metric.tiny_reward.part=rewrad"], ["metric.tiny_reward.part: must be 'reward'"]),
        (["data=hf_pairs"], ["data.train.path: a value is required"]),
    ],
)
def test_mistakes_are_told_without_torch(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = looking(tmp_path, "relabel.relabel", *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert "LOADED []" in done.stdout
    for fragment in words:
        assert fragment in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data=pickapic_v2_stream"], "data.train: an endless stream has no rows"),
        (
            ["data=folder", "data.train.path=nowhere", "metric=[pickscore]"],
            "metric.pickscore.source=",
        ),
    ],
)
def test_what_cannot_be_had_is_told_before_anything_is_scored(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = python(tmp_path, "-m", "sdpo_exp.relabel", *arguments, extra={"HF_HUB_OFFLINE": "1"})
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_command_goes_on_and_its_pairs_train(tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "metric").mkdir(parents=True)
    OmegaConf.save({"bright": fake()}, tmp_path / "my_conf" / "metric" / "bright.yaml")
    command = ("-m", "sdpo_exp.relabel", "--config-dir", "my_conf", "metric=[bright]", "device=cpu")
    command = (*command, *TINY, "folder=outputs/relabel/mine")
    killed = python(tmp_path, *command, extra={"FAIL_AT": "21"})
    assert killed.returncode == -signal.SIGKILL
    mine = tmp_path / "outputs" / "relabel" / "mine"
    before = stamps(mine)
    assert list(before) == ["train/bright/00000.parquet", "train/bright/00001.parquet"]
    done = python(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    after = stamps(mine)
    assert {name: after[name] for name in before} == before
    assert "train bright: 2/2 pairs" in done.stdout
    assert "train: 12 pairs, 0 bad" in done.stdout
    conf = "outputs/relabel/mine/conf"
    assert f"python -m sdpo_exp --config-dir {conf} data=relabelled" in done.stdout
    tuned = run(tmp_path, "--config-dir", conf, "data=relabelled", "objective.beta=321", *SMALL)
    assert "beta=321 [recipe 200]" in tuned.stdout
    assert tuned.returncode == 0, tuned.stderr
    assert "finished: 2 steps" in tuned.stdout
    (run_folder,) = run_folders(tmp_path)
    saved = json.loads((run_folder / "environment.json").read_text())
    assert saved["data_fingerprint"] == pairs_of(mine).fingerprint()
    assert saved["pairs"] == {"train": 12, "validation": 5}  # one pair is equally bright
    other = run(tmp_path, "--config-dir", conf, "data=relabelled", "data.train.source.seed=9")
    assert "labels of other pairs than its source now gives" in other.stderr
    (mine / "train.parquet").unlink()
    absent = run(tmp_path, "--config-dir", conf, "data=relabelled")
    assert "train.parquet: no such file; python -m sdpo_exp.relabel makes" in absent.stderr
    assert "Traceback" not in other.stderr + absent.stderr
