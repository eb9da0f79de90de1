"""Which rows of a table are pairs, and in which order, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sdpo_exp.data.columns import FIRST, SECOND, UNCLEAR, Columns, Rules, is_held_out, select
from sdpo_exp.errors import UserError

BOTH = {"image_0": "a", "image_1": "b"}
ALL = Rules()


def chosen(
    columns: Columns, rules: Rules = ALL, **values: list[Any]
) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """(row, order) of what is kept, and the counts."""
    size = len(next(iter(values.values())))
    table = pa.table({"caption": ["x"] * size, **values})
    found = select(table, columns, rules)
    return list(zip(found.rows.tolist(), found.order.tolist(), strict=True)), found.counts


def test_labels_give_the_order_and_ties_are_dropped() -> None:
    labels = [1.0, 0.0, 0.5, None, 0.3, 2.0, float("nan")]
    kept, counts = chosen(Columns(**BOTH, label_0="l"), l=labels)
    assert kept == [(0, FIRST), (1, SECOND), (4, UNCLEAR), (5, UNCLEAR)]
    assert (counts["rows"], counts["ties"], counts["kept"]) == (7, 3, 4)


@pytest.mark.parametrize("labels", [[1, 0, None], [True, False, None], ["1", "0", None]])
def test_labels_may_be_integers_booleans_or_numbers_as_text(labels: list[Any]) -> None:
    kept, _ = chosen(Columns(**BOTH, label_0="l"), l=labels)
    assert kept == [(0, FIRST), (1, SECOND)]


def test_rows_without_a_label_are_ties() -> None:
    columns = Columns(**BOTH, label_0="l", has_label="h")
    kept, counts = chosen(columns, l=[1.0, 1.0, 0.0], h=[True, False, None])
    assert kept == [(0, FIRST)]
    assert counts["ties"] == 2


def test_scores_give_the_order_where_there_is_no_label() -> None:
    columns = Columns(**BOTH, score_0="s", score_1="t")
    scores = {"s": [1.0, 2.0, 3.0, None], "t": [2.0, 1.0, 3.0, 1.0]}
    assert chosen(columns, **scores)[0] == [(0, SECOND), (1, FIRST)]
    wide = Rules(min_margin=1.5)
    assert chosen(columns, wide, s=[1.0, 5.0], t=[2.0, 1.0])[0] == [(1, FIRST)]


def test_with_a_label_scores_are_only_its_margin() -> None:
    columns = Columns(**BOTH, label_0="l", score_0="s", score_1="t")
    rules = Rules(min_margin=0.5)
    kept, counts = chosen(
        columns,
        rules,
        l=[1.0, 1.0, 0.0, 0.0, 1.0, 0.3],
        s=[3.0, 1.0, 1.0, 1.0, None, 1.0],
        t=[1.0, 3.0, 3.0, 1.2, 1.0, 1.0],
    )
    # Row 1's scores speak against its label, row 3's are too close, row 4's are unknown.
    assert kept == [(0, FIRST), (2, SECOND), (5, UNCLEAR)]
    assert counts["below min_margin"] == 3


def test_ordered_rows_and_their_margin() -> None:
    columns = Columns(winner="a", loser="b", margin="m")
    assert chosen(columns, a=[b"", b""], m=[1.0, None])[0] == [(0, FIRST), (1, FIRST)]
    assert chosen(columns, Rules(min_margin=1.0), m=[1.0, 0.9, None])[0] == [(0, FIRST)]


def test_a_caption_is_on_one_side_of_the_split_only() -> None:
    captions = [f"caption {i % 200}" for i in range(1000)]
    table = pa.table({"caption": [*captions, None, ""]})
    columns = Columns(winner="a", loser="b")
    sides = [
        select(table, columns, Rules(None, 0.25, part)).rows for part in ("train", "validation")
    ]
    train, validation = ({table["caption"][int(i)].as_py() for i in rows} for rows in sides)
    assert not train & validation
    assert sorted(np.concatenate(sides).tolist()) == list(range(1002))
    assert 30 < len(validation) < 70  # of 202, about a quarter
    assert validation == {c for c in {*captions, None, ""} if is_held_out(c, 0.25)}


def test_a_larger_holdout_only_adds_captions() -> None:
    held = [{i for i in range(300) if is_held_out(f"c{i}", share)} for share in (0.1, 0.3)]
    assert held[0] < held[1]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "either winner and loser, or image_0 and image_1"),
        ({"winner": "a"}, "winner and loser come together"),
        ({**BOTH, "winner": "a", "loser": "b", "label_0": "l"}, "either winner and loser"),
        (BOTH, "image_0 and image_1 need label_0, preferred, or score_0 and score_1"),
        ({**BOTH, "score_0": "s"}, "score_0 and score_1 come together"),
        ({"winner": "a", "loser": "b", "label_0": "l"}, "leave labels and scores null"),
    ],
)
def test_a_mapping_that_gives_no_order_or_two_is_told(columns: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Columns(**columns)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Rules(min_margin=1.0), "min_margin needs columns.margin"),
        (Rules(holdout=0.1), "part=all and holdout=0.1"),
        (Rules(part="train"), "part=train and holdout=0"),
        (Rules(part="test"), "part: all, train or validation"),  # type: ignore[arg-type]
    ],
)
def test_rules_that_cannot_be_served_are_told(rules: Rules, words: str) -> None:
    with pytest.raises(UserError, match=words):
        rules.check(Columns(winner="a", loser="b"), "pairs", "train")


OWN = "data.validation.holdout=0"


@pytest.mark.parametrize(
    ("rules", "split", "told"),
    [
        (
            Rules(holdout=0.3),
            "validation_unique",
            ("data.validation.part=validation data.validation.split=train ", OWN),
        ),
        (Rules(holdout=0.3), "train", ("data.train.part=train", "data.train.holdout=0")),
        (Rules(holdout=0.3), None, ("data.validation.part=validation for", OWN)),
        (Rules(part="train"), "train", ("data.train.holdout=0.05", "data.train.part=all")),
        (
            Rules(part="validation"),
            "train",
            (
                "data.train.holdout=0.05 data.train.part=train",
                "data.validation.part=all data.validation.split=<name>",
            ),
        ),
        (
            Rules(part="validation"),
            None,
            ("data.validation.part=all data.validation.path=<folder>",),
        ),
    ],
)
def test_half_a_split_is_told_with_its_source_and_the_keys_to_set(
    rules: Rules, split: str | None, told: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as caught:
        rules.check(Columns(winner="a", loser="b"), "my/pairs", split)
    words = str(caught.value)
    assert words.startswith(f"my/pairs ({split}): " if split else "my/pairs: ")
    for keys in told:
        assert keys in words


def test_a_missing_column_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError) as caught:
        Columns(winner="win_img", loser="l").check(["caption", "win_image", "l"], "table")
    words = str(caught.value)
    assert words.startswith(
        "table: no column 'win_img' (columns.winner); did you mean 'win_image'?"
    )
    assert words.endswith("It has: caption, win_image, l")


def test_a_label_column_of_words_is_told() -> None:
    with pytest.raises(UserError, match="column 'l' should hold numbers; row 0 has 'left'"):
        chosen(Columns(**BOTH, label_0="l"), l=["left", "right"])


def test_images_are_not_looked_at() -> None:
    looked_at = []

    class Watched:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, name: str) -> pa.ChunkedArray:
            looked_at.append(name)
            return pa.chunked_array([{"caption": ["x", "y"], "l": [1.0, 0.0]}[name]])

    columns = Columns(**BOTH, label_0="l")
    select(Watched(), columns, Rules(holdout=0.5, part="train"))  # type: ignore[arg-type]
    assert set(looked_at) == {"caption", "l"}
