"""Prompts that are not there are told early, with the command that fetches them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo_exp import hub
from sdpo_exp.data.prompt_sets import FilePrompts
from sdpo_exp.errors import UserError
from tests.checkpoints import cache_folder
from tests.data.prompt_layouts import PUBLIC, absent, constructed, node, own_caches, write_hpsv2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_caches(tmp_path, monkeypatch)


LACKING = {
    "papv2": ("yuvalkirstain/pickapic_v2_no_images", "--include '*test_unique-*.parquet'"),
    "hpsv2": ("zhwang/HPDv2", "--include '*anime.json' --include '*concept-art.json'"),
    "partiprompts": ("nateraw/parti-prompts", "--include '*PartiPrompts.tsv'"),
}


@pytest.mark.parametrize("choice", PUBLIC)
def test_an_absent_set_is_told_with_the_command_that_fetches_it(choice: str) -> None:
    source, options = LACKING[choice]
    message = str(absent(choice))
    assert "\n" not in message
    assert f"dataset {source}: it is not, or not wholly, in the hub's cache" in message
    assert f"`hf download {source} --repo-type dataset` (add {options}" in message
    assert message.endswith("no more is needed); or give a local copy: prompts.path=/path/to/file")
    with pytest.raises(UserError) as caught:
        constructed(node(choice))
    assert str(caught.value) == message


def test_half_a_snapshot_is_absent(cache: Path) -> None:
    folder = cache_folder(cache, "zhwang/HPDv2", "dataset")
    write_hpsv2(folder, 1)
    (folder / "benchmark" / "photo.json").unlink()
    assert "or not wholly" in str(absent("hpsv2"))
    with pytest.raises(UserError, match=r"zhwang/HPDv2: no file photo.json in it"):
        constructed(node("hpsv2"))


@pytest.mark.parametrize(
    ("files", "names", "words"),
    [
        (None, [], "no file of prompts in it; they are read from .json,"),
        (
            None,
            ["a.json", "x/b.csv"],
            "2 files of prompts in it (a.json, x/b.csv); choose by prompts",
        ),
        (["c.json"], ["a.json"], "no file c.json in it"),
        (["a.json"], ["x/a.json", "y/a.json"], "two files a.json in it: x/a.json and y/a.json"),
        (["a-*.csv"], ["a-00000-of-00002.csv"], "only 1 of 2 files of the split are here"),
    ],
)
def test_a_folder_that_lacks_files_is_told_early_and_late(
    tmp_path: Path, files: list[str] | None, names: list[str], words: str
) -> None:
    folder = tmp_path / "p"
    for name in ("notes.md", *names):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).touch()
    message = str(FilePrompts.absent(path=str(folder), files=files))
    assert message.startswith(f"{folder}: {words}")
    with pytest.raises(UserError) as caught:
        FilePrompts(str(folder), files=files)
    assert str(caught.value) == message


def test_a_file_that_is_not_there_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    for path in ("prompts/mine.json", str(tmp_path / "mine.TXT")):
        message = str(absent("file", path=path))
        assert message == f"{path}: no such file (in {Path.cwd()})"
        with pytest.raises(UserError, match="no such file"):
            FilePrompts(path)
    (tmp_path / "mine.docx").touch()
    assert "mine.docx: prompts are read from" in str(
        absent("file", path=str(tmp_path / "mine.docx"))
    )
    words = "it is no folder, and no hub id (owner/name) either; or give a local copy"
    assert words in str(absent("file", path="no/such/folder"))


def test_of_a_hub_dataset_no_more_is_fetched_than_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hpsv2(tmp_path, 1)
    there = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")]
    fetched: list[str] = []

    def locate(source: str, kind: str, revision: str | None, wanted: hub.Wanted) -> Path:
        fetched.extend(wanted([*there, "README.md", "benchmark/benchmark_imgs/CM.tar.gz"]))
        return tmp_path

    monkeypatch.setattr(hub, "locate", locate)
    FilePrompts("owner/name", files={"a": "anime.json", "p": "photo.json"})
    assert fetched == ["benchmark/anime.json", "benchmark/photo.json"]
    for files, words in ((None, "5 files of prompts in it"), (["anime.txt"], "no file anime.txt")):
        with pytest.raises(UserError, match=f"owner/name: {words}"):
            FilePrompts("owner/name", files=files)
    assert len(fetched) == 2
