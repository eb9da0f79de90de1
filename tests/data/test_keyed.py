"""Bad rows have stand-ins, and what a user can mend is told in words."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from sdpo_exp.data.keyed import MOST_BAD_IN_A_ROW, KeyedPairs, KeyedRow, collate, collate_or_error
from sdpo_exp.data.transform import PairCrop
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.types import ImagePair, PairKey, SkippedRow
from tests.harness import RandomPairs


class Images:
    """Row i is grey of value i; rows of `bad` are bad, rows of `wide` have unequal shapes."""

    def __init__(
        self, size: int, bad: set[int] = frozenset(), wide: set[int] = frozenset()
    ) -> None:  # type: ignore[assignment]
        self.size, self.bad, self.wide = size, bad, wide

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> ImagePair:
        if index in self.bad:
            raise BadRow(self.row_name(index), "damaged image (of the test)")
        winner = Image.new("RGB", (8, 8), (index,) * 3)
        loser = Image.new("RGB", (16 if index in self.wide else 8, 8))
        return ImagePair(winner, loser, f"prompt {index}")

    def row_name(self, index: int) -> str:
        return f"images row {index}"

    def fingerprint(self) -> str:
        return f"images {self.size}"


CROP = PairCrop(8)


def read(source: Images, row: int, **options: object) -> KeyedRow:
    pairs = KeyedPairs(source, 0, transform=CROP, max_aspect_gap=0.5, **options)  # type: ignore[arg-type]
    return pairs.read(PairKey(2, 7, row))


def test_a_good_row_is_itself() -> None:
    row, key, skipped = read(Images(5), 3)
    assert (row.prompt, key, skipped) == ("prompt 3", PairKey(2, 7, 3), [])


def test_the_next_good_row_stands_in_at_the_bad_ones_place_in_the_stream() -> None:
    row, key, skipped = read(Images(9, bad={3}, wide={4}), 3, on_bad_row="skip")
    assert row.prompt == "prompt 5"
    assert key == PairKey(epoch=2, position=7, row=5)
    assert skipped == [
        SkippedRow("images row 3", "damaged image (of the test)"),
        SkippedRow(
            "images row 4", "aspect ratios differ by more than max_aspect_gap (8 x 8 and 16 x 8)"
        ),
    ]


def test_after_the_last_row_comes_the_first() -> None:
    assert read(Images(5, bad={4}), 4, on_bad_row="skip").key.row == 0


def test_stand_ins_of_a_fixed_set_come_from_outside_of_it() -> None:
    source = Images(12, bad={1, 5, 2})
    fixed = [read(source, i, on_bad_row="skip", stride=4).key.row for i in range(4)]
    assert fixed == [0, 9, 6, 3]  # 1 -> 5 (bad) -> 9, 2 -> 6
    everything = [read(Images(4, bad={1}), i, on_bad_row="skip", stride=4) for i in range(4)]
    assert [item.key.row for item in everything] == [0, 2, 2, 3]


def test_too_many_bad_rows_end_the_run() -> None:
    many = MOST_BAD_IN_A_ROW
    assert read(Images(500, bad=set(range(many - 1))), 0, on_bad_row="skip").key.row == many - 1
    with pytest.raises(UserError, match=f"{many} bad rows one after the other, from images row 0"):
        read(Images(500, bad=set(range(many))), 0, on_bad_row="skip")
    with pytest.raises(UserError, match="3 bad rows one after the other"):
        read(Images(3, bad={0, 1, 2}), 1, on_bad_row="skip")


def test_an_error_names_the_row_the_reason_and_the_way_out() -> None:
    with pytest.raises(UserError) as caught:
        read(Images(5, bad={3}), 3)
    assert str(caught.value).startswith("images row 3: damaged image (of the test). ")
    assert "data.on_bad_row=skip" in str(caught.value)


def test_images_need_a_transform_and_pixels_take_none() -> None:
    with pytest.raises(UserError, match=r"data.transform is missing"):
        KeyedPairs(Images(5), 0).read(PairKey(0, 0, 0))
    with pytest.raises(UserError, match=r"data.transform must be null"):
        KeyedPairs(RandomPairs(5), 0, transform=CROP).read(PairKey(0, 0, 0))


def test_a_mistake_travels_as_a_value() -> None:
    pairs = KeyedPairs(Images(5, bad={1}), 0, transform=CROP)
    rows = [pairs[PairKey(0, i, i)] for i in range(3)]
    assert isinstance(rows[1], UserError)
    assert collate_or_error(rows) is rows[1]


def test_a_batch_holds_geometry_and_skipped_rows() -> None:
    pairs = KeyedPairs(Images(9, bad={1, 3}), 0, transform=CROP, on_bad_row="skip")
    batch = collate([pairs.read(PairKey(0, i, i)) for i in range(4)])
    assert [skipped.row for skipped in batch.skipped] == ["images row 1", "images row 3"]
    assert [key.row for key in batch.keys] == [0, 2, 2, 4]
    assert batch.winner.shape == (4, 3, 8, 8)
    assert torch.equal(batch.winner[:, 0, 0, 0], torch.tensor([0.0, 2, 2, 4]) / 127.5 - 1)
    assert [tuple(geometry) for geometry in batch.geometry] == [(8, 8, 0, 0, 8, 8)] * 4


def test_dropout_hits_the_share_of_prompts_whatever_stands_in() -> None:
    whole, holed = Images(200), Images(200, bad=set(range(0, 200, 2)))
    dropped = []
    for source in (whole, holed):
        pairs = KeyedPairs(source, 3, 0.3, CROP, "skip")
        rows = [pairs.read(PairKey(0, i, i)).row for i in range(200)]
        dropped.append([row.prompt == "" for row in rows])
    assert dropped[0] == dropped[1]
    assert 35 < sum(dropped[0]) < 85
