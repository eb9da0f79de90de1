"""A list of prompts that is not what it was is told once, and a broken note stops nobody."""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
from pathlib import Path

import pytest

from sdpo_exp.data import prompt_hashes
from sdpo_exp.data.prompt_hashes import (
    PromptList,
    check_pin,
    compare_with_pin,
    compare_with_record,
    record_file,
    texts_hash,
)
from sdpo_exp.errors import UserError

ONE, OTHER = "1" * 64, "2" * 64
LIST = PromptList("papv2", "owner/name", None, ONE, 487)


@pytest.fixture(autouse=True)
def note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sdpo_exp" / "prompt_sets.json"


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> None:
    class Date(datetime.date):
        @classmethod
        def today(cls) -> Date:
            return cls(2031, 5, 17)

    monkeypatch.setattr(prompt_hashes.datetime, "date", Date)


def test_the_hash_is_of_a_json_list() -> None:
    assert texts_hash(["a", 'é "b"']) == hashlib.sha256(rb'["a","\u00e9 \"b\""]').hexdigest()
    assert texts_hash(["ab", "c"]) != texts_hash(["a", "bc"])
    assert texts_hash(["a", "b"]) != texts_hash(["b", "a"])
    assert texts_hash(["a "]) != texts_hash(["a"])


def test_the_first_sight_of_a_list_is_written_down(note: Path, day: None) -> None:
    compare_with_record(LIST)
    assert json.loads(note.read_text()) == [
        {
            "name": "papv2",
            "source": "owner/name",
            "revision": None,
            "sha256": ONE,
            "prompts": 487,
            "date": "2031-05-17",
        }
    ]
    assert [path.name for path in note.parent.iterdir()] == [note.name]


def test_a_change_is_told_once_and_an_equal_list_never(
    note: Path, day: None, caplog: pytest.LogCaptureFixture
) -> None:
    compare_with_record(LIST)
    note.write_text(note.read_text().replace("2031-05-17", "2030-01-02"))
    before = note.stat().st_mtime_ns
    with caplog.at_level(logging.WARNING):
        compare_with_record(LIST)
        assert not caplog.records
        assert note.stat().st_mtime_ns == before
        changed = LIST._replace(sha256=OTHER, n=486)
        compare_with_record(changed)
        compare_with_record(changed)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"prompts papv2: owner/name has changed: sha256 {ONE} (487 prompts) on 2030-01-02, now "
        f"{OTHER} (486 prompts) on 2031-05-17; images drawn for the one do not compare with images "
        f"for the other, index by index. The new one is remembered from here on, in {note}"
    )


def test_other_names_sources_and_revisions_are_other_lists(
    note: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = [
        LIST._replace(name="x", sha256=OTHER),
        LIST._replace(source="owner/copy", sha256=OTHER),
        LIST._replace(revision="v1", sha256=OTHER),
    ]
    for found in [LIST, *others, LIST, *others]:
        compare_with_record(found)
    assert not caplog.records
    assert len(json.loads(note.read_text())) == 4
    compare_with_record(LIST._replace(revision="v1"))
    assert "prompts papv2: owner/name at v1 has changed" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "{}", "[1, null, {}]", "\x00", '[{"sha256": 1}]'])
def test_a_broken_note_counts_as_empty(
    note: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    note.parent.mkdir(parents=True)
    note.write_text(content)
    compare_with_record(LIST)
    assert not caplog.records
    assert [entry["sha256"] for entry in json.loads(note.read_text())] == [ONE]


def test_a_note_that_cannot_be_written_stops_nobody(
    note: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note.parent.parent.write_text("a file where the folder should be")
    compare_with_record(LIST)
    note.parent.parent.unlink()
    note.mkdir(parents=True)  # so that the last step, the replacement, fails
    compare_with_record(LIST)
    assert [path.name for path in note.parent.iterdir()] == [note.name]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    compare_with_record(LIST)


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_without_a_cache_folder_it_is_below_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert record_file() == tmp_path / ".cache" / "sdpo_exp" / "prompt_sets.json"
    assert "XDG_CACHE_HOME" in os.environ


def test_a_pin_is_compared(caplog: pytest.LogCaptureFixture) -> None:
    compare_with_pin(LIST, ONE)
    assert not caplog.records
    compare_with_pin(LIST, OTHER)
    assert caplog.messages == [
        f"prompts papv2: owner/name has sha256 {ONE} (487 prompts), but sha256={OTHER} is asked "
        "for: another list, or another order; images drawn for the one do not compare with images "
        "for the other, index by index"
    ]


@pytest.mark.parametrize("pin", ["", "abc", "g" * 64, "A" * 64])
def test_a_pin_that_is_no_hash_is_refused(pin: str) -> None:
    with pytest.raises(UserError, match="papv2: sha256 should be 64 lower-case hex digits"):
        check_pin(pin, "papv2")
