"""The side of a caption follows from its text; a small set leaves no side empty."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdpo_exp.data.columns import Columns, Rules, select
from sdpo_exp.data.folder import FolderPairs
from sdpo_exp.data.holdout import held_out_captions, is_held_out
from sdpo_exp.errors import UserError

CAPTIONS = st.lists(st.text(max_size=5), min_size=2, max_size=30, unique=True)
SHARES = st.floats(0.001, 0.999)


@given(CAPTIONS, SHARES)
def test_both_sides_have_a_caption(captions: list[str], share: float) -> None:
    held = held_out_captions(captions, share)
    assert 0 < len(held) < len(captions)
    by_hash = {caption for caption in captions if is_held_out(caption, share)}
    if 0 < len(by_hash) < len(captions):
        assert held == by_hash


@given(CAPTIONS)
def test_a_larger_share_holds_out_the_same_captions_and_more(captions: list[str]) -> None:
    sides = [held_out_captions(captions, share / 10) for share in range(1, 10)]
    assert all(small <= large for small, large in pairwise(sides))


def make(root: Path, captions: list[str]) -> Path:
    for side in ("winner", "loser"):
        (root / side).mkdir(parents=True)
        for i in range(len(captions)):
            Image.new("RGB", (8, 8)).save(root / side / f"{i:02d}.png")
    rows = [f'{i:02d},"{caption}"' for i, caption in enumerate(captions)]
    (root / "captions.csv").write_text("\n".join(["file,caption", *rows]) + "\n")
    return root


def test_sixteen_pairs_are_split_by_the_default_share(tmp_path: Path) -> None:
    folder = str(make(tmp_path / "pairs", [f"caption {i}" for i in range(16)]))
    train, held = (FolderPairs(folder, 0.05, part) for part in ("train", "validation"))
    assert (len(train), len(held)) == (15, 1)
    assert held.description == f"{folder}: 1 pair for part=validation"
    assert {p.caption for p in train.pairs}.isdisjoint(p.caption for p in held.pairs)


def test_one_caption_cannot_be_split_and_the_words_that_help_are_told(tmp_path: Path) -> None:
    folder = str(make(tmp_path / "pairs", ["one"] * 3))
    with pytest.raises(UserError, match=r"data.train.holdout=0 data.validation.part=all"):
        FolderPairs(folder, 0.05, "validation")
    assert len(FolderPairs(folder, 0.0, "all")) == 3


def test_of_a_table_only_rows_that_are_left_count() -> None:
    import pyarrow as pa

    columns = Columns(winner="w", loser="l", caption="c", margin="m")
    texts = [f"caption {i}" for i in range(6)]
    table = pa.table({"w": texts, "l": texts, "c": texts, "m": [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]})
    sides = [
        select(table, columns, Rules(0.5, 1e-9, part), whole=True).rows.tolist()
        for part in ("train", "validation")
    ]
    assert sorted(sides[0] + sides[1]) == [4, 5]
    assert all(len(side) == 1 for side in sides)
    stream = select(table, columns, Rules(0.5, 1e-9, "validation"))  # of rows that are some of many
    assert stream.rows.tolist() == []
