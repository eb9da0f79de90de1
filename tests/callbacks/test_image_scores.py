"""Images along the training are scored, in pairs with the base; the training does not notice."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sdpo_exp.callbacks.best import BestCheckpoint
from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.callbacks.ema import PolicyEMA
from sdpo_exp.callbacks.image_scores import ImageScores
from sdpo_exp.errors import UserError
from sdpo_exp.randomness import sampling_noise
from sdpo_exp.types import Prompt
from tests.cli.command import metric_rows, run, run_folders
from tests.harness import Recorder, SmallBackbone, small_data, small_module, small_trainer


class Painter:
    """A pipeline in three lines: grey plus noise plus the denoiser's last bias."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.unet, self.components = denoiser, {"unet": denoiser}
        self.device = torch.device("cpu")
        denoiser.config = SimpleNamespace(in_channels=3, sample_size=8)  # type: ignore[assignment]
        denoiser.dtype = torch.float32  # type: ignore[assignment]

    def __call__(
        self,
        prompt: Sequence[str],
        guidance_scale: float,
        num_inference_steps: int,
        generator: Any,
        latents: Tensor,
        output_type: str,
        return_dict: bool,
    ) -> tuple[Any]:
        assert not self.unet.training
        bias = self.unet.last.bias.view(1, 3, 1, 1)
        return ((0.5 + 0.1 * latents + 10 * bias).permute(0, 2, 3, 1).numpy(),)


class Paints(SmallBackbone):
    def pipeline(self) -> Painter:
        return Painter(self.denoiser)


class Two:
    name = "two"

    def __init__(self, count: int = 3) -> None:
        self.count = count

    def prompts(self) -> list[Prompt]:
        return [Prompt(i, f"picture {i}") for i in range(self.count)]

    def fingerprint(self) -> str:
        return f"{self.count} pictures"


class Red:
    """Mean of the red channel, in levels."""

    name, display_scale, image_size = "red", 1.0, None

    def score(self, images: Sequence[Any], prompts: Sequence[str]) -> Tensor:
        assert len(images) == len(prompts)
        return torch.tensor([float(np.asarray(image)[..., 0].mean()) for image in images])


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
    _, other = fit(tmp_path / "other", callback(tmp_path, prompts=Two(2)), ckpt_path=last)
    assert "eval/red" in other[6]
    assert "eval/red_change" not in other[6]
    _, brighter = fit(tmp_path / "steps", callback(tmp_path, steps=3), ckpt_path=last)
    assert "eval/red_change" not in brighter[6]


def test_no_scorers_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"callbacks.images.scorers: none chosen"):
        callback(tmp_path, scorers={})


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
