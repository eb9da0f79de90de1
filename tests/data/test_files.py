"""Which files are a split, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo_exp.data.files import absent_table, find_table, missing_files, split_files
from sdpo_exp.errors import UserError

HUB = [
    "README.md",
    "data/train-00000-of-00002-ab.parquet",
    "data/train-00001-of-00002-cd.parquet",
    "data/validation-00000-of-00001-ef.parquet",
    "data/validation_unique-00000-of-00001-aa.parquet",
]


def test_the_hubs_names() -> None:
    assert split_files(HUB, "train") == HUB[1:3]
    assert split_files(HUB, "validation") == HUB[3:4]
    assert split_files(HUB, "validation_unique") == HUB[4:]
    assert split_files(HUB, "test") == []


def test_folders_and_plain_names() -> None:
    files = ["train/b.parquet", "train/a.parquet", "test/a.parquet"]
    assert split_files(files, "train") == ["train/a.parquet", "train/b.parquet"]
    assert split_files(["train.csv", "test.csv"], "test") == ["test.csv"]
    assert split_files(["x/train.csv", "y/train.csv"], "train", "y") == ["y/train.csv"]


def test_files_that_name_no_split_are_the_training_split() -> None:
    assert split_files(["b.jsonl", "a.jsonl", "notes.txt"], "train") == ["a.jsonl", "b.jsonl"]
    assert split_files(["a.jsonl"], "validation") == []
    assert split_files(["a.csv", "test.csv"], "train") == []


def test_missing_files_of_a_numbered_split_are_noticed() -> None:
    assert missing_files(split_files(HUB, "train")) is None
    assert missing_files(["a.parquet"]) is None
    assert missing_files(HUB[1:2]) == f"only 1 of 2 files of the split are here ({HUB[1]})"


def test_a_lone_file_is_its_training_split(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").touch()
    found = find_table(str(tmp_path / "pairs.csv"), None, None, "train")
    assert found == ([str(tmp_path / "pairs.csv")], "csv", tmp_path)
    with pytest.raises(UserError, match=r"no file of the split validation. It has pairs.csv"):
        find_table(str(tmp_path / "pairs.csv"), None, None, "validation")


def test_files_in_two_formats_are_told(tmp_path: Path) -> None:
    for name in ("train-0.csv", "train-1.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"several formats: train-0.csv, train-1.jsonl"):
        find_table(str(tmp_path), None, None, "train")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no table in it; looked for .parquet"),
        (["notes.txt"], "no table in it; looked for .parquet"),
        (["test.csv"], "no file of the split train. It has test.csv. Files are matched by name"),
        (["train-00000-of-00003.parquet"], "only 1 of 3 files of the split are here"),
    ],
)
def test_absence_is_told_in_the_same_words_as_failure(
    tmp_path: Path, names: list[str], words: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    told = absent_table(str(tmp_path), None, None, "train")
    assert told is not None
    assert words in told
    assert "\n" not in told
    with pytest.raises(UserError) as caught:
        find_table(str(tmp_path), None, None, "train")
    assert str(caught.value) == told


def test_what_is_there_is_not_absent(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    assert absent_table(str(tmp_path), None, None, "train") is None
    assert absent_table(str(tmp_path / "train.csv"), None, None, "train") is None


def test_an_id_that_is_not_here_is_told_how_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = absent_table("nobody/no_such_pairs", None, None, "train")
    assert told is not None
    assert "nobody/no_such_pairs" in told
    assert "hf download nobody/no_such_pairs --repo-type dataset" in told
    assert "data.train.path" in told
