"""Half precision: updates that would be lost, loss scales that must not show, fused optimisers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from sdpo_exp.errors import UserError
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from sdpo_exp.training.precision import check_updates_arrive, share_that_stands_still
from sdpo_exp.types import LossParts
from tests.harness import Recorder, small_data, small_module, small_trainer
from tests.unet import unet_module


@pytest.mark.parametrize(
    ("weight", "lr", "share"),
    [
        # bfloat16 has 7 bits after the leading one: around 1.5 its numbers are 2^-7 apart.
        (1.5, 2**-8 * 0.99, 1.0),
        (1.5, 2**-8 * 1.01, 0.0),
        # At 1 they are 2^-7 apart above and 2^-8 below.
        (1.0, 2**-9 * 0.99, 1.0),
        (1.0, 2**-9 * 1.01, 0.0),
        (-1.5, 2**-8 * 0.99, 1.0),
        (0.0, 1e-30, 0.0),
    ],
)
def test_a_weight_stands_still_below_half_the_distance(
    weight: float, lr: float, share: float
) -> None:
    assert share_that_stands_still([torch.tensor([weight], dtype=torch.bfloat16)], lr) == share


def test_the_share_is_over_all_elements_of_all_tensors() -> None:
    weights = [torch.tensor([1.5, 0.0]), torch.tensor([1.5, 1.5])]
    half = [weight.bfloat16() for weight in weights]
    assert share_that_stands_still(half, 1e-3) == 0.75
    assert share_that_stands_still(weights, 1e-3) == 0.0
    assert share_that_stands_still([], 1e-3) == 0.0


@pytest.mark.parametrize(
    ("dtype", "lr", "lost"),
    [
        (torch.bfloat16, 1e-3, True),
        (torch.bfloat16, 1e-2, False),
        (torch.float16, 1e-4, True),
        (torch.float16, 1e-3, False),
        (torch.float32, 1e-7, False),
    ],
)
def test_a_rate_that_moves_nothing_is_refused(dtype: torch.dtype, lr: float, lost: bool) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.full((4,), 1.5, dtype=dtype))], lr=lr)
    if not lost:
        check_updates_arrive(optimizer)
        return
    mixed = {torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}[dtype]
    with pytest.raises(UserError, match=f"100% of them. Use trainer.precision={mixed}"):
        check_updates_arrive(optimizer)


def test_what_is_refused_is_what_adamw_could_not_do() -> None:
    weight = nn.Parameter(torch.full((4,), 1.5, dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.0)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert torch.equal(weight, torch.full_like(weight, 1.5))


def fitted(folder: Path, module: Any, **trainer: Any) -> Recorder:
    recorder = Recorder()
    callbacks = [recorder, *trainer.pop("callbacks", [])]
    options = {"max_steps": 2, **trainer}
    small_trainer(folder, callbacks, **options).fit(module, datamodule=small_data(max_steps=2))
    return recorder


def adamw(lr: float, **options: Any) -> Any:
    return partial(torch.optim.AdamW, lr=lr, **options)


def test_bf16_weights_at_a_published_rate_are_refused_before_a_step(tmp_path: Path) -> None:
    module = unet_module(tuning=FullTuning(), optimizer=adamw(1e-6))
    before = nn.utils.parameters_to_vector(module.policy.parameters()).bfloat16()
    with pytest.raises(UserError, match=r"lr=1e-06 rounds to nothing for \d+% of them"):
        fitted(tmp_path, module, precision="bf16-true")
    assert torch.equal(nn.utils.parameters_to_vector(module.policy.parameters()), before)


def test_warm_up_does_not_hide_the_rate(tmp_path: Path) -> None:
    module = unet_module(optimizer=adamw(1e-2), warmup_steps=1000)
    fitted(tmp_path, module, precision="bf16-true")  # though the first steps' rate is 0 and 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bf16_weights_at_a_high_rate_are_trained(tmp_path: Path, dtype: Any) -> None:
    module = unet_module(optimizer=adamw(1e-2), reference=FrozenReference(dtype), warmup_steps=0)
    recorder = fitted(tmp_path, module, precision="bf16-true")
    assert {p.dtype for p in module.policy.parameters()} == {torch.bfloat16}
    first, last = recorder.records[0], recorder.records[-1]
    assert first.winner_error.dtype == torch.float32
    assert torch.isfinite(last.loss).all()
    if dtype == "bfloat16":  # the reference is rounded as the policy was
        assert torch.equal(first.logits, torch.zeros(4))
    assert not torch.equal(last.logits, torch.zeros(4))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_adapters_stay_float32_whatever_the_base_becomes(tmp_path: Path, precision: Any) -> None:
    module = unet_module(
        tuning=LoraTuning(rank=4), reference=AdapterOff(), optimizer=adamw(1e-6), warmup_steps=0
    )
    adapters = {n: p.detach().clone() for n, p in module.policy.named_parameters() if "lora_" in n}
    recorder = fitted(tmp_path, module, precision=precision)
    half = torch.bfloat16 if precision == "bf16-true" else torch.float16
    for name, parameter in module.policy.named_parameters():
        if name in adapters:
            assert parameter.dtype == torch.float32
            # Two steps of at most 1e-6, from A as it was drawn and not as it would be rounded.
            assert (parameter - adapters[name]).abs().max() < 2.1e-6
            assert not torch.equal(parameter, adapters[name])
        else:
            assert parameter.dtype == half
    assert torch.equal(recorder.records[0].logits, torch.zeros(4))


class Gradients(L.Callback):
    """Keeps the gradients as the optimiser would see them, before clipping."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        grads = {n: p.grad.clone() for n, p in pl_module.policy.named_parameters()}
        self.seen.append(grads)


class Parts:
    """A gradient rule that adds the two parts up."""

    needs_parts = True

    def backward(self, loss: Any, module: nn.Module, optimizer: Any) -> None:
        assert isinstance(loss, LossParts)
        (loss.winner + loss.loser).backward()


@pytest.mark.parametrize("rule", [None, Parts()], ids=["plain", "rule"])
def test_a_loss_scale_changes_neither_lambda_nor_gradients(tmp_path: Path, rule: Any) -> None:
    runs = []
    for scale in (1.0, 2.0**10):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        gradients = Gradients()
        recorder = fitted(
            tmp_path,
            small_module(gradient_rule=rule),
            plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)],
            callbacks=[gradients],
            max_steps=1,
        )
        assert scaler.get_scale() == scale
        lambdas = torch.cat([record.lambda_safe for record in recorder.records])
        runs.append((lambdas, gradients.seen[0]))
    (lambdas, unscaled), (lambdas_scaled, scaled) = runs
    assert torch.equal(lambdas, lambdas_scaled)
    assert 0 < float(lambdas.min()) < 1
    for name, gradient in unscaled.items():
        # float16 activations' gradients lose bits without a scale, none with one.
        assert torch.allclose(gradient, scaled[name], rtol=2e-2, atol=1e-4), name
        assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_fused_optimizer_clips_as_the_plain_one(tmp_path: Path, precision: Any) -> None:
    weights = []
    for fused, limit in ((False, 1e-6), (True, 1e-6), (True, 0.0)):
        # A large epsilon makes the update follow the gradient's size.
        optimizer = adamw(1e-2, eps=1e-3, fused=fused)
        module = small_module(optimizer=optimizer, warmup_steps=0)
        fitted(tmp_path, module, precision=precision, gradient_clip_val=limit)
        weights.append(nn.utils.parameters_to_vector(module.policy.parameters()).detach())
    plain, fused_clipped, fused_free = weights
    assert torch.allclose(plain, fused_clipped, rtol=0, atol=1e-7)
    assert (plain - fused_free).abs().max() > 0.01


def test_clipping_by_value_reaches_fused_optimizers_too(tmp_path: Path) -> None:
    class Largest(L.Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            grads = [
                p.grad.abs().max() for p in pl_module.policy.parameters() if p.grad is not None
            ]
            if grads:
                largest.append(float(max(grads)))

    largest: list[float] = []
    fitted(
        tmp_path,
        small_module(optimizer=adamw(1e-3, fused=True)),
        precision="bf16-mixed",
        gradient_clip_val=1e-4,
        gradient_clip_algorithm="value",
        callbacks=[Largest()],
    )
    assert largest
    assert max(largest) == pytest.approx(1e-4)
