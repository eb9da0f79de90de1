"""Prompt sets in the public lists' layouts, made up, and a place of their own for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from sdpo_exp import hub
from sdpo_exp.config import conf_dir
from sdpo_exp.config.check import check_node
from sdpo_exp.data.prompt_sets import FilePrompts

CONF = conf_dir() / "prompts"
PUBLIC = ("papv2", "hpsv2", "partiprompts")
STYLES = ("anime", "concept-art", "paintings", "photo")


def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, which is returned, a hub that is not asked, and a user's cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(hub, "_unreachable", hub._unreachable.__wrapped__)  # remembers nothing
    return tmp_path / "hub"


def node(choice: str, **changes: Any) -> DictConfig:
    """`conf/prompts/<choice>.yaml` with other values."""
    config = OmegaConf.load(CONF / f"{choice}.yaml")
    assert isinstance(config, DictConfig)
    for key, value in changes.items():
        config[key] = value
    return config


def built(choice: str, **changes: Any) -> FilePrompts:
    config = node(choice, **changes)
    assert list(check_node(config, "prompts")) == []
    made: FilePrompts = instantiate(config)
    return made


def absent(choice: str, **changes: Any) -> str | None:
    arguments: Any = OmegaConf.to_container(node(choice, **changes))
    del arguments["_target_"]
    return FilePrompts.absent(**arguments)


def constructed(config: DictConfig) -> Any:
    """Without Hydra's wrapping of what the constructor raises."""
    arguments: Any = OmegaConf.to_container(config)
    del arguments["_target_"]
    return FilePrompts(**arguments)


def write_papv2(folder: Path, captions: list[str]) -> None:
    """As the hub has it: several splits of Pick-a-Pic, without images."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, values in (("test", ["x"]), ("test_unique", captions), ("validation_unique", ["y"])):
        table = pa.table({"caption": values, "label_0": [0.5] * len(values)})
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001-0123456789abcdef.parquet")


def write_hpsv2(folder: Path, each: int) -> list[str]:
    (folder / "benchmark" / "drawbench").mkdir(parents=True)
    (folder / "benchmark" / "drawbench.json").write_text('["drawn"]')
    for style in STYLES:
        prompts = [f" {style} {i}" for i in range(each)]
        (folder / "benchmark" / f"{style}.json").write_text(json.dumps(prompts))
    return [f" {style} {i}" for style in STYLES for i in range(each)]


def write_parti(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "PartiPrompts.tsv").write_text(
        "Prompt\tCategory\tChallenge\tNote\n"
        "bond\tAbstract\tBasic\tBiology\n"
        "a snail \tAnimals\tBasic\t\n"
    )
