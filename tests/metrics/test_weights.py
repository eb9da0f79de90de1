"""Weight files: found or not, read without running code, and refused in words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import weights
from tests.checkpoints import cache_folder


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


def test_a_digest_is_compared_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()
    weights.check_sha256(file, right)
    with pytest.raises(UserError, match="not the released file"):
        weights.check_sha256(file, right[:-1] + "0")


def test_the_first_of_several_names_is_taken(tmp_path: Path) -> None:
    for name in ("b", "c"):
        (tmp_path / name).touch()
    assert weights.locate_file(str(tmp_path), None, ("a", "b", "c")) == tmp_path / "b"
    assert weights.locate_file(str(tmp_path / "c"), None, ("a",)) == tmp_path / "c"


def test_an_id_is_found_in_the_hubs_cache_or_told_how_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = cache_folder(tmp_path, "some/scorer")
    with pytest.raises(UserError, match=r"some/scorer: .* has no a\.pt"):
        weights.locate_file("some/scorer", None, ("a.pt",))
    (snapshot / "a.pt").touch()
    assert weights.locate_file("some/scorer", None, ("a.pt",)) == snapshot / "a.pt"
    with pytest.raises(UserError, match="hf download some/absent-scorer"):
        weights.locate_file("some/absent-scorer", None, ("a.pt",))
