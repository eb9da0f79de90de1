"""Prompt sets: public layouts and own files, in order, with labels and hashes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sdpo_exp.config.check import check_node
from sdpo_exp.data.prompt_hashes import texts_hash
from sdpo_exp.data.prompt_sets import FilePrompts
from sdpo_exp.errors import UserError
from sdpo_exp.protocols import PromptSet
from sdpo_exp.types import Prompt
from tests.checkpoints import cache_folder
from tests.data.prompt_layouts import (
    PUBLIC,
    STYLES,
    absent,
    built,
    constructed,
    node,
    own_caches,
    write_hpsv2,
    write_papv2,
    write_parti,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_caches(tmp_path, monkeypatch)


def texts(prompts: PromptSet) -> list[str]:
    return [prompt.text for prompt in prompts.prompts()]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


# -- the public layouts --------------------------------------------------------------------------


def test_papv2_from_the_hubs_cache(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_papv2(
        cache_folder(cache, "yuvalkirstain/pickapic_v2_no_images", "dataset"), list("abcab")
    )
    assert absent("papv2") is None
    with caplog.at_level(logging.INFO):
        prompts = built("papv2")
    assert prompts.prompts() == tuple(Prompt(i, t) for i, t in enumerate("abc"))
    assert prompts.name == "papv2"
    assert prompts.fingerprint() == texts_hash(list("abc"))
    assert warnings(caplog) == ["prompts papv2: yuvalkirstain/pickapic_v2_no_images has 3, not 487"]
    assert (
        "papv2: 3 prompts of yuvalkirstain/pickapic_v2_no_images, 2 repeats left out, sha256 "
        + prompts.fingerprint()
    ) in caplog.messages


def test_papv2_from_a_manifest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = [{"prompt": f"p{i}", "raw_image_path": "", "metadata": {}} for i in range(487)]
    (tmp_path / "papv2.json").write_text(json.dumps(entries))
    path = str(tmp_path / "papv2.json")
    assert absent("papv2", path=path) is None
    assert len(built("papv2", path=path).prompts()) == 487
    assert warnings(caplog) == []


def test_hpsv2_from_the_hubs_cache(cache: Path) -> None:
    expected = write_hpsv2(cache_folder(cache, "zhwang/HPDv2", "dataset"), 2)
    assert absent("hpsv2") is None
    prompts = built("hpsv2", expected=8)
    assert texts(prompts) == expected
    labels = [prompt.labels for prompt in prompts.prompts()]
    assert labels == [{"category": style} for style in STYLES for _ in range(2)]


def test_hpsv2_from_a_flat_folder_and_with_repeats(tmp_path: Path) -> None:
    for style in STYLES:
        (tmp_path / f"{style}.json").write_text(json.dumps(["same", style]))
    prompts = built("hpsv2", path=str(tmp_path), expected=8)
    assert texts(prompts) == [text for style in STYLES for text in ("same", style)]
    assert [prompt.index for prompt in prompts.prompts()] == list(range(8))


def test_hpsv2_from_one_file_has_its_styles_in_blocks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "hpsv2.json"
    path.write_text(json.dumps([{"prompt": f"p{i}"} for i in range(3200)]))
    prompts = built("hpsv2", path=str(path)).prompts()
    assert all(prompt.labels == {"category": STYLES[prompt.index // 800]} for prompt in prompts)
    assert warnings(caplog) == []
    path.write_text(json.dumps(["a", "b", "c", "d"]))
    assert all(not prompt.labels for prompt in built("hpsv2", path=str(path)).prompts())
    assert warnings(caplog)[:2] == [
        "prompts hpsv2: no labels 'category': one file in place of anime, concept-art, paintings, "
        "photo, without 3200 prompts",
        f"prompts hpsv2: {path} has 4, not 3200",
    ]


def test_partiprompts_from_the_hubs_cache_and_from_a_file(cache: Path, tmp_path: Path) -> None:
    write_parti(cache_folder(cache, "nateraw/parti-prompts", "dataset"))
    write_parti(tmp_path / "own")
    assert absent("partiprompts") is None
    for changes in ({}, {"path": str(tmp_path / "own" / "PartiPrompts.tsv")}):
        assert built("partiprompts", expected=2, **changes).prompts() == (
            Prompt(0, "bond", {"category": "Abstract", "challenge": "Basic"}),
            Prompt(1, "a snail ", {"category": "Animals", "challenge": "Basic"}),
        )


def test_partiprompts_from_a_json_without_categories(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "partiprompts.json").write_text('[{"prompt": "bond", "neg_prompt": ""}]')
    prompts = built("partiprompts", path=str(tmp_path / "partiprompts.json"), expected=1)
    assert prompts.prompts() == (Prompt(0, "bond"),)
    assert "partiprompts.json: no labels category, challenge" in caplog.text


# -- a file of the user's ------------------------------------------------------------------------


def test_an_own_file_is_named_after_itself_and_cut_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "my_prompts.v2.csv"
    path.write_text("text,kind\n a,x\nb,y\n a,x\n")
    labels = {"category": "kind"}
    prompts = built("file", path=str(path), column="text", labels=labels)
    assert prompts.name == "my_prompts.v2"
    assert prompts.prompts() == (
        Prompt(0, " a", {"category": "x"}),
        Prompt(1, "b", {"category": "y"}),
        Prompt(2, " a", {"category": "x"}),
    )
    two = built("file", path=str(path), column="text", first=2, name="two", unique=True)
    assert (two.name, texts(two)) == ("two", [" a", "b"])
    assert two.fingerprint() == texts_hash([" a", "b"]) != prompts.fingerprint()
    one = built("file", path=str(path), column="text", first=1)
    assert one.description == f"the first 1 of 3 prompts of {path}"


def test_a_lone_file_of_a_folder_needs_no_name(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "README.md").touch()
    (tmp_path / "p" / "some.txt").write_text("a\nb\n")
    prompts = built("file", path=str(tmp_path / "p"))
    assert (prompts.name, texts(prompts)) == ("p", ["a", "b"])


def test_labelled_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(f"of {name}")
    files = {"second": "two.txt", "first": "one.txt"}
    prompts = built("file", path=str(tmp_path), name="x", files=files, axis="kind").prompts()
    assert prompts == (
        Prompt(0, "of two.txt", {"kind": "second"}),
        Prompt(1, "of one.txt", {"kind": "first"}),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "a b"}, "prompts.name=a b: a set's name is of letters, digits"),
        ({"name": ""}, "prompts.name=: a set's name"),
        ({"sha256": "abc"}, "prompts p: sha256 should be 64 lower-case hex digits, got 'abc'"),
        (
            {"labels": {"prompt": "x"}},
            "the label axis 'prompt' is a column of scores; give it anot",
        ),
        ({"labels": {"k": "x"}, "files": {"a": "a.csv"}, "axis": "k"}, "axis 'k' is named twice"),
    ],
)
def test_values_that_cannot_be_are_told(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    (tmp_path / "p.csv").write_text("prompt,x\na,b\n")
    with pytest.raises(UserError) as caught:
        constructed(node("file", path=str(tmp_path / "p.csv"), **changes))
    assert words in str(caught.value)


def test_a_misspelt_key_and_a_wrong_type_are_told_without_importing() -> None:
    config = node("file", path=3, colum="x", first=0, labels=["kind"], column=None)
    assert sorted(check_node(config, "prompts")) == [
        "prompts.colum: unknown key; did you mean 'column'?",
        "prompts.column: must be a valid string, got None",
        "prompts.first: must be greater than or equal to 1, got 0",
        "prompts.labels: must be a valid dictionary, got ['kind']",
        "prompts.path: must be a valid string, got 3",
    ]
    assert list(check_node(node("file"), "prompts")) == ["prompts.path: a value is required"]
    problems = list(check_node(node("papv2", files="test.json"), "prompts"))
    assert problems == ["prompts.files: must be a valid list, got 'test.json'"]


@pytest.mark.parametrize("choice", PUBLIC)
def test_a_public_choice_is_valid_as_it_stands(choice: str) -> None:
    assert list(check_node(node(choice), "prompts")) == []


# -- hashes --------------------------------------------------------------------------------------


def test_a_changed_file_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a\nb\n")
    before = FilePrompts(str(path)).fingerprint()
    FilePrompts(str(path), first=1)
    path.write_text("a\nb\r\n\n")
    FilePrompts(str(path))
    assert warnings(caplog) == []
    path.write_text("a\nc\n")
    after = FilePrompts(str(path)).fingerprint()
    FilePrompts(str(path))
    (message,) = warnings(caplog)
    assert f"prompts p: {path} has changed: sha256 {before} (2 prompts)" in message
    assert f"now {after} (2 prompts)" in message


def test_a_pin_is_of_the_whole_list_and_asks_no_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.txt"
    path.write_text("a\nb\n")
    FilePrompts(str(path), sha256=texts_hash(["a", "b"]), first=1)
    assert warnings(caplog) == []
    FilePrompts(str(path), sha256=texts_hash(["a"]), first=1)
    (message,) = warnings(caplog)
    assert f"has sha256 {texts_hash(['a', 'b'])} (2 prompts), but" in message
    assert f"sha256={texts_hash(['a'])} is asked for" in message
    assert not (tmp_path / "xdg").exists()


def test_early_checks_and_loading_need_no_torch(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('["a"]')
    write_papv2(tmp_path, ["a"])
    code = (
        "import sys\n"
        "from sdpo_exp.data.prompt_sets import FilePrompts\n"
        "from sdpo_exp.testbed.prompts import WorldCaptions\n"
        f"assert FilePrompts.absent({str(tmp_path / 'p.json')!r}) is None\n"
        f"FilePrompts({str(tmp_path / 'p.json')!r}).fingerprint()\n"
        f"FilePrompts({str(tmp_path / 'data')!r}, files=['test-*'], column='caption')\n"
        "heavy = ('torch', 'lightning', 'diffusers', 'transformers', 'datasets')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
