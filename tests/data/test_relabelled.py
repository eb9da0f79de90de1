"""Relabelled pairs are the source's own, in the labels' order, and refuse labels of others."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sdpo_exp.bounds import NonNegativeFloat
from sdpo_exp.config.signatures import read_signature
from sdpo_exp.data.keyed import KeyedPairs
from sdpo_exp.data.relabelled import Labels, RelabelledPairs, read_labels, write_labels
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.types import ImagePair, PairKey, PairRow
from tests.harness import RandomPairs, small_data

SOURCE = RandomPairs(6)
INDEX, FLIPPED, MARGIN = [0, 2, 3, 5], [False, True, False, True], [0.5, 0.1, 2.0, 1.0]


class Colours:
    """Image i is red against blue, but for pair 1, which is bad."""

    description = "colours"

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> ImagePair:
        if index == 1:
            raise BadRow(self.row_name(index), "damaged")
        return ImagePair(Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue"), "red")

    def row_name(self, index: int) -> str:
        return f"colour {index}"

    def fingerprint(self) -> str:
        return "colours"


def written(path: Path, source: Any = SOURCE, **changes: Any) -> str:
    values = {"index": INDEX, "flipped": FLIPPED, "margin": MARGIN, **changes}
    labels = Labels(
        np.array(values["index"]),
        np.array(values["flipped"]),
        np.array(values["margin"]),
        source.fingerprint(),
    )
    scores = {"a": np.array([[1.0, 0.0]] * len(values["index"]), np.float32)}
    write_labels(path, labels, scores, {"rule": "a"})
    return str(path)


def test_pairs_are_the_sources_own_in_the_labels_order(tmp_path: Path) -> None:
    pairs = RelabelledPairs(SOURCE, written(tmp_path / "train.parquet"))
    assert len(pairs) == 4
    for place, (index, flipped) in enumerate(zip(INDEX, FLIPPED, strict=True)):
        theirs, ours = SOURCE[index], pairs[place]
        assert isinstance(ours, PairRow)
        winner, loser = (theirs.loser, theirs.winner) if flipped else (theirs.winner, theirs.loser)
        assert torch.equal(ours.winner, winner)
        assert torch.equal(ours.loser, loser)
        assert ours.prompt == theirs.prompt
    for outside in (-1, 4):
        with pytest.raises(IndexError):
            pairs[outside]
    assert pairs.description == "RandomPairs; relabelled: 4 pairs, 2 flipped"
    assert pairs.row_name(1) == "row 2"


def test_stored_images_are_exchanged_and_bad_rows_keep_their_name(tmp_path: Path) -> None:
    values = {"index": [0, 1, 2], "flipped": [True, True, False], "margin": [1.0] * 3}
    pairs = RelabelledPairs(Colours(), written(tmp_path / "x.parquet", Colours(), **values))
    first, last = pairs[0], pairs[2]
    assert isinstance(first, ImagePair)
    assert isinstance(last, ImagePair)
    red, blue = (255, 0, 0), (0, 0, 255)
    assert (first.winner.getpixel((0, 0)), first.loser.getpixel((0, 0))) == (blue, red)
    assert (last.winner.getpixel((0, 0)), last.loser.getpixel((0, 0))) == (red, blue)
    problem = KeyedPairs(pairs, 0).problem(PairKey(0, 1, 1))
    assert problem is not None
    assert problem == ("colour 1", "damaged")
    assert pairs.row_name(1) == "colour 1"
    assert pairs.description.startswith("colours; relabelled: 3 pairs")


def test_a_smaller_margin_may_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "train.parquet")
    assert RelabelledPairs(SOURCE, path, min_margin=0.5).index.tolist() == [0, 3, 5]
    with pytest.raises(UserError, match=r"train.parquet: no pair left of 4 at min_margin=3"):
        RelabelledPairs(SOURCE, path, min_margin=3.0)


def test_the_fingerprint_covers_source_choice_and_order(tmp_path: Path) -> None:
    def of(name: str, source: Any = SOURCE, least: float = 0.0, **changes: Any) -> str:
        path = written(tmp_path / f"{name}.parquet", source, **changes)
        return RelabelledPairs(source, path, least).fingerprint()

    original = of("a")
    assert original == of("b", margin=[9.0] * 4)
    others = {
        of("c", flipped=[True, True, False, True]),
        of("d", index=[0, 2, 3, 4]),
        of("e", RandomPairs(6, seed=1)),
        of("f", least=0.2),
        SOURCE.fingerprint(),
    }
    assert len({original, *others}) == 6


def test_labels_of_other_pairs_and_of_streams_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"labels of other pairs than its source now gives"):
        RelabelledPairs(RandomPairs(6, seed=1), path)

    class Stream(RandomPairs):
        endless = True

    with pytest.raises(UserError, match=r"a stream has none"):
        RelabelledPairs(Stream(6), path)


def test_files_of_something_else_are_told(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.parquet")
    assert "no such file; python -m sdpo_exp.relabel" in str(RelabelledPairs.absent(absent))
    with pytest.raises(UserError, match="no such file"):
        RelabelledPairs(SOURCE, absent)
    present = written(tmp_path / "train.parquet")
    assert RelabelledPairs.absent(labels=present, source={}, min_margin=0.0) is None
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"index": [1]}), other)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(Path(present).read_bytes()[:-30])
    for path in (other, broken):
        with pytest.raises(UserError, match="not labels of pairs"):
            read_labels(path)


def test_the_file_holds_scores_of_the_new_winner_and_loser(tmp_path: Path) -> None:
    table = pq.read_table(written(tmp_path / "train.parquet"))
    assert table.column_names == ["index", "flipped", "margin", "winner_a", "loser_a"]
    assert table["winner_a"].to_pylist() == [1.0] * 4
    assert not list(tmp_path.glob("*.partial"))


def test_the_datamodule_and_the_check_take_them(tmp_path: Path) -> None:
    pairs = RelabelledPairs(SOURCE, written(tmp_path / "train.parquet"))
    data = small_data(train=pairs, validation=pairs)
    assert data.fingerprint() == pairs.fingerprint()
    assert torch.equal(data.held_out(4)[0].winner[1], SOURCE[2].loser)
    again = pickle.loads(pickle.dumps(pairs))
    assert torch.equal(again[1].winner, pairs[1].winner)
    signature = read_signature("sdpo_exp.data.relabelled.RelabelledPairs")
    assert signature.parameters["labels"].annotation is str
    assert signature.parameters["min_margin"].annotation == NonNegativeFloat
