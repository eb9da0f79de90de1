"""A mixture is its sources' pairs, in shares, and names the source of whatever is wrong."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdpo_exp.data.columns import Columns
from sdpo_exp.data.folder import FolderPairs
from sdpo_exp.data.keyed import KeyedPairs
from sdpo_exp.data.mixed_source import MixedSource
from sdpo_exp.data.mixture import MixedPairs
from sdpo_exp.data.relabelled import Labels, write_labels
from sdpo_exp.data.table import TablePairs
from sdpo_exp.data.templates import check_template
from sdpo_exp.data.transform import PairCrop
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.types import PairKey
from tests.data.pictures import stored
from tests.harness import RandomPairs


def shade(value: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (value, value, value))


def folder(path: Path, pairs: int) -> str:
    lines = ["file,caption"]
    for side in ("winner", "loser"):
        (path / side).mkdir(parents=True)
    for i in range(pairs):
        shade(i).save(path / "winner" / f"{i:03}.png")
        shade(200).save(path / "loser" / f"{i:03}.png")
        lines.append(f"{i:03},{path.name} {i}")
    (path / "captions.csv").write_text("\n".join(lines))
    return str(path)


def table(path: Path, pairs: int) -> str:
    rows = [
        {"caption": f"{path.stem} {i}", "winner": stored(shade(i)), "loser": stored(shade(100))}
        for i in range(pairs)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, MixedSource]:
    cache = str(tmp_path / "cache")
    return {
        "table": MixedSource(table(tmp_path / "t.parquet", 30), cache_dir=cache),
        "mine": MixedSource(
            folder(tmp_path / "m", 10), weight=3, template="a photo of {caption}, {{raw}}"
        ),
    }


def prompts(pairs: Any) -> list[str]:
    return [pairs[i].prompt for i in range(len(pairs))]


def test_it_has_every_pair_once_under_its_template(sources: dict[str, MixedSource]) -> None:
    pairs = MixedPairs(sources)
    expected = {f"a photo of m {i}, {{raw}}" for i in range(10)} | {f"t {i}" for i in range(30)}
    assert set(prompts(pairs)) == expected
    assert len(pairs) == 40
    assert Counter(p[0] for p in prompts(pairs)[:12]) == {"a": 9, "t": 3}
    assert pairs.shares == {"mine": 0.75, "table": 0.25}
    assert pairs.row_name(0).startswith(("source mine: ", "source table: "))
    first = pairs[0].winner.getpixel((0, 0))[0]
    assert prompts(pairs)[0] in (f"a photo of m {first}, {{raw}}", f"t {first}")
    with pytest.raises(IndexError):
        pairs[40]
    assert prompts(pickle.loads(pickle.dumps(pairs))) == prompts(pairs)


def test_its_description_has_shares_and_epochs(sources: dict[str, MixedSource]) -> None:
    pairs = MixedPairs(sources)
    assert pairs.description == "mixture: mine 75 % (10 pairs); table 25 % (30 pairs)"
    assert pairs.told_with(200) == (
        "mixture of 200 draws: mine 75 % (10 pairs), 15 epochs; table 25 % (30 pairs), 1.67 epochs"
    )


def test_without_weights_shares_are_sizes(sources: dict[str, MixedSource]) -> None:
    sources["mine"].weight = None
    assert MixedPairs(sources).shares == {"mine": 0.25, "table": 0.75}


def test_neither_the_order_of_sources_nor_of_calls_matters(sources: dict[str, MixedSource]) -> None:
    pairs, other = MixedPairs(sources), MixedPairs(dict(reversed(sources.items())))
    assert prompts(pairs) == prompts(other)
    assert pairs.fingerprint() == other.fingerprint()
    keys = [pairs.order(3).key(i) for i in range(100)]
    assert keys == [other.order(3).key(i) for i in range(100)]
    drawn = Counter(prompts(pairs)[key.row][0] for key in keys[:64])
    assert drawn == {"a": 48, "t": 16}


def test_the_fingerprint_is_of_pairs_templates_and_shares(
    sources: dict[str, MixedSource],
) -> None:
    prints = {MixedPairs(sources).fingerprint()}
    sources["mine"].weight = 2
    prints.add(MixedPairs(sources).fingerprint())
    sources["mine"].template = "{caption}"
    prints.add(MixedPairs(sources).fingerprint())
    sources["mine"].max_samples = 9
    prints.add(MixedPairs(sources).fingerprint())
    assert len(prints) == 4


def test_held_out_pairs_are_mixed_likewise(tmp_path: Path) -> None:
    words = {
        "a": MixedSource(folder(tmp_path / "a", 60)),
        "b": MixedSource(folder(tmp_path / "b", 60), weight=2),
        "tiny": MixedSource(folder(tmp_path / "one", 1), weight=5),
    }
    train, held = (MixedPairs(words, 0.3, part) for part in ("train", "validation"))
    assert not set(prompts(train)) & set(prompts(held))
    assert list(train.sources) == ["a", "b", "tiny"]
    assert list(held.sources) == ["a", "b"]
    assert Counter(p[0] for p in prompts(held)[:9]) == {"b": 6, "a": 3}
    with pytest.raises(UserError, match=r"source tiny: .*no pair left"):
        MixedPairs({"tiny": words["tiny"]}, 0.3, "validation")


def test_a_stand_in_comes_from_the_same_source(tmp_path: Path) -> None:
    words = {
        "a": MixedSource(folder(tmp_path / "a", 12)),
        "b": MixedSource(folder(tmp_path / "b", 12)),
    }
    for name in ("004", "011"):
        (tmp_path / "b" / "loser" / f"{name}.png").write_bytes(b"")
    pairs = MixedPairs(words)
    (bad,) = [i for i in range(24) if pairs.row_name(i).endswith("b pair 004")]
    (last,) = [i for i in range(24) if pairs.row_name(i).endswith("b pair 011")]
    with pytest.raises(BadRow, match=r"source b: .*b pair 004: empty image"):
        pairs[bad]

    def stand_in(row: int, stride: int = 1) -> str:
        keyed = KeyedPairs(pairs, 0, transform=PairCrop(4), on_bad_row="skip", stride=stride)
        return keyed.read(PairKey(0, 0, row)).row.prompt

    assert stand_in(bad) == "b 5"
    assert stand_in(last) == "b 0"
    assert stand_in(bad, stride=10) == "b 9"  # five of the first ten rows are of b
    assert bad < 10


def test_pairs_of_other_kinds_are_mixed_by_nodes_of_their_own(tmp_path: Path) -> None:
    words = {
        "x": MixedSource(train=RandomPairs(4), validation=RandomPairs(2), weight=1),
        "y": MixedSource(train=RandomPairs(6), template="say {caption}"),
    }
    pairs = MixedPairs(words, 0.1, "train")
    assert len(pairs) == 10
    assert sum(prompt.startswith("say ") for prompt in prompts(pairs)) == 6
    assert len(MixedPairs(words, 0.1, "validation")) == 2


def test_a_relabelled_source_is_in_its_new_order(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", 4)
    labels = Labels(
        np.array([0, 2]),
        np.array([False, True]),
        np.array([1.0, 1.0]),
        FolderPairs(path).fingerprint(),
    )
    (tmp_path / "new").mkdir()
    write_labels(tmp_path / "new" / "train.parquet", labels, {}, {})
    pairs = MixedPairs({"a": MixedSource(path, labels=str(tmp_path / "new"))})
    assert prompts(pairs) == ["a 0", "a 2"]
    assert pairs[1].winner.getpixel((0, 0)) == (200, 200, 200)


class Endless(RandomPairs):
    endless = True


def test_what_is_wrong_is_told_with_the_source(tmp_path: Path) -> None:
    path = folder(tmp_path / "a", 3)
    other = table(tmp_path / "t.parquet", 3)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "where is it? Give path="),
        ({"path": path, "split": "x", "min_margin": 1.0}, "split, min_margin: of tables alone"),
        ({"path": other, "columns": {"winer": "w"}}, "columns.winer: unknown key; there are: cap"),
        ({"path": path, "train": RandomPairs(3)}, "path and train: give one"),
        ({"path": path, "labels": "no"}, "labels=no: has no train.parquet"),
        ({"path": str(tmp_path / "t.csv")}, "t.csv: it is no folder"),
        ({"train": Endless(3)}, "an endless stream cannot be mixed"),
        ({"path": path, "template": "{capion}"}, "must hold {caption} once"),
    ]
    for words, told in cases:
        with pytest.raises(UserError) as caught:
            MixedPairs({"fine": MixedSource(path), "odd": MixedSource(**words)})
        assert str(caught.value).startswith("source odd: ")
        assert told in str(caught.value)
    with pytest.raises(UserError, match=r"source odd: columns: image_0 and image_1 come together"):
        MixedPairs({"odd": MixedSource(other, columns={"image_0": "winner"})})
    assert MixedPairs.absent({"odd": {}}) == (
        "source odd: where is it? Give path=<a folder with winner/ and loser/, or a table>"
    )
    assert MixedPairs.absent({}) is not None
    assert MixedPairs.absent({"fine": {"path": path}}) is None


@pytest.mark.parametrize(
    "template",
    [
        "",
        "a photo",
        "{caption} {caption}",
        "{caption}{0}",
        "{}",
        "{caption!r}",
        "{caption:>9}",
        "{caption.upper}",
        "{caption",
        "caption}",
    ],
)
def test_a_template_holds_the_caption_once_and_nothing_else(template: str) -> None:
    with pytest.raises(UserError, match=r"template: must hold \{caption\} once.*, got"):
        check_template(template)


def test_one_folder_or_table_has_a_template_too(tmp_path: Path) -> None:
    path, template = folder(tmp_path / "a", 2), "a photo of {caption}"
    plain, photos = FolderPairs(path), FolderPairs(path, template=template)
    assert prompts(photos) == ["a photo of a 0", "a photo of a 1"]
    assert plain.fingerprint() != photos.fingerprint()
    columns, cache = Columns(winner="winner", loser="loser"), str(tmp_path / "cache")
    where = table(tmp_path / "t.parquet", 2)
    of_table = TablePairs(where, columns, template=template, cache_dir=cache)
    assert prompts(of_table) == ["a photo of t 0", "a photo of t 1"]
    assert of_table.fingerprint() != TablePairs(where, columns, cache_dir=cache).fingerprint()


def test_a_dropped_prompt_stays_empty(tmp_path: Path) -> None:
    pairs = FolderPairs(folder(tmp_path / "a", 2), template="a photo of {caption}")
    keyed = KeyedPairs(pairs, 0, prompt_dropout=1.0, transform=PairCrop(4))
    assert keyed.read(PairKey(0, 0, 1)).row.prompt == ""
