"""Ovis-U1 by its hub id, and what is told of a folder that is broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from sdpo_exp import hub
from sdpo_exp.cli.checkpoints.model_choice import ModelChoice, absent, open_model, problems
from sdpo_exp.cli.checkpoints.pipelines import load_pipeline
from sdpo_exp.errors import UserError
from sdpo_exp.models import ovis_files
from sdpo_exp.models.ovis_pipeline import OvisU1Pipeline
from tests.checkpoints import cache_folder
from tests.models.ovis_u1.folder import write

ID = "AIDC-AI/Ovis-U1-3B"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    write(cache_folder(tmp_path / "hub", ID))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for remembered in (hub._unreachable, hub._no_answer):
        remembered.cache_clear()
    yield tmp_path
    for remembered in (hub._unreachable, hub._no_answer):
        remembered.cache_clear()


def test_a_hub_id_is_its_snapshot_with_its_commit(root: Path) -> None:
    choice = ModelChoice(ID)
    assert problems(choice) == absent(choice) == []
    opened = open_model(choice, "cpu")
    assert isinstance(opened.pipeline, OvisU1Pipeline)
    assert opened.identity["commit"] == "0123456789abcdef0123456789abcdef01234567"
    assert set(opened.identity["parts"]) == {"transformer", "vae", "text_encoder"}
    same = open_model(ModelChoice(str(write(root / "local"))), "cpu")
    assert same.identity["weights"] == opened.identity["weights"]
    other = open_model(ModelChoice(str(write(root / "other", seed=1))), "cpu")
    assert other.identity["weights"] != opened.identity["weights"]


def test_a_snapshot_without_a_shard_is_not_whole(root: Path) -> None:
    shard = next((root / "hub").rglob("model-00002*.safetensors"))
    shard.unlink()
    (told,) = absent(ModelChoice(ID))
    assert f"checkpoint: model {ID}" in told
    assert "not wholly, in the hub's cache" in told
    local = write(root / "local")
    (local / shard.name).unlink()
    with pytest.raises(UserError, match=f"cannot be loaded: {shard.name} is missing"):
        load_pipeline(local)


def test_of_a_repository_no_code_is_fetched() -> None:
    files = ["config.json", "modeling_ovis_u1.py", "model-00001-of-00002.safetensors", "vocab.json",
             "merges.txt", "docs/picture.png"]  # fmt: skip
    wanted = ovis_files.wanted(files)
    assert wanted == ["config.json", "model-00001-of-00002.safetensors", "vocab.json", "merges.txt"]


def test_a_folder_of_another_kind_is_none_of_it(root: Path) -> None:
    local = write(root / "local")
    assert ovis_files.is_released(local)
    (local / "config.json").write_text("{")
    assert not ovis_files.is_released(local)
    shutil.rmtree(local)
    assert not ovis_files.is_released(local)
