"""A checkpoint holds what was trained, and continues that and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from sdpo_exp.errors import UserError
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from tests.harness import Recorder, small_data, small_trainer
from tests.unet import unet_module


def lora_module(**options: Any) -> Any:
    return unet_module(tuning=LoraTuning(**{"rank": 2, **options}), reference=AdapterOff())


def fitted(
    module: Any, folder: Path, steps: int, resume: Path | None = None, **trainer: Any
) -> Any:
    recorder, saver = Recorder(), StepCheckpoint(str(folder), every_n_steps=100)
    fit = small_trainer(folder, [recorder, saver], max_steps=steps, **trainer)
    data = small_data(max_steps=steps, micro_batch=2, effective_batch=4)
    fit.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return recorder


def adapters(module: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in module.policy.named_parameters() if p.requires_grad}


def test_it_holds_the_adapters_alone(tmp_path: Path) -> None:
    module = lora_module()
    fitted(module, tmp_path, 1)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(content["state_dict"]) == {f"policy.{name}" for name in adapters(module)}
    assert all("lora_" in name for name in content["state_dict"])
    assert content["adapters"] == {"default": 16.0}


def test_full_tuning_keeps_every_weight(tmp_path: Path) -> None:
    module = unet_module(tuning=FullTuning())
    fitted(module, tmp_path, 1)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(content["state_dict"]) == {f"policy.{name}" for name in module.policy.state_dict()}
    assert content["adapters"] == {}


def test_buffers_are_kept_though_nothing_trains_them(tmp_path: Path) -> None:
    module = lora_module()
    module.policy.register_buffer("running_mean", torch.zeros(3))
    fitted(module, tmp_path, 1)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert "policy.running_mean" in content["state_dict"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_resumed_lora_run_is_the_uninterrupted_run(tmp_path: Path, precision: Any) -> None:
    whole, part, resumed = lora_module(), lora_module(), lora_module(seed=7)
    whole_log = fitted(whole, tmp_path / "whole", 4, precision=precision)
    fitted(part, tmp_path / "part", 2, precision=precision)
    last = tmp_path / "part" / "last.ckpt"
    log = fitted(resumed, tmp_path / "rest", 4, resume=last, precision=precision)
    assert adapters(whole).keys() == adapters(resumed).keys()
    for name, tensor in adapters(whole).items():
        assert torch.equal(tensor, adapters(resumed)[name]), name
    assert log.keys == whole_log.keys[4:]
    assert torch.equal(log.records[-1].logits, whole_log.records[-1].logits)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: lora_module(rank=4), r"64 of another shape \(policy\."),
        (lambda: lora_module(alpha=4.0), r"alpha is {'default': 16.0} there"),
        (lambda: lora_module(targets=["to_q"]), r"48 unknown"),
        (lambda: lora_module(targets=["to_q", "conv1"]), r"\d+ missing .*48 unknown"),
        (lambda: unet_module(tuning=FullTuning()), r"\d+ missing .*64 unknown"),
    ],
    ids=["rank", "alpha", "targets", "other targets", "full"],
)
def test_another_tuning_is_refused_in_words(tmp_path: Path, other: Any, message: str) -> None:
    fitted(lora_module(), tmp_path / "part", 1)
    with pytest.raises(UserError, match=f"resume: the checkpoint does not fit .*{message}"):
        fitted(other(), tmp_path / "rest", 2, resume=tmp_path / "part" / "last.ckpt")


def test_the_reference_of_a_resumed_run_does_not_matter_to_its_checkpoint(tmp_path: Path) -> None:
    fitted(lora_module(), tmp_path / "part", 1)
    module = unet_module(tuning=LoraTuning(rank=2), reference=FrozenReference())
    fitted(module, tmp_path / "rest", 2, resume=tmp_path / "part" / "last.ckpt")
    whole = lora_module()
    fitted(whole, tmp_path / "whole", 2)
    for name, tensor in adapters(whole).items():
        assert torch.equal(tensor, adapters(module)[name]), name
