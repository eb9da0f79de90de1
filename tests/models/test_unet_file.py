"""The public `unet.pth` and its relatives, in and out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sdpo_exp.errors import UserError
from sdpo_exp.models import unet_file
from tests.checkpoints import small_sd_unet


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_written_file_is_plain_and_comes_back(tmp_path: Path) -> None:
    source, target = network(0), network(1)
    unet_file.write_state(source, tmp_path / "unet.pth")
    plain = torch.load(tmp_path / "unet.pth", weights_only=True)
    assert list(plain) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    unet_file.load_into(target, tmp_path / "unet.pth")
    assert same(source, target)


def test_files_of_old_torch_are_read(tmp_path: Path) -> None:
    source, target = network(0), network(1)
    file = tmp_path / "old.pth"
    torch.save(source.state_dict(), file, _use_new_zipfile_serialization=False)
    unet_file.load_into(target, file)
    assert same(source, target)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "unet."])
def test_what_wrappers_put_before_names_is_taken_off(tmp_path: Path, prefix: str) -> None:
    source, target = network(0), network(1)
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    torch.save(state, tmp_path / "x.pth")
    unet_file.load_into(target, tmp_path / "x.pth")
    assert same(source, target)


def test_diffusers_folders_and_safetensors_are_read(tmp_path: Path) -> None:
    source, target = small_sd_unet(), small_sd_unet()
    source.save_pretrained(tmp_path / "model" / "unet")
    for path in (
        tmp_path / "model",
        tmp_path / "model" / "unet",
        tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors",
    ):
        nn.init.zeros_(target.conv_in.weight)
        unet_file.load_into(target, path)
        assert same(source, target)


def test_a_file_that_does_not_fit_is_told_in_detail(tmp_path: Path) -> None:
    state = network(0).state_dict()
    del state["0.bias"]
    state["2.weight"] = torch.zeros(1)
    state["1.weight"] = torch.zeros(2, 5)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError) as told:
        unet_file.load_into(network(1), tmp_path / "x.pth")
    message = str(told.value)
    assert "1 missing (0.bias)" in message
    assert "1 unknown (2.weight)" in message
    assert "1.weight (2, 5) instead of (2, 4)" in message


def test_nothing_but_tensors_is_unpickled(tmp_path: Path) -> None:
    torch.save(network(0), tmp_path / "module.pth")
    with pytest.raises(UserError, match="cannot be read as weights"):
        unet_file.read_state(tmp_path / "module.pth")
    torch.save({"state_dict": {}}, tmp_path / "nested.pth")
    with pytest.raises(UserError, match="no plain table of tensors"):
        unet_file.read_state(tmp_path / "nested.pth")
    with pytest.raises(UserError, match="neither a file of weights nor a folder"):
        unet_file.read_state(tmp_path)
