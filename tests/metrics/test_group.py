"""The configuration group: every choice builds its scorer from files in the released layout."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from sdpo_exp import hub
from sdpo_exp.cli.evaluate.scorers import build_scorers
from sdpo_exp.config import conf_dir
from sdpo_exp.config.check import check_node
from sdpo_exp.config.sources import absent_sources
from sdpo_exp.errors import UserError
from sdpo_exp.metrics.aesthetic import HEAD_FILE
from tests.checkpoints import cache_folder
from tests.metrics import stand_ins
from tests.metrics.small import PROMPTS, images

TINY = ("tiny_accuracy", "tiny_reward")
CHOICES = sorted(path.stem for path in (conf_dir() / "metric").glob("*.yaml"))
PAGE = "https://github.com/christophschuhmann/improved-aesthetic-predictor"


def composed(*names: str, device: str | None = "cpu", **changes: Any) -> DictConfig:
    """What a command with this group has: `device` at its root, and `metric`."""
    files = [OmegaConf.load(conf_dir() / "metric" / f"{name}.yaml") for name in names]
    config = OmegaConf.create({"device": device} if device else {})
    config.metric = OmegaConf.merge({}, *files)
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    return config


def test_the_group_is_the_published_metrics_and_the_embedded_worlds() -> None:
    assert sorted([*stand_ins.ALL, *TINY]) == CHOICES


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_holds_its_own_key_and_passes_the_check(name: str) -> None:
    config = composed(name)
    assert list(config.metric) == [name]
    assert list(check_node(config.metric, "metric")) == []


def test_choices_stand_side_by_side_and_mistakes_are_told() -> None:
    config = composed(*CHOICES)
    assert sorted(config.metric) == CHOICES
    config.metric.pickscore.sorce = "elsewhere"
    config.metric.hpsv2.version = "v3"
    config.metric.tiny_reward.part = "beauty"
    config.metric.clip.revision = 3
    problems = sorted(check_node(config.metric, "metric"))
    assert [problem.split(":")[0] for problem in problems] == [
        "metric.clip.revision",
        "metric.hpsv2.version",
        "metric.pickscore.sorce",
        "metric.tiny_reward.part",
    ]
    assert "did you mean 'source'?" in problems[2]


@pytest.mark.parametrize("name", stand_ins.ALL)
def test_a_file_says_all_that_can_be_set_and_as_the_class_has_it(name: str) -> None:
    node = composed(name).metric[name]
    parameters = inspect.signature(get_object(node["_target_"])).parameters
    assert [key for key in node if key != "_target_"] == list(parameters)
    for key, parameter in parameters.items():
        if key not in ("device", "version"):
            assert node[key] == parameter.default, key


@pytest.mark.parametrize("name", stand_ins.ALL)
@pytest.mark.parametrize(("root", "expected"), [("cuda", "cuda"), (None, "auto")])
def test_a_scorer_computes_where_the_command_does(
    name: str, root: str | None, expected: str
) -> None:
    config = composed(name, device=root)
    assert config.metric[name].device == expected
    assert list(check_node(config.metric, "metric")) == []


@pytest.mark.parametrize("name", TINY)
def test_the_exact_scores_need_no_device(name: str) -> None:
    (scorer,) = build_scorers(composed(name, device=None).metric)
    assert scorer.name == name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty hub cache, and a hub that is not asked."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub._unreachable.cache_clear()
    yield tmp_path / "hub"
    hub._unreachable.cache_clear()


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_every_choice_builds_its_scorer_from_released_files(cache: Path, device: str) -> None:
    if device == "auto" and torch.cuda.is_available():
        pytest.skip("auto is CUDA here, whose sums are not bitwise the CPU's")
    head = stand_ins.fill(cache)
    changes = {"metric__aesthetic__head": str(head), "metric__aesthetic__head_sha256": None}
    config = composed(*stand_ins.ALL, device=device, **changes)
    assert absent_sources(config, ("metric",)) == []
    for name, scorer in zip(stand_ins.ALL, build_scorers(config.metric), strict=True):
        found = scorer.score(images(), PROMPTS)
        assert torch.equal(found, stand_ins.IN_MEMORY[name]().score(images(), PROMPTS))
        assert scorer.name == name


FILES = {
    "pickscore": {"model.safetensors"},
    "clip": {"open_clip_model.safetensors"},
    "hpsv2": {"HPS_v2_compressed.pt"},
    "hpsv21": {"HPS_v2.1_compressed.pt"},
    "aesthetic": {"model.safetensors", HEAD_FILE},
    "imagereward": {"ImageReward.pt"},
}


def test_a_scorer_says_where_it_comes_from(cache: Path) -> None:
    head = stand_ins.fill(cache)
    commit = cache_folder(cache, "any/other").name
    changes = {"metric__aesthetic__head": str(head), "metric__aesthetic__head_sha256": None}
    config = composed(*stand_ins.ALL, **changes)
    scorers: Any = build_scorers(config.metric)
    for name, scorer in zip(stand_ins.ALL, scorers, strict=True):
        origin = json.loads(json.dumps(scorer.origin))
        assert (origin["source"], origin["commit"]) == (config.metric[name].source, commit)
        assert set(origin["sha256"]) == FILES[name]
        assert all(len(digest) == 64 for digest in origin["sha256"].values())
        if "tokenizer" in config.metric[name]:
            source = config.metric[name].tokenizer
            assert origin["tokenizer"] == {"source": source, "commit": commit}
    assert stand_ins.IN_MEMORY["clip"]().origin == {}  # type: ignore[attr-defined]


ABSENT = {
    "pickscore": {"source": stand_ins.PICKSCORE, "tokenizer": stand_ins.LAION},
    "clip": {"source": stand_ins.LAION},
    "hpsv2": {"source": stand_ins.HPS},
    "hpsv21": {"source": stand_ins.HPS},
    "imagereward": {"source": stand_ins.IMAGE_REWARD, "tokenizer": stand_ins.BERT},
}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ABSENT)
def test_what_is_absent_is_told_with_both_ways_out(name: str) -> None:
    lines = absent_sources(composed(name), ("metric",))
    for line, (key, source) in zip(lines, ABSENT[name].items(), strict=True):
        assert line.startswith(f"metric.{name}.{key}: ")
        assert f"`hf download {source}`" in line
        assert line.endswith(f"metric.{name}.{key}=/path/to/folder")


@pytest.mark.usefixtures("cache")
def test_the_aesthetic_head_is_asked_for_once_with_its_page() -> None:
    assert list(check_node(composed("aesthetic").metric, "metric")) == []
    head, tower = absent_sources(composed("aesthetic"), ("metric",))
    assert head.startswith("metric.aesthetic.head: a value is required")
    assert PAGE in head
    assert f"`hf download {stand_ins.AESTHETIC}`" in tower
    assert PAGE in (conf_dir() / "metric" / "aesthetic.yaml").read_text()


@pytest.mark.parametrize("name", stand_ins.ALL)
def test_what_is_given_locally_and_lacks_files_is_told_before_anything_is_loaded(
    name: str, tmp_path: Path
) -> None:
    changes = {f"metric__{name}__source": str(tmp_path)}
    lines = absent_sources(composed(name, **changes), ("metric",))
    assert f"metric.{name}.source={tmp_path}: has no" in "\n".join(lines)


def test_the_other_hps_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "HPS_v2.1_compressed.pt"
    file.touch()
    (line,) = absent_sources(composed("hpsv2", metric__hpsv2__source=str(file)), ("metric",))
    assert line == f"{file}: by its name HPS v2.1, but version=v2.0 is asked"
    assert absent_sources(composed("hpsv21", metric__hpsv21__source=str(file)), ("metric",)) == []


@pytest.mark.parametrize(("device", "message"), [("gpu", "gpu"), ("cuda:99", "device=cuda:99")])
def test_a_device_that_is_not_there_is_told(device: str, message: str, cache: Path) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("torch itself counts the devices")
    stand_ins.fill(cache)
    with pytest.raises(UserError, match=message):
        next(build_scorers(composed("clip", device=device).metric))
