"""What is not here is told by the class that would load it, for the groups that are asked about."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config.sources import absent_sources

PAIRS = "sdpo_exp.data.folder.FolderPairs"
PICKSCORE = "sdpo_exp.metrics.pick_score.PickScore.from_pretrained"
EXACT = "sdpo_exp.testbed.scorer.ExactScorer"


def config(folder: Path) -> DictConfig:
    def score(name: str) -> dict[str, str]:
        place = str(folder / name)
        return {
            "_target_": PICKSCORE,
            "source": place,
            "tokenizer": str(folder),
            "device": "${device}",
        }

    (folder / "vocab.json").touch()
    return OmegaConf.create(
        {
            "device": "cpu",
            "metric": {
                "one": score("one"),
                "other": score("other"),
                "again": score("one"),
                "exact": {"_target_": EXACT},
                "foreign": {"_target_": "torch.nn.Linear"},
            },
            "prompts": {"_target_": PAIRS, "path": str(folder / "photos")},
            "evaluation": None,
        }
    )


def test_a_classmethods_class_is_asked_and_each_absence_is_told_once(tmp_path: Path) -> None:
    found = absent_sources(config(tmp_path), ("metric",))
    assert len(found) == 2
    for line, name in zip(found, ("one", "other"), strict=True):
        assert str(tmp_path / name) in line


def test_only_the_groups_asked_for_are_looked_at(tmp_path: Path) -> None:
    (line,) = absent_sources(config(tmp_path), ("prompts", "evaluation", "model"))
    assert str(tmp_path / "photos") in line
    assert len(absent_sources(config(tmp_path), ("metric", "prompts"))) == 3


@pytest.mark.parametrize("groups", [("model",), ()])
def test_a_group_that_is_not_there_lacks_nothing(groups: tuple[str, ...], tmp_path: Path) -> None:
    assert absent_sources(config(tmp_path), groups) == []
