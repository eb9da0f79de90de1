"""A folder of winners and losers gives its pairs, and names what does not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from sdpo_exp.data.folder import FolderPairs
from sdpo_exp.errors import BadRow, UserError


def folder(path: Path, names: list[str], sides: tuple[str, str] = ("winner", "loser")) -> Path:
    for value, side in enumerate(sides):
        (path / side).mkdir(parents=True)
        for i, name in enumerate(names):
            shade = (10 * i + value,) * 3
            Image.new("RGB", (4, 4), shade).save(path / side / name)
    return path


def csv_of(captions: dict[str, str]) -> str:
    return "\n".join(["file,caption", *(f'{name},"{text}"' for name, text in captions.items())])


NAMES = ["b.png", "a.jpg", "c.v2.webp"]
CAPTIONS = {"a.jpg": "an a, red", "b": "a b\nof two lines", "c.v2": "a c"}


def test_pairs_come_by_name_with_their_captions(tmp_path: Path) -> None:
    (folder(tmp_path / "p", NAMES) / "captions.csv").write_text(csv_of(CAPTIONS))
    pairs = FolderPairs(str(tmp_path / "p"))
    assert len(pairs) == 3
    assert [pairs[i].prompt for i in range(3)] == list(CAPTIONS.values())
    b = pairs[1]
    assert (b.winner.getpixel((0, 0)), b.loser.getpixel((0, 0))) == ((0, 0, 0), (1, 1, 1))
    assert pairs.row_name(2) == f"{tmp_path / 'p'} pair c.v2"
    with pytest.raises(IndexError):
        pairs[3]


@pytest.mark.parametrize("form", ["jsonl", "beside", "captions"])
def test_captions_of_every_form(tmp_path: Path, form: str) -> None:
    path = folder(tmp_path / "p", ["a.png", "b.png"], ("w", "l"))
    if form == "jsonl":
        lines = [{"file": f"w/{n}.png", "caption": f"the {n}"} for n in "ab"]
        (path / "captions.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    else:
        place = path / ("w" if form == "beside" else "captions")
        place.mkdir(exist_ok=True)
        for name in "ab":
            (place / f"{name}.txt").write_text(f"the {name}\n")
    pairs = FolderPairs(str(path))
    assert [pairs[i].prompt for i in range(2)] == ["the a", "the b"]


def test_everything_that_does_not_fit_is_named_at_once(tmp_path: Path) -> None:
    path = folder(tmp_path / "p", [f"{i}.png" for i in range(20)])
    for i in range(7):
        (path / "loser" / f"{i}.png").unlink()
    (path / "winner" / "19.png").unlink()
    (path / "captions.csv").write_text(csv_of({str(i): "x" for i in range(18)}))
    with pytest.raises(UserError) as caught:
        FolderPairs(str(path))
    words = str(caught.value)
    assert "7 without an image in loser/: 0, 1, 2, 3, 4, ...;" in words
    assert "1 without an image in winner/: 19;" in words
    assert "1 without a caption: 18." in words


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        ("nothing", "no such folder; a folder of pairs has winner/ and loser/"),
        ("empty", "has no winner/ and loser/"),
        ("no images", "no images"),
        ("two of a name", "a.jpg and a.png have one name"),
        (
            "bad csv",
            "captions.csv: no column file or file_name or filename or image. It has: name",
        ),
        ("both", "both captions.csv and captions.jsonl"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, prepare: str, words: str) -> None:
    path = tmp_path / "p"
    if prepare == "empty":
        path.mkdir()
    elif prepare != "nothing":
        folder(path, [] if prepare == "no images" else ["a.png"])
    if prepare == "two of a name":
        shutil.copyfile(path / "winner" / "a.png", path / "winner" / "a.jpg")
    if prepare in ("bad csv", "both"):
        (path / "captions.csv").write_text("name,caption\na,x")
    if prepare == "both":
        (path / "captions.jsonl").touch()
    with pytest.raises(UserError) as caught:
        FolderPairs(str(path))
    assert words in str(caught.value)
    assert (FolderPairs.absent(path=str(path)) is not None) == (prepare == "nothing")


def test_bad_rows_are_told_by_name(tmp_path: Path) -> None:
    path = folder(tmp_path / "p", ["a.png", "b.png"])
    (path / "captions.csv").write_text(csv_of({"a": "", "b": "x"}))
    (path / "loser" / "b.png").write_bytes(b"")
    pairs = FolderPairs(str(path))
    with pytest.raises(BadRow, match="p pair a: empty caption"):
        pairs[0]
    with pytest.raises(BadRow, match=r"p pair b: empty image \(loser: zero bytes\)"):
        pairs[1]


def test_a_holdout_splits_by_caption(tmp_path: Path) -> None:
    path = folder(tmp_path / "p", [f"{i}.png" for i in range(40)])
    (path / "captions.csv").write_text(csv_of({str(i): f"caption {i % 20}" for i in range(40)}))
    sides = [FolderPairs(str(path), 0.3, part) for part in ("train", "validation")]
    captions = [{side[i].prompt for i in range(len(side))} for side in sides]
    assert not captions[0] & captions[1]
    assert len(sides[0]) + len(sides[1]) == 40
    assert 2 < len(sides[1]) < 24
    assert len(FolderPairs(str(path), max_samples=3)) == 3
    with pytest.raises(UserError, match=r"part=all and holdout=0.3"):
        FolderPairs(str(path), 0.3)


def test_the_fingerprint_is_of_the_pairs_and_not_of_their_place(tmp_path: Path) -> None:
    path = folder(tmp_path / "p", ["a.png", "b.png"])
    (path / "captions.csv").write_text(csv_of({"a": "x", "b": "y"}))
    original = FolderPairs(str(path)).fingerprint()
    moved = Path(shutil.copytree(path, tmp_path / "q"))
    assert FolderPairs(str(moved)).fingerprint() == original
    Image.new("RGB", (4, 4), "red").save(moved / "loser" / "b.png")
    changed = FolderPairs(str(moved)).fingerprint()
    (moved / "captions.csv").write_text(csv_of({"a": "x", "b": "z"}))
    assert len({original, changed, FolderPairs(str(moved)).fingerprint()}) == 3


def test_the_fingerprint_is_of_lengths_and_ends_and_reads_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "p", ["a.png", "b.png"])
    (path / "captions.csv").write_text(csv_of({"a": "x", "b": "y"}))
    # Nothing, less than one end, ends that overlap, and bytes between them.
    contents = [bytes(range(size % 256)) * (size // 200 + 1) for size in (0, 10, 100, 250)]
    files = [path / side / f"{name}.png" for name in "ab" for side in ("winner", "loser")]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    pairs = FolderPairs(str(path))

    def whole_file(_: Path) -> bytes:
        raise AssertionError("a whole file is read")

    monkeypatch.setattr(Path, "read_bytes", whole_file)
    hashed = [
        hashlib.sha256(len(c).to_bytes(8, "big") + c[:64] + c[-64:]).digest() for c in contents
    ]
    expected = hashlib.sha256(b"x\0" + hashed[0] + hashed[1] + b"y\0" + hashed[2] + hashed[3])
    assert pairs.fingerprint() == expected.hexdigest()


def test_the_fingerprint_is_computed_once(tmp_path: Path) -> None:
    path = folder(tmp_path / "p", ["a.png"])
    (path / "captions.csv").write_text(csv_of({"a": "x"}))
    pairs = FolderPairs(str(path))
    before = pairs.fingerprint()
    shutil.rmtree(path)
    assert pairs.fingerprint() == before


def test_half_a_split_is_told_with_the_keys_to_set(tmp_path: Path) -> None:
    path = str(folder(tmp_path / "p", ["a.png"]))
    with pytest.raises(UserError, match=r"p: part=all and .* give data.validation.part=validation"):
        FolderPairs(path, 0.3)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "captions.csv",
            "file,caption\na,a cat, sitting on a mat\n",
            "row 0 (line 2): 3 cells under 2",
        ),
        (
            "captions.csv",
            "file,caption\na,x\na.png,y\n",
            "row 1 (line 3): a has a caption already, at row 0",
        ),
        ("captions.csv", "file;caption\na;x;y\n", "row 0 (line 2): 3 cells under 2"),
        ("captions.csv", "file,caption\n,x\n", "row 0 (line 2): no file named"),
        ("captions.csv", "file,text,caption\na,x,y\n", "columns caption, text; leave one"),
        ("captions.csv", 'file,caption\na,"x\n', "a quote that is never closed"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    path = folder(tmp_path / "p", ["a.png"])
    (path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        FolderPairs(str(path))
    assert words in str(caught.value)


def test_text_in_another_encoding_says_how_to_convert_it(tmp_path: Path) -> None:
    path = folder(tmp_path / "p", ["a.png"])
    (path / "captions.csv").write_bytes("file,caption\na,caf\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"iconv -f latin1 -t utf-8 \S+captions\.csv"):
        FolderPairs(str(path))


@pytest.mark.parametrize("caption", ["NA", "None", "null", "1984", "2024-01-01", "true"])
def test_words_that_look_like_something_else_are_captions(tmp_path: Path, caption: str) -> None:
    path = folder(tmp_path / "p", ["a.png"])
    (path / "captions.csv").write_text(f"file,caption\na,{caption}\n")
    assert FolderPairs(str(path))[0].prompt == caption


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,text\na.png,the a\n"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "the a"}\n'),
        ("captions.tsv", "file\tcaption\na\tthe a\n"),
        ("captions.csv", "image,prompt\nwinner/a.png,the a\n"),
    ],
)
def test_the_usual_layouts_are_read(tmp_path: Path, name: str, text: str) -> None:
    path = folder(tmp_path / "p", ["a.png"])
    (path / name).write_text(text)
    for extra in ("._a.png", "notes.pdf", ".DS_Store"):
        (path / "winner" / extra).write_bytes(b"no image")
    assert [FolderPairs(str(path))[0].prompt] == ["the a"]
