"""Static memory, counted by hand for models and optimisers whose bytes are known."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers.optimization import Adafactor

from sdpo_exp.callbacks.memory import MemoryEstimateReport
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.tuning import LoraTuning
from sdpo_exp.rules.parameter import ParameterRule
from sdpo_exp.safeguard import NoSafeguard
from sdpo_exp.training.memory import MemoryEstimate, estimate, estimate_parts, optimizer_bytes
from tests.harness import SmallBackbone, SmallDenoiser, small_data, small_module, small_trainer
from tests.unet import unet_module

# SmallDenoiser: convolutions 8x4x3x3 and 3x8x3x3, a matrix 8x4, and their biases.
MATRICES = (288, 216, 32)
BIASES = (8, 3, 8)
NUMBERS = sum(MATRICES) + sum(BIASES)
adamw = partial(torch.optim.AdamW, lr=1e-3)


def test_adamw_with_all_weights_trained() -> None:
    found = estimate(small_module())
    assert found.weights == found.gradients == found.reference == 4 * NUMBERS
    assert found.optimizer == 2 * 4 * NUMBERS + 4 * 6  # two moments, and a counter per tensor
    assert found.frozen_parts == 0
    assert found.total == (4 + 4 + 8 + 4) * NUMBERS + 24


def test_adafactor_keeps_rows_and_columns_of_matrices() -> None:
    factory = partial(Adafactor, lr=1e-3, relative_step=False, scale_parameter=False)
    found = estimate(small_module(optimizer=factory))
    # (8,4,3,3): rows 8*4*3 and columns 8*4*3; (3,8,3,3): 3*8*3 twice; (8,4): 8 and 4.
    # A bias is kept whole, and every tensor has its root mean square beside it.
    assert found.optimizer == 4 * (2 * 96 + 2 * 72 + 12 + sum(BIASES) + 6)


def test_momentum_free_sgd_keeps_nothing() -> None:
    assert estimate(small_module(optimizer=partial(torch.optim.SGD, lr=0.1))).optimizer == 0


def test_lora_counts_the_frozen_base_once_and_trains_little() -> None:
    tuning = LoraTuning(rank=2, targets=["embed"], base_dtype="bfloat16")
    found = estimate(small_module(tuning=tuning, reference=AdapterOff()))
    adapter = 2 * (4 + 8)
    assert found.weights == 2 * NUMBERS + 4 * adapter
    assert found.gradients == 4 * adapter
    assert found.optimizer == 2 * 4 * adapter + 4 * 2
    assert found.reference == 0


def test_a_half_precision_reference_takes_half() -> None:
    found = estimate(small_module(reference=FrozenReference("bfloat16")))
    assert found.reference == 2 * NUMBERS


def test_frozen_parts_are_found_in_attributes_and_lists_and_counted_once() -> None:
    backbone: Any = SmallBackbone()
    backbone.vae = nn.Linear(10, 10, bias=False).half()
    backbone.text_encoders = [nn.Linear(3, 3, bias=False), nn.BatchNorm1d(2), backbone.vae]
    # The normalisation has weight, bias, mean and variance of 2, and a 64-bit counter.
    assert estimate(small_module(backbone=backbone)).frozen_parts == 200 + 36 + 4 * 8 + 8


def test_half_precision_weights_have_half_precision_gradients_and_moments() -> None:
    found = estimate_parts(SmallDenoiser().bfloat16(), [], [], adamw)
    assert found.weights == found.gradients == 2 * NUMBERS
    assert found.optimizer == 2 * 2 * NUMBERS + 4 * 6


def test_the_optimizer_s_own_state_agrees(tmp_path: Path) -> None:
    module = unet_module(tuning=LoraTuning(rank=2), reference=AdapterOff())
    trainer = small_trainer(tmp_path, max_steps=1)
    trainer.fit(module, datamodule=small_data(max_steps=1))
    states = trainer.optimizers[0].state.values()
    real = sum(value.nbytes for state in states for value in state.values())
    assert estimate(module).optimizer == real


def test_a_full_size_model_needs_no_memory_to_be_counted() -> None:
    with torch.device("meta"):
        sd15 = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    found = estimate_parts(sd15, [sd15], [], adamw)
    assert found.weights == found.reference == 4 * 859_520_964
    tensors = len(list(sd15.parameters()))
    assert found.optimizer == 8 * 859_520_964 + 4 * tensors
    assert {p.device.type for p in sd15.parameters()} == {"meta"}


def test_what_a_rule_keeps_of_gradients_counts() -> None:
    plain, ruled = (
        estimate(small_module(safeguard=safeguard))
        for safeguard in (NoSafeguard(would_be_mu=0.9), ParameterRule(0.9))
    )
    assert ruled == plain._replace(gradients=4 * plain.gradients)


def test_the_line_is_in_gib() -> None:
    gib = 2**30
    line = str(MemoryEstimate(gib, 2 * gib, 4 * gib, gib // 2, 0))
    assert line == (
        "static memory 7.500 GiB: weights 1.000, gradients 2.000, optimizer 4.000, "
        "reference 0.500, frozen parts 0.000"
    )


@pytest.mark.parametrize(("precision", "size"), [("32-true", 4), ("bf16-true", 2)])
def test_it_is_said_once_with_the_dtypes_of_training(
    tmp_path: Path, caplog: Any, precision: Any, size: int, monkeypatch: Any
) -> None:
    seen: list[MemoryEstimate] = []
    monkeypatch.setattr(
        "sdpo_exp.callbacks.memory.estimate", lambda m: seen.append(estimate(m)) or seen[-1]
    )
    module = unet_module(optimizer=partial(torch.optim.AdamW, lr=1e-2))
    numbers = sum(p.numel() for p in module.policy.parameters())
    trainer = small_trainer(tmp_path, [MemoryEstimateReport()], max_steps=1, precision=precision)
    with caplog.at_level(logging.INFO, "sdpo_exp.callbacks.memory"):
        trainer.fit(module, datamodule=small_data(max_steps=1))
    lines = [r.getMessage() for r in caplog.records if r.name == "sdpo_exp.callbacks.memory"]
    assert len(lines) == len(seen) == 1
    assert lines[0].endswith("; activations come on top")
    assert lines[0].startswith(str(seen[0]))
    assert seen[0].weights == seen[0].gradients == size * numbers
    assert seen[0].reference == 4 * numbers


def test_counting_draws_no_random_number() -> None:
    module = small_module()
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    optimizer_bytes(module.policy.parameters(), module.make_optimizer)
    assert torch.equal(torch.rand(2), expected)
