"""Weights: read without running code, loaded strictly, and refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import weights


class Code:
    """Anything that is not a tensor."""


def linear() -> nn.Linear:
    return nn.Linear(2, 1)


def test_a_built_module_is_frozen_float32_and_in_eval_mode() -> None:
    state = {"weight": torch.tensor([[1.0, 2.0]]).half(), "bias": torch.tensor([3.0])}
    module = weights.build(linear, state, "x")
    assert not module.training
    assert [(p.dtype, p.requires_grad) for p in module.parameters()] == [(torch.float32, False)] * 2
    assert module(torch.tensor([1.0, 1.0])).item() == 6


def test_building_leaves_the_random_numbers_as_they_were() -> None:
    before = torch.get_rng_state()
    weights.build(linear, linear_state := {"weight": torch.ones(1, 2), "bias": torch.ones(1)}, "x")
    assert torch.equal(torch.get_rng_state(), before)
    linear().load_state_dict(linear_state)
    assert not torch.equal(torch.get_rng_state(), before)


def test_misfits_are_named_before_memory_is_taken() -> None:
    made: list[str] = []

    def kind() -> nn.Linear:
        module = linear()
        made.append(module.weight.device.type)
        return module

    for state, message in (
        ({"weight": torch.ones(1, 2)}, "x: wrong weights: lacks bias"),
        ({"weight": torch.ones(1, 3), "bias": torch.ones(1)}, r"weight is \(1, 3\), not \(1, 2\)"),
        ({"weight": 1.0, "bias": torch.ones(1)}, "weight is a float, not a tensor"),
        ({f"module.{n}": torch.ones(1) for n in ("weight", "bias")}, "lacks weight.* and 1 more"),
    ):
        with pytest.raises(UserError, match=message):
            weights.build(kind, state, "x")
    assert set(made) == {"meta"}


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds a list, not a state dict"):
        weights.read(tmp_path / "list.pt")
    with pytest.raises(UserError, match="a list, not a state dict"):
        weights.build(linear, [torch.ones(1)], "x")  # type: ignore[arg-type]


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1), "extra": Code()}, tmp_path / "code.pt")
    with pytest.raises(UserError, match=r"code\.pt: cannot be read .* rewritten as \.safetensors"):
        weights.read(tmp_path / "code.pt")


@pytest.mark.parametrize("name", ["broken.pt", "broken.safetensors"])
def test_a_broken_file_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no weights")
    with pytest.raises(UserError, match=f"{name}: cannot be read as weights"):
        weights.read(tmp_path / name)
