"""Scores come back from files as they were; what is no table of scores is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdpo_exp.errors import UserError
from sdpo_exp.evaluation.comparison import ImageKey, PromptKey, Score
from sdpo_exp.evaluation.manifests import image_path
from sdpo_exp.evaluation.scores import (
    SCORES_FILE,
    ScoreTable,
    read_manifest_scores,
    read_scores,
    write_scores,
)

IMAGES = [ImageKey("mine", 0, 0), ImageKey("mine", 0, 1), ImageKey("mine", 3, 0)]
TEXTS = {PromptKey("mine", 0): " a cat, 'sitting' ", PromptKey("mine", 3): "犬"}
TABLE = ScoreTable(
    {
        "reward": [Score(image, value) for image, value in zip(IMAGES, (0.5, -1, 3), strict=True)],
        "clip": [Score(image, 0.25) for image in IMAGES],
    },
    TEXTS,
    {"category": {PromptKey("mine", 3): "animals"}},
)


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    write_scores(tmp_path / SCORES_FILE, TABLE)
    assert read_scores(tmp_path / SCORES_FILE) == TABLE
    assert [file.name for file in tmp_path.iterdir()] == [SCORES_FILE]


def test_scores_are_float32_on_disk_and_float64_of_others_stays(tmp_path: Path) -> None:
    one = ScoreTable({"reward": [Score(IMAGES[0], 0.1)]}, TEXTS, {})
    write_scores(tmp_path / SCORES_FILE, one)
    (found,) = read_scores(tmp_path / SCORES_FILE).scores["reward"]
    assert found.value == float(np.float32(0.1))
    (found,) = read_scores(foreign(tmp_path, score=pa.array([0.1]))).scores["reward"]
    assert found.value == 0.1


def foreign(folder: Path, **columns: Any) -> Path:
    """A table of one row by somebody else; a column given as None is left out."""
    row: dict[str, Any] = {
        "set": ["mine"], "index": [0], "seed": [0], "prompt": ["cat"], "metric": ["reward"],
        "score": [0.5],
    }  # fmt: skip
    row = {name: cells for name, cells in {**row, **columns}.items() if cells is not None}
    pq.write_table(pa.table(row), folder / "foreign.parquet")
    return folder / "foreign.parquet"


def test_only_columns_of_texts_are_labels(tmp_path: Path) -> None:
    found = read_scores(
        foreign(tmp_path, style=pa.array(["ink"]).dictionary_encode(), height=[512], challenge=[""])
    )
    assert found.labels == {"style": {PromptKey("mine", 0): "ink"}, "challenge": {}}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"seed": None, "metric": None}, "not a table of scores: no column seed, metric"),
        ({"index": ["first"]}, "not a table of scores (Failed to parse"),
        ({"score": pa.array([None], pa.float32())}, "empty cells in score"),
        ({name: pa.array([], pa.string()) for name in ("set", "prompt", "metric")}
         | {name: pa.array([], pa.int64()) for name in ("index", "seed", "score")}, "has no rows"),
    ],
    ids=["column", "type", "empty", "rows"],
)  # fmt: skip
def test_a_table_of_something_else_is_refused(
    tmp_path: Path, columns: dict[str, Any], words: str
) -> None:
    file = foreign(tmp_path, **columns)
    with pytest.raises(UserError) as caught:
        read_scores(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert words in str(caught.value)


def test_what_is_no_table_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("hello")
    with pytest.raises(UserError, match="a: cannot be read as scores"):
        read_scores(tmp_path / "a")


def test_a_prompt_has_one_text(tmp_path: Path) -> None:
    two = {"set": ["mine"] * 2, "index": [7] * 2, "seed": [0, 1], "metric": ["reward"] * 2}
    file = foreign(tmp_path, **two, prompt=["cat", "dog"], score=[0.0, 0.0])
    with pytest.raises(UserError, match="prompt 7 of set mine has two texts, 'cat' and 'dog'"):
        read_scores(file)


def manifest(folder: Path, *entries: Any) -> Path:
    file = folder / "sd15.json"
    file.write_text(json.dumps(list(entries)))
    return file


def entry(prompt: Any = "cat", path: Any = "0.png", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "gen_image_path": path, "raw_image_path": "", **more}


def values(file: Path, *fields: str) -> dict[str, list[float]]:
    found = read_manifest_scores(file, fields).table.scores
    return {metric: [score.value for score in scores] for metric, scores in found.items()}


def test_scores_of_a_manifest_are_those_said_to_be_scores(tmp_path: Path) -> None:
    file = manifest(
        tmp_path,
        entry(scores={"clip": 1, "note": "x", "sure": True}, image_reward_score=0.5, seed=3,
              reward=2.0, metadata={"steps": 50, "beauty": 5.5}),
    )  # fmt: skip
    assert values(file) == {"image_reward_score": [0.5], "clip": [1.0]}
    assert values(file, "beauty", "reward", "gone") == {
        "image_reward_score": [0.5], "beauty": [5.5], "reward": [2.0], "clip": [1.0],
    }  # fmt: skip
    assert read_manifest_scores(file).numbers == ("steps", "beauty", "reward")


def test_entries_count_as_in_the_public_scripts(tmp_path: Path) -> None:
    file = manifest(
        tmp_path,
        entry(7), entry("owl", None), entry("owl", ["", None]), {"gen_image_path": "1.png"},
        entry("cat", ["", "a.png"], scores={"clip": 1.0}, metadata={"category": "pet", "n": 3}),
        entry("cat", scores={"clip": 2.0}, metadata=None),
    )  # fmt: skip
    found = read_manifest_scores(file)
    assert (found.dropped, found.by_index) == (4, False)
    first, second = ImageKey("sd15", 0, 0), ImageKey("sd15", 1, 0)
    assert found.table == ScoreTable(
        {"clip": [Score(first, 1.0), Score(second, 2.0)]},
        {PromptKey("sd15", 0): "cat", PromptKey("sd15", 1): "cat"},
        {"category": {PromptKey("sd15", 0): "pet"}},
    )


def test_a_manifest_of_our_own_knows_its_images(tmp_path: Path) -> None:
    where = {"set": "mine", "index": 5, "seed": 2}
    found = read_manifest_scores(manifest(tmp_path, entry(**where, scores={"clip": 1.0})))
    assert found.by_index
    assert found.table.scores["clip"] == [Score(ImageKey("mine", 5, 2), 1.0)]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "no entry with a prompt and the path of an image"),
        (["cat"], "no manifest; one is a JSON list of objects"),
        ([entry(scores={"clip": 1.0}), entry()], "entry 1 has no clip, and others do"),
        ([entry(set="a", index="x", seed=0)], "entry 0: index and seed must be whole numbers"),
    ],
    ids=["none", "list", "gap", "key"],
)
def test_a_manifest_that_cannot_be_used_is_told(
    tmp_path: Path, entries: list[Any], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_manifest_scores(manifest(tmp_path, *entries))
    assert words in str(caught.value)


def test_broken_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[{")
    with pytest.raises(UserError, match=r"x\.json: cannot be read as a manifest"):
        read_manifest_scores(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("value", "path"),
    [("a", "a"), (["", "b", "c"], "b"), ([], None), ("", None), (None, None), ([1], None)],
)
def test_the_path_of_an_image(value: Any, path: str | None) -> None:
    assert image_path(value) == path
