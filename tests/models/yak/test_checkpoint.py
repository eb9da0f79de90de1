"""Folders of the released layout: read by prefix, and written back in place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sdpo_exp.errors import UserError
from sdpo_exp.models.ovis_files import BACKBONE
from sdpo_exp.models.yak import YakConfig, YakTransformer
from sdpo_exp.models.yak.checkpoint import VAE, read_config, read_prefix, write_prefixed
from tests.models.yak.tiny import TINY, TINY_VAE, tiny_inputs, tiny_network, write_tiny_ovis

INDEX = "model.safetensors.index.json"
FIRST, SECOND, THIRD = (f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))


@pytest.fixture
def released(tmp_path: Path) -> Path:
    write_tiny_ovis(tmp_path / "released")
    return tmp_path / "released"


def test_the_tiny_folder_has_the_released_parts(released: Path) -> None:
    backbone, vae = read_prefix(released, BACKBONE), read_prefix(released, VAE)
    assert (len(backbone), sum(t.numel() for t in backbone.values())) == (95, 109_616)
    assert (len(vae), sum(t.numel() for t in vae.values())) == (180, 81_215)
    index = json.loads((released / INDEX).read_text())["weight_map"]
    assert len(index) == 95 + 180 + 1
    assert len(set(index.values())) == 3
    AutoencoderKL(**TINY_VAE).load_state_dict(vae, strict=True)


@pytest.mark.parametrize("sharded", [True, False])
def test_a_network_is_read_from_a_folder(tmp_path: Path, sharded: bool) -> None:
    write_tiny_ovis(tmp_path, seed=4, sharded=sharded)
    config = read_config(tmp_path)
    assert config == YakConfig.from_dict(TINY)
    network = YakTransformer(config)
    network.load_state_dict(read_prefix(tmp_path, BACKBONE), strict=True)
    inputs = tiny_inputs()
    assert torch.equal(network(**inputs), tiny_network(4)(**inputs))


def changed(folder: Path) -> dict[str, torch.Tensor]:
    return {BACKBONE + name: t + 1 for name, t in read_prefix(folder, BACKBONE).items()}


def test_what_is_written_is_read_again_and_nothing_else_moves(released: Path) -> None:
    (released / "code").mkdir()
    (released / "code" / "modeling.py").write_text("x = 1\n")
    before = {file: file.read_bytes() for file in released.rglob("*") if file.is_file()}
    new, target = changed(released), released.parent / "deep" / "new"
    write_prefixed(released, target, new)
    assert {file: file.read_bytes() for file in before} == before
    written = read_prefix(target, BACKBONE)
    assert all(torch.equal(written[name.removeprefix(BACKBONE)], t) for name, t in new.items())
    assert {f.relative_to(target) for f in target.rglob("*")} == {
        f.relative_to(released) for f in released.rglob("*")
    }
    for name in ("config.json", INDEX, "code/modeling.py", THIRD):
        assert (target / name).read_bytes() == (released / name).read_bytes(), name
    # Nobody edits weights, so they may be one file; text is a copy of its own.
    assert (target / THIRD).samefile(released / THIRD)
    assert not (target / "config.json").samefile(released / "config.json")
    kept = load_file(target / SECOND)["vte.weight"]
    assert torch.equal(kept, load_file(released / SECOND)["vte.weight"])
    with safe_open(target / SECOND, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [f.name for f in target.parent.iterdir()] == ["new"]


def test_only_the_shards_that_hold_them_are_written(released: Path, tmp_path: Path) -> None:
    name = next(iter(load_file(released / FIRST)))
    target = tmp_path / "new"
    target.mkdir()
    write_prefixed(released, target, {name: load_file(released / FIRST)[name] * 2})
    assert not (target / FIRST).samefile(released / FIRST)
    assert all((target / shard).samefile(released / shard) for shard in (SECOND, THIRD))


@pytest.mark.parametrize("sharded", [True, False])
def test_a_tensor_keeps_the_stored_dtype_unless_told_otherwise(
    tmp_path: Path, sharded: bool
) -> None:
    source = tmp_path / "source"
    write_tiny_ovis(source, dtype=torch.bfloat16, sharded=sharded)
    new = {name: tensor.float() for name, tensor in changed(source).items()}
    write_prefixed(source, tmp_path / "same", new)
    write_prefixed(source, tmp_path / "wide", new, dtype=torch.float32)
    same, wide = read_prefix(tmp_path / "same", BACKBONE), read_prefix(tmp_path / "wide", BACKBONE)
    assert {t.dtype for t in same.values()} == {torch.bfloat16}
    assert {t.dtype for t in wide.values()} == {torch.float32}
    assert {t.dtype for t in read_prefix(tmp_path / "wide", VAE).values()} == {torch.bfloat16}
    if sharded:
        sizes = [
            json.loads((tmp_path / name / INDEX).read_text())["metadata"]["total_size"]
            for name in ("source", "same", "wide")
        ]
        assert sizes[1] == sizes[0]
        assert sizes[2] == sizes[0] + 2 * 109_616


def test_transposed_and_shared_tensors_are_written(released: Path, tmp_path: Path) -> None:
    name = f"{BACKBONE}time_in.out_layer.weight"
    other = f"{BACKBONE}vector_in.out_layer.weight"
    square = torch.randn(32, 32).t().requires_grad_(True)
    write_prefixed(released, tmp_path / "new", {name: square, other: square})
    found = read_prefix(tmp_path / "new", BACKBONE)
    assert torch.equal(found["time_in.out_layer.weight"], square)
    assert torch.equal(found["vector_in.out_layer.weight"], square)


def test_where_links_cannot_be_files_are_copied(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    write_prefixed(released, tmp_path / "new", {})
    assert not (tmp_path / "new" / THIRD).samefile(released / THIRD)
    assert (tmp_path / "new" / THIRD).read_bytes() == (released / THIRD).read_bytes()


def test_links_of_the_hub_s_cache_are_followed(released: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in released.iterdir():
        (snapshot / file.name).symlink_to(file)
    write_prefixed(snapshot, tmp_path / "new", changed(snapshot))
    assert not any(file.is_symlink() for file in (tmp_path / "new").iterdir())
    assert torch.equal(
        read_prefix(tmp_path / "new", VAE)["quant_conv.bias"],
        read_prefix(released, VAE)["quant_conv.bias"],
    )


def test_a_target_with_content_is_refused(released: Path, tmp_path: Path) -> None:
    for target in (released, released / "config.json"):
        with pytest.raises(UserError, match="exists and is not empty"):
            write_prefixed(released, target, {})


def test_tensors_that_do_not_fit_are_named_and_nothing_is_written(
    released: Path, tmp_path: Path
) -> None:
    name = f"{BACKBONE}img_in.bias"
    with pytest.raises(UserError, match=r"has no tensor visual_generator\.backbone\.new"):
        write_prefixed(released, tmp_path / "new", {f"{BACKBONE}new": torch.zeros(1)})
    with pytest.raises(UserError, match=rf"{name}: the new one is \(31,\), that of .* \(32,\)"):
        write_prefixed(released, tmp_path / "new", {name: torch.zeros(31)})
    assert [f.name for f in tmp_path.iterdir()] == ["released"]


def test_a_write_that_fails_leaves_nothing(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("sdpo_exp.models.yak.checkpoint.save_file", full)
    with pytest.raises(OSError, match="no space left"):
        write_prefixed(released, tmp_path / "new", changed(released))
    assert [f.name for f in tmp_path.iterdir()] == ["released"]


def test_a_broken_source_is_told_by_file(released: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of its tensors is named llm\.\*"):
        read_prefix(released, "llm.")
    with pytest.raises(UserError, match=r"has neither model\.safetensors nor"):
        read_prefix(tmp_path, BACKBONE)
    shard = load_file(released / FIRST)
    gone = next(iter(shard))
    save_file({name: t for name, t in shard.items() if name != gone}, released / FIRST)
    with pytest.raises(UserError, match=f"{FIRST}: has no tensor {gone}"):
        read_prefix(released, BACKBONE)
    with pytest.raises(UserError, match=f"{FIRST}: has no tensor {gone}"):
        write_prefixed(released, tmp_path / "new", {gone: shard[gone]})
    (released / FIRST).write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match=f"{FIRST}: cannot be read"):
        read_prefix(released, BACKBONE)
    (released / FIRST).unlink()
    with pytest.raises(UserError, match=f"{FIRST}: is missing, though {INDEX} names it"):
        read_prefix(released, BACKBONE)
    (released / INDEX).write_text("{}")
    with pytest.raises(UserError, match="has no weight_map"):
        read_prefix(released, VAE)


def test_a_configuration_without_a_generator_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(UserError, match="has no visual_generator_config"):
        read_config(tmp_path)
    broken = {"visual_generator_config": TINY | {"axes_dim": [4, 4, 4]}}
    (tmp_path / "config.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match="visual_generator_config: axes_dim"):
        read_config(tmp_path)
