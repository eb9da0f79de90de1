"""A folder of images goes on where it was, and refuses what does not belong into it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdpo_exp.errors import UserError
from sdpo_exp.generation.folder import ImageFolder, read_manifest
from sdpo_exp.generation.noise import Draw
from sdpo_exp.types import Prompt

SETTINGS: dict[str, Any] = {
    "model": {"parts": {"unet": "abc", "vae": "def"}, "checkpoint": "here"},
    "prompts": {"name": "mine", "sha256": "123", "n": 2},
    "protocol": {"guidance": 2.0, "steps": 8, "sampler": {"class": "Euler"}},
    "versions": {"torch": "2.1"},
    "accelerator": "cpu",
}
PROMPTS = [Prompt(0, " a “cat”\n", {"category": "animals"}), Prompt(1, "a | dog")]
RED = Image.new("RGB", (4, 4), "red")


def changed(**parts: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SETTINGS), **parts}


def draw(index: int, seed: int = 0) -> Draw:
    return Draw(PROMPTS[index].text, index, seed)


def filled(folder: Path) -> ImageFolder:
    store = ImageFolder(folder)
    assert store.begin(SETTINGS) == []
    store.save(draw(0), RED)
    return store


def test_what_is_there_is_not_missing(tmp_path: Path) -> None:
    store = filled(tmp_path / "new")
    assert store.missing([draw(0), draw(1), draw(0, seed=1)]) == [draw(1), draw(0, seed=1)]
    (tmp_path / "new" / "images" / "00001_seed0.png.partial").write_bytes(b"half an image")
    assert store.missing([draw(1)]) == [draw(1)]


def test_an_image_carries_its_prompt(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with Image.open(store.file_of(draw(0))) as image:
        assert image.info["prompt"] == PROMPTS[0].text
        assert image.convert("RGB").tobytes() == RED.tobytes()


def test_the_manifest_is_in_the_public_format_and_reads_back(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.save(draw(1, seed=4), RED)
    assert store.write_manifest("mine", PROMPTS) == 2
    entries = json.loads((tmp_path / "manifest.json").read_text())
    assert entries[0] == {
        "prompt": PROMPTS[0].text,
        "gen_image_path": "images/00000_seed0.png",
        "raw_image_path": "",
        "metadata": {"category": "animals"},
        "set": "mine",
        "index": 0,
        "seed": 0,
    }
    for path in (tmp_path, tmp_path / "manifest.json"):
        manifest = read_manifest(path)
        assert (manifest.by_index, manifest.dropped) == (True, 0)
        first, second = manifest.images
        assert (first.set, first.index, first.seed) == ("mine", 0, 0)
        assert (first.labels, second.labels) == ({"category": "animals"}, {})
        assert (second.prompt, second.seed) == ("a | dog", 4)
        assert first.file == tmp_path / "images" / "00000_seed0.png"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (changed(model={"parts": {"unet": "xyz", "vae": "def"}}), "model.unet: abc -> xyz"),
        (changed(model={"parts": {"unet": "abc", "vae": "fix"}}), "model.vae: def -> fix"),
        (changed(prompts={"sha256": "9"}), "prompts: 123 -> 9"),
        (changed(protocol={**SETTINGS["protocol"], "steps": 9}), "protocol.steps: 8 -> 9"),
    ],
)
def test_images_made_otherwise_are_refused_and_stay(
    tmp_path: Path, other: dict[str, Any], words: str
) -> None:
    store = filled(tmp_path)
    with pytest.raises(UserError, match="holds images made otherwise") as refused:
        store.begin(other)
    assert words in str(refused.value)
    assert store.missing([draw(0)]) == []
    assert json.loads((tmp_path / "generation.json").read_text()) == SETTINGS


def test_what_does_not_decide_an_image_is_only_told(tmp_path: Path) -> None:
    store = filled(tmp_path)
    same = {**SETTINGS["model"], "checkpoint": "elsewhere"}
    assert store.begin(changed(model=same)) == []
    assert store.begin(changed(versions={"torch": "2.2"})) == [
        "earlier images were drawn with versions.torch: 2.1 -> 2.2"
    ]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        ImageFolder(tmp_path).begin(SETTINGS)
    (tmp_path / "generation.json").write_text("{")
    with pytest.raises(UserError, match=r"generation.json: broken"):
        ImageFolder(tmp_path).begin(SETTINGS)


def test_a_call_that_drew_nothing_leaves_no_lock(tmp_path: Path) -> None:
    store = ImageFolder(tmp_path / "new")
    (tmp_path / "new" / "images").mkdir(parents=True)  # killed between two writes
    store.begin(SETTINGS)
    store.begin(changed(protocol={"steps": 9}))
    assert json.loads((tmp_path / "new" / "generation.json").read_text())["protocol"]["steps"] == 9
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be made"):
        ImageFolder(tmp_path / "file").begin(SETTINGS)


@pytest.mark.parametrize(
    ("more", "words"),
    [({"index": None}, "index and seed must be whole numbers"), ({"metadata": "x"}, None)],
)
def test_an_entry_of_our_own_that_is_damaged_is_told(
    tmp_path: Path, more: dict[str, Any], words: str | None
) -> None:
    entry = {"prompt": "cat", "gen_image_path": "0.png", "set": "s", "index": 0, "seed": 0}
    file = public(tmp_path, [{**entry, **more}])
    if words is None:
        assert read_manifest(file).images[0].labels == {}
        return
    with pytest.raises(UserError, match=words):
        read_manifest(file)


def public(folder: Path, entries: Any) -> Path:
    RED.save(folder / "0.png")
    file = folder / "papv2.json"
    file.write_text(json.dumps(entries))
    return file


def test_a_public_manifest_is_read_by_its_own_rules(tmp_path: Path) -> None:
    there = str(tmp_path / "0.png")
    file = public(
        tmp_path,
        [
            {"prompt": "cat", "gen_image_path": there, "raw_image_path": "", "metadata": {}},
            {"prompt": 7, "gen_image_path": there},
            {"prompt": "dog", "gen_image_path": ["", there], "metadata": None},
            {"prompt": "fox", "gen_image_path": []},
            {"prompt": "cat", "gen_image_path": "0.png"},
        ],
    )
    manifest = read_manifest(file)
    assert [(r.set, r.index, r.seed, r.prompt) for r in manifest.images] == [
        ("papv2", 0, 0, "cat"),
        ("papv2", 1, 0, "dog"),
        ("papv2", 2, 0, "cat"),
    ]
    assert (manifest.by_index, manifest.dropped) == (False, 2)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"prompt": "cat"}, "a JSON list of objects"),
        (["cat"], "a JSON list of objects"),
        ([], "no entry with a prompt and the path of an image"),
        ([{"prompt": "cat", "gen_image_path": "no.png"}], "not there: .*no.png"),
    ],
)
def test_a_manifest_that_is_none_is_told(tmp_path: Path, entries: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_manifest(public(tmp_path, entries))


def test_no_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no manifest.json, as generate writes it, and no CSV"):
        read_manifest(tmp_path)


def test_a_csv_of_files_and_prompts_is_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "seen").mkdir()
    for name in ("a.png", "seen/b.png"):
        RED.save(tmp_path / name)
    (tmp_path / "scores.csv").write_text("model,index,prompt\nbase,0,a cat\n")
    table = tmp_path / "prompts.csv"
    table.write_text(
        'file,prompt\na.png,"a cat, sleeping"\nseen/b.png,a dog\n,no file\n', "utf-8-sig"
    )
    for path in (tmp_path, table):
        manifest = read_manifest(path)
        assert (manifest.by_index, manifest.dropped) == (False, 1)
        assert [(r.set, r.index, r.prompt) for r in manifest.images] == [
            ("prompts", 0, "a cat, sleeping"), ("prompts", 1, "a dog")
        ]  # fmt: skip
        assert manifest.images[1].file == tmp_path / "seen" / "b.png"
    table.write_text("set,file,prompt,index,seed\nmine,a.png,a cat,7,3\n")
    (image,) = read_manifest(tmp_path).images
    assert (image.set, image.index, image.seed) == ("mine", 7, 3)
    (tmp_path / "more.csv").write_text("prompt,file\na cat,a.png\n")
    with pytest.raises(UserError, match=r"several CSVs .* \(more.csv, prompts.csv\)"):
        read_manifest(tmp_path)
    with pytest.raises(UserError, match=r"scores.csv: no column file; its columns: model, index"):
        read_manifest(tmp_path / "scores.csv")
    with pytest.raises(UserError, match=r"seen: no manifest.json, as .*, and no CSV with"):
        read_manifest(tmp_path / "seen")


def test_one_prompt_s_manifest_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    RED.save(tmp_path / "000.png")
    rows = {"base": [{"file": "base/000.png"}], "tuned": [{"file": "000.png", "reward": 0.5}]}
    earlier = {"prompt": "a cat", "seed": 4, "images": rows}
    (tmp_path / "manifest.json").write_text(json.dumps(earlier))
    (image,) = read_manifest(tmp_path).images
    assert (image.prompt, image.seed, image.file.name) == ("a cat", 4, "000.png")
