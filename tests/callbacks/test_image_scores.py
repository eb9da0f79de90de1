"""Images along the training are scored, in pairs with the base; the training does not notice."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdpo_exp.callbacks.best import BestCheckpoint
from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.ema import PolicyEMA
from sdpo_exp.callbacks.image_scores import ImageScores
from sdpo_exp.errors import UserError
from sdpo_exp.randomness import sampling_noise
from tests.cli.command import metric_rows, run, run_folders
from tests.harness import RandomPairs, Recorder, small_data, small_module, small_trainer
from tests.painting import Paints, Red, Two


def callback(folder: Path, **options: Any) -> ImageScores:
    given = {"every_n_steps": 2, "batch": 2, "prompts": Two(), "scorers": {"red": Red()}}
    return ImageScores(dirpath=str(folder), **{**given, **options})


def fit(folder: Path, *callbacks: Any, **options: Any) -> tuple[Any, dict[int, dict[str, float]]]:
    module = small_module(backbone=Paints())
    recorder = Recorder()
    steps = options.pop("max_steps", 6)
    trainer = small_trainer(
        folder, [recorder, *callbacks], max_steps=steps, enable_checkpointing=True
    )
    trainer.fit(module, datamodule=small_data(max_steps=steps), weights_only=True, **options)
    rows: dict[int, dict[str, float]] = {}
    for step, row in recorder.rows:
        rows.setdefault(step, {}).update(
            {k: float(v) for k, v in row.items() if k.startswith("eval/")}
        )
    return module, {step: row for step, row in rows.items() if row}


def reds(bias: float) -> np.ndarray:
    """What `Red` sees of three pictures."""
    noise = sampling_noise(0, 3, (3, 8, 8)).numpy()[:, 0]
    return np.round(np.clip(0.5 + 0.1 * noise + 10 * bias, 0, 1) * 255).mean((1, 2))


def test_means_and_paired_changes_are_those_of_the_pictures(tmp_path: Path) -> None:
    module, rows = fit(tmp_path, callback(tmp_path))
    assert sorted(rows) == [0, 2, 4, 6]
    first, last = (
        reds(Paints().denoiser.last.bias[0].item()),
        reds(module.policy.last.bias[0].item()),
    )
    assert rows[0]["eval/red"] == pytest.approx(first.mean(), abs=1e-4)
    assert rows[0]["eval/red_change"] == rows[0]["eval/red_change_se"] == 0
    assert rows[6]["eval/red"] == pytest.approx(last.mean(), abs=1e-4)
    assert rows[6]["eval/red_se"] == pytest.approx(last.std(ddof=1) / math.sqrt(3), rel=1e-4)
    change = last - first
    assert rows[6]["eval/red_change"] == pytest.approx(change.mean(), abs=1e-4)
    assert rows[6]["eval/red_change_se"] == pytest.approx(
        change.std(ddof=1) / math.sqrt(3), rel=1e-3
    )
    assert abs(rows[6]["eval/red_change"]) > 0.05
    pictures = sorted(p.name for p in (tmp_path / "plots").iterdir())
    assert pictures == [f"images_step={k}.png" for k in (0, 2, 4, 6)]


def test_the_training_does_not_notice(tmp_path: Path) -> None:
    with_it, _ = fit(tmp_path, callback(tmp_path))
    without, _ = fit(tmp_path)
    for ours, theirs in zip(with_it.policy.parameters(), without.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_best_step_by_a_metric_is_kept(tmp_path: Path) -> None:
    options = {"monitor": "eval/red", "mode": "max", "max_winner_minus_ref": None}
    best = BestCheckpoint(str(tmp_path), **options)  # type: ignore[arg-type]
    _, rows = fit(tmp_path, best, callback(tmp_path))
    values = {step: row["eval/red"] for step, row in rows.items()}
    described = json.loads((tmp_path / "best.json").read_text())
    assert described["step"] == max(values, key=lambda step: values[step])
    assert described["value"] == pytest.approx(max(values.values()))
    assert described["winner_minus_ref"] is None
    with pytest.raises(UserError, match=r"eval/blue is not reported .* eval/red"):
        fit(tmp_path, BestCheckpoint(str(tmp_path), "eval/blue"), callback(tmp_path))
    with pytest.raises(UserError, match=r"Add probe to callbacks, or give .*=null"):
        fit(tmp_path, BestCheckpoint(str(tmp_path), "eval/red"), callback(tmp_path))


def test_averaged_weights_are_judged_where_they_are_asked_for(tmp_path: Path) -> None:
    average = PolicyEMA(decay=0.5, export=False)
    module, rows = fit(tmp_path, average, callback(tmp_path, weights="ema"))
    with average.applied(module):
        averaged = module.policy.last.bias[0].item()
    trained = module.policy.last.bias[0].item()
    assert abs(reds(averaged).mean() - reds(trained).mean()) > 1e-3
    assert rows[6]["eval/red"] == pytest.approx(reds(averaged).mean(), abs=1e-4)
    with pytest.raises(UserError, match=r"callbacks=\[default,ema,images\]"):
        fit(tmp_path, callback(tmp_path, weights="ema"))


def test_a_resumed_run_remembers_the_base(tmp_path: Path) -> None:
    _, whole = fit(tmp_path / "whole", callback(tmp_path))
    saver = StepCheckpoint(str(tmp_path / "part"), every_n_steps=4)
    fit(tmp_path / "part", saver, callback(tmp_path), max_steps=4)
    last = tmp_path / "part" / "last.ckpt"
    _, rest = fit(tmp_path / "rest", callback(tmp_path), ckpt_path=last)
    assert rest[6] == pytest.approx(whole[6])
    base = Image.open(tmp_path / "plots" / "images_step=6.png")
    assert base.height > 2 * TILE, "the base's row came with the checkpoint"
    _, other = fit(tmp_path / "other", callback(tmp_path, prompts=Two(2)), ckpt_path=last)
    assert "eval/red" in other[6]
    assert "eval/red_change" not in other[6]
    _, brighter = fit(tmp_path / "steps", callback(tmp_path, steps=3), ckpt_path=last)
    assert "eval/red_change" not in brighter[6]


def test_without_scorers_and_prompts_the_data_s_captions_are_shown(tmp_path: Path) -> None:
    module, rows = fit(tmp_path, callback(tmp_path, scorers=None, prompts=None))
    assert rows == {}
    first, last = (Image.open(tmp_path / "plots" / f"images_step={step}.png") for step in (0, 6))
    assert last.height - first.height == TILE
    assert (tile(last, 0, last) == tile(first, 0, first)).all()
    seen = tile(last, 1, last).mean((0, 1))[0]
    noise = sampling_noise(0, 1, (3, 8, 8))[0, 0].numpy()
    bias = module.policy.last.bias[0].item()
    assert seen == pytest.approx(np.clip(0.5 + 0.1 * noise + 10 * bias, 0, 1).mean() * 255, abs=1)
    below = np.asarray(last.convert("L"))[2 * TILE + 4 :]
    assert (below < 128).any(), "captions"
    bare: Any = SimpleNamespace(datamodule=small_data(validation=RandomPairs(0)))
    with pytest.raises(UserError, match=r"no caption to draw; give prompts@callbacks.images"):
        callback(tmp_path, prompts=None).setup(bare, bare, "fit")


TILE = 132  # pixels of a line: a picture of 8 magnified, and a gap


def tile(grid: Image.Image, line: int, of: Image.Image) -> np.ndarray:
    """The first picture of a line; the margin with the labels is what eight lines leave over."""
    columns = (of.width - 4) // TILE
    left = of.width - columns * TILE
    top = 4 + line * TILE
    return np.asarray(grid.crop((left, top, left + 128, top + 128)))


SMALL_VISITS = (
    "callbacks=[winner_loss,probe,images,best]", "callbacks.images.prompts.n=3", "evaluation=off",
    "callbacks.images.steps=1", "callbacks.images.every_n_steps=1", "max_steps=2",
    "callbacks.best.monitor=eval/tiny_reward", "callbacks.probe.pairs=4",
    "callbacks.probe.times=[0.5]", "effective_batch=4", "data.micro_batch=2",
)  # fmt: skip


@pytest.mark.slow
def test_ranks_share_the_prompts_and_agree_with_one(tmp_path: Path) -> None:
    one = run(tmp_path, *SMALL_VISITS, "name=one")
    two = run(tmp_path, *SMALL_VISITS, "name=two", "trainer.devices=2", "trainer.strategy=ddp")
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    rows = [metric_rows(run_folders(tmp_path, name)[0]) for name in ("one", "two")]
    for ours, theirs in zip(*rows, strict=True):
        for name in ("eval/tiny_reward", "eval/tiny_reward_change"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=1e-3)
    assert (run_folders(tmp_path, "two")[0] / "checkpoints" / "best.json").is_file()
