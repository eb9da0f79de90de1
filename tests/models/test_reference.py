"""The two references: a copy that is kept, and the policy without its adapters."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sdpo_exp.errors import UserError
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.types import PairErrors
from tests.unet import batch, gradients, move_adapters, pristine, small_unet, unet_module

LN2 = torch.tensor(math.log(2), dtype=torch.float32)
REFERENCES = {
    "full": (FullTuning, FrozenReference),
    "lora": (LoraTuning, AdapterOff),
    "lora beside a copy": (LoraTuning, FrozenReference),
}


@pytest.mark.parametrize("case", REFERENCES)
@pytest.mark.parametrize("autocast", [False, True])
def test_policy_and_reference_agree_to_the_bit_at_step_0(case: str, autocast: bool) -> None:
    tuning, reference = REFERENCES[case]
    module = unet_module(tuning=tuning(), reference=reference(), objective=DPO(beta=5000.0))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = module.training_step(batch(), 0)
    assert torch.equal(out["record"].logits, torch.zeros(2))
    assert torch.equal(out["record"].loss, LN2.expand(2))


def test_a_half_precision_base_is_its_own_reference() -> None:
    module = unet_module(tuning=LoraTuning(base_dtype="bfloat16"), reference=AdapterOff())
    record = module.training_step(batch(), 0)["record"]
    assert torch.equal(record.logits, torch.zeros(2))


def test_adapters_off_predicts_as_the_base_did() -> None:
    module = unet_module(tuning=LoraTuning(rank=4), reference=AdapterOff())
    noisy, cond = module.draw(batch())
    before = module.predict_reference(noisy, cond)
    move_adapters(module.policy)
    base = small_unet().train()
    expected = module.backbone.denoise(base, noisy.x_t, noisy.t, cond)
    assert torch.equal(module.predict_reference(noisy, cond), before)
    assert torch.equal(before, expected)
    assert not torch.allclose(module.predict_policy(noisy, cond), before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_without_a_reference_pass(checkpointing: bool) -> None:
    tuning = LoraTuning(rank=4, gradient_checkpointing=checkpointing)
    module = unet_module(tuning=tuning, reference=AdapterOff())
    move_adapters(module.policy)
    noisy, cond = module.draw(batch())
    ref = module.predict_reference(noisy, cond)
    errors = PairErrors.from_predictions(module.predict_policy(noisy, cond), ref, noisy.target)
    guarded = module.safeguard(errors, module.pair_weights(errors))
    module.zero_grad()
    module.objective(guarded.errors).loss.mean().backward()
    alone = {n: p.grad.clone() for n, p in module.policy.named_parameters() if p.grad is not None}
    with_reference = gradients(module)
    assert with_reference.keys() == alone.keys()
    assert all("lora_" in name for name in alone)
    for name, gradient in alone.items():
        assert torch.equal(with_reference[name], gradient), name


def test_adapters_off_holds_no_second_network() -> None:
    assert AdapterOff().networks() == []


def test_without_adapters_it_says_what_to_choose() -> None:
    module = unet_module(tuning=FullTuning(), reference=AdapterOff())
    with pytest.raises(UserError, match="Use tuning=lora, or reference=frozen"):
        module.training_step(batch(), 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_copy_has_its_dtype_and_stays(dtype: Any) -> None:
    reference = FrozenReference(dtype)
    module = unet_module(reference=reference)
    (copied,) = reference.networks()
    before = pristine(copied)
    with torch.no_grad():
        for parameter in module.policy.parameters():
            parameter += 1
    for ours, kept in zip(copied.parameters(), before.parameters(), strict=True):
        assert ours.dtype == getattr(torch, dtype)
        assert not ours.requires_grad
        assert torch.equal(ours, kept)


class Moves:
    """Records where a copy is moved and when it is used, and moves nothing."""

    def __init__(self, reference: FrozenReference, monkeypatch: Any) -> None:
        self.seen: list[str] = []
        (network,) = reference.networks()
        monkeypatch.setattr(network, "to", self.record)
        self.network = network

    def record(self, device: torch.device) -> Any:
        self.seen.append(str(device))
        return self.network


def test_a_copy_in_main_memory_is_lent_for_its_pass_only(monkeypatch: Any) -> None:
    reference = FrozenReference(device="cpu")
    policy = small_unet()
    reference.attach(policy)
    moves = Moves(reference, monkeypatch)
    reference.to(torch.device("cuda", 0))
    assert moves.seen == []
    with reference.network(policy.eval()) as network:
        moves.seen.append("pass")
        assert network is moves.network
        assert not network.training
    assert moves.seen == ["cuda:0", "pass", "cpu"]
    with pytest.raises(KeyError), reference.network(policy):
        raise KeyError
    assert moves.seen[3:] == ["cuda:0", "cpu"]


def test_a_copy_beside_the_policy_moves_once(monkeypatch: Any) -> None:
    reference = FrozenReference()
    policy = small_unet()
    reference.attach(policy)
    moves = Moves(reference, monkeypatch)
    reference.to(torch.device("cuda", 0))
    for _ in range(2):
        with reference.network(policy):
            moves.seen.append("pass")
    assert moves.seen == ["cuda:0", "pass", "pass"]


def test_both_places_predict_the_same() -> None:
    predictions = []
    for device in ("auto", "cpu"):
        module = unet_module(reference=FrozenReference(device=device))  # type: ignore[arg-type]
        module.reference.to(torch.device("cpu"))
        predictions.append(module.predict_reference(*module.draw(batch())))
    assert torch.equal(*predictions)
