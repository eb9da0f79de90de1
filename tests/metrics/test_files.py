"""Files of the scorers: found or not, named by what is in them, and asked for in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from sdpo_exp import hub
from sdpo_exp.errors import UserError
from sdpo_exp.metrics import files
from tests.checkpoints import cache_folder

KEY = "metric.some.source"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty hub cache, and a hub that is not asked."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub._unreachable.cache_clear()
    yield tmp_path / "hub"
    hub._unreachable.cache_clear()


def test_a_digest_is_compared_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()
    files.check_sha256(file, right)
    with pytest.raises(UserError, match="not the released file"):
        files.check_sha256(file, right[:-1] + "0")


def test_the_first_of_several_names_is_taken(tmp_path: Path) -> None:
    for name in ("b", "c"):
        (tmp_path / name).touch()
    assert files.locate_file(str(tmp_path), None, ("a", "b", "c")) == tmp_path / "b"
    assert files.locate_file(str(tmp_path / "c"), None, ("a",)) == tmp_path / "c"


def test_an_id_is_found_in_the_hubs_cache_or_told_how_to_fetch(cache: Path) -> None:
    snapshot = cache_folder(cache, "some/scorer")
    with pytest.raises(UserError, match=r"some/scorer: .* has no a\.pt"):
        files.locate_file("some/scorer", None, ("a.pt",))
    (snapshot / "a.pt").touch()
    assert files.locate_file("some/scorer", None, ("a.pt",)) == snapshot / "a.pt"
    with pytest.raises(UserError, match="hf download some/absent-scorer"):
        files.locate_file("some/absent-scorer", None, ("a.pt",))


def test_what_is_there_is_not_absent(cache: Path, tmp_path: Path) -> None:
    groups = (("config.json",), ("a.bin", "b.bin"))
    for folder in (tmp_path / "own", cache_folder(cache, "some/scorer")):
        folder.mkdir(exist_ok=True)
        for name in ("config.json", "b.bin"):
            (folder / name).touch()
    for source in (str(tmp_path / "own"), "some/scorer"):
        assert files.absent(KEY, source, None, groups) is None
    assert files.absent(KEY, str(tmp_path / "own" / "b.bin"), None, [("a.bin",)]) is None


def test_both_ways_out_are_told(cache: Path) -> None:
    cache_folder(cache, "some/scorer")
    groups = (("config.json",), ("a.bin", "b.bin"))
    for source in ("some/scorer", "some/absent-scorer"):
        line = str(files.absent(KEY, source, "v1", groups))
        assert line.startswith(f"{KEY}: model {source}: it is not, or not wholly, in the hub's cac")
        assert f"`hf download {source} --revision v1`" in line
        assert "(needed: config.json, a.bin or b.bin)" in line
        assert line.endswith(f"or give a local folder: {KEY}=/path/to/folder")


def test_what_a_local_folder_lacks_is_named(tmp_path: Path) -> None:
    groups = (("config.json",), ("a.bin", "b.bin"))
    (tmp_path / "config.json").touch()
    assert files.absent(KEY, str(tmp_path), None, groups) == (
        f"{KEY}={tmp_path}: has no a.bin and no b.bin"
    )
    assert files.absent_tokenizer(KEY, str(tmp_path)) == (
        f"{KEY}={tmp_path}: has no tokenizer.json and no vocab.json and no vocab.txt"
    )
    file = tmp_path / "config.json"
    assert files.absent(KEY, str(file), None, groups) == f"{KEY}={file}: is no folder"


def test_lines_are_put_together() -> None:
    assert files.together(None, None) is None
    assert files.together("a", None, "b") == "a\nb"


def test_a_model_comes_from_a_source_a_commit_and_files(cache: Path, tmp_path: Path) -> None:
    snapshot = cache_folder(cache, "some/scorer")
    for folder in (snapshot, tmp_path):
        (folder / "a.bin").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    found = files.origin("some/scorer", snapshot / "a.bin")
    assert found == {
        "source": "some/scorer",
        "commit": snapshot.name,
        "sha256": {"a.bin": digest},
    }
    assert json.loads(json.dumps(found)) == found
    assert files.origin(str(tmp_path), tmp_path / "a.bin")["commit"] is None
    both = files.origin_with_tokenizer(str(tmp_path), tmp_path / "a.bin", "some/scorer", snapshot)
    words = {"source": "some/scorer", "commit": snapshot.name}
    assert both == {**files.origin(str(tmp_path), tmp_path / "a.bin"), "tokenizer": words}


@pytest.mark.parametrize(("blob", "is_taken"), [("5" * 64, True), ("5" * 40, False)])
def test_a_digest_that_the_cache_knows_is_not_computed_again(
    blob: str, is_taken: bool, cache: Path
) -> None:
    snapshot = cache_folder(cache, "some/scorer")
    stored = snapshot.parents[1] / "blobs" / blob
    stored.parent.mkdir()
    stored.write_bytes(b"abc")
    (snapshot / "a.bin").symlink_to(stored)
    computed = hashlib.sha256(b"abc").hexdigest()
    assert files.sha256(snapshot / "a.bin") == (blob if is_taken else computed)
    # What must be the released file is read whatever the cache says.
    with pytest.raises(UserError, match=f"sha256 {computed}"):
        files.check_sha256(snapshot / "a.bin", blob)
