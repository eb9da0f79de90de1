"""Which columns of a table are what, and which of its rows are pairs; without reading images."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdpo_exp.bounds import HalfOpenUnit, NonNegativeFloat
from sdpo_exp.data.default_columns import IN_ORDER, outdone
from sdpo_exp.data.holdout import held_out_captions, is_held_out
from sdpo_exp.data.numbers import listed, numbers
from sdpo_exp.data.preferred import vocabulary, word
from sdpo_exp.errors import UserError

Part = Literal["all", "train", "validation"]
# Which image wins; a row whose label says neither is told where it is read.
FIRST, SECOND, UNCLEAR = 0, 1, 2


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns by what they hold; null where there is none.

    Either `image_0` and `image_1` with `label_0`, `preferred` or both scores, or `winner` and
    `loser`.

    Attributes:
        caption: the prompt of both images.
        image_0, image_1: two images; bytes of a file, an `Image` column, or paths.
        label_0: 1 where image 0 is preferred, 0 where image 1 is, 0.5 or null for a tie.
        has_label: rows where it is false are ties.
        score_0, score_1: a higher one is better. Without `label_0` they decide the order; with it
            they only give the margin.
        winner, loser: two images in order.
        margin: by how much the winner is better.
        preferred: says in words which image is preferred; null and words for a tie are ties.
        values: what these words mean: `image_0`, `image_1` or `tie`; null: as the names of the
            images tell, such as `a` of `img_a` and `img_b`, or words such as `left` and `right`.
    """

    caption: str = "caption"
    image_0: str | None = None
    image_1: str | None = None
    label_0: str | None = None
    has_label: str | None = None
    score_0: str | None = None
    score_1: str | None = None
    winner: str | None = None
    loser: str | None = None
    margin: str | None = None
    # Not in the text that fingerprints of streams were made of before there were these.
    preferred: str | None = field(default=None, repr=False)
    values: dict[Any, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse a mapping that gives no order, or two; what was named stands for the defaults."""
        for role in outdone(vars(self)):
            object.__setattr__(self, role, None)
        for one, other in (("image_0", "image_1"), ("score_0", "score_1"), ("winner", "loser")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise UserError(f"columns: {one} and {other} come together; one of them is null")
        if (self.winner is None) == (self.image_0 is None):
            raise UserError("columns: give either winner and loser, or image_0 and image_1")
        orders = [self.label_0, self.preferred]
        if self.image_0 is not None and not any((*orders, self.score_0)):
            raise UserError(
                "columns: image_0 and image_1 need label_0, preferred, or score_0 and score_1"
            )
        if all(orders):
            raise UserError("columns: label_0 and preferred both give an order; leave one null")
        labels = (self.label_0, self.preferred, self.has_label, self.score_0)
        in_order = self.winner is not None and (self.winner, self.loser) != IN_ORDER
        if in_order and any(name is not None for name in labels):
            raise UserError("columns: winner and loser are in order; leave labels and scores null")

    @property
    def images(self) -> tuple[str, str]:
        """The two image columns, in the table's order."""
        first, second = self.image_0 or self.winner, self.image_1 or self.loser
        assert first is not None
        assert second is not None
        return first, second

    @property
    def named(self) -> dict[str, str]:
        """The columns that there are, by role."""
        roles = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "values"}
        return {role: name for role, name in roles.items() if name is not None}

    def check(self, present: Sequence[str], source: str) -> None:
        """Refuse a table without one of the columns.

        Raises:
            UserError: with the columns there are.
        """
        for role, name in self.named.items():
            if name not in present:
                near = difflib.get_close_matches(name, present, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else "."
                raise UserError(
                    f"{source}: no column '{name}' (columns.{role}){hint} It has: {listed(present)}"
                )


@dataclass(frozen=True)
class Rules:
    """Which rows to take.

    Attributes:
        min_margin: drop rows whose winner is better by less, or by an unknown amount.
        holdout: share of captions that belong to the validation part.
        part: `all`, or one side of the split by caption. The side of a caption is a hash of it, so
            it is the same in every table and no caption is on both; but of a set that is so small
            that one side would have none, the nearest one changes over.
    """

    min_margin: NonNegativeFloat | None = None
    holdout: HalfOpenUnit = 0.0
    part: Part = "all"

    def check(self, columns: Columns, path: str, split: str | None = None) -> None:
        """Refuse rules that the columns cannot serve, and a split with an empty side.

        Args:
            columns: of the table.
            path: of the table or folder, for the message.
            split: of the table; None: a folder, which has none.

        Raises:
            UserError: min_margin without margin or scores, or holdout without part or part without.
        """
        if self.part not in ("all", "train", "validation"):
            raise UserError(f"part: all, train or validation, got {self.part!r}")
        if (self.part == "all") != (self.holdout == 0):
            source = path if split is None else f"{path} ({split})"
            raise UserError(
                f"{source}: part={self.part} and holdout={self.holdout:g}: a split by caption "
                "needs part=train or part=validation, and a holdout above 0. "
                + _way_out(self.part, has_split=split is not None)
            )
        if self.min_margin is not None and columns.margin is None and columns.score_0 is None:
            raise UserError("min_margin needs columns.margin, or columns.score_0 and score_1")


def _way_out(part: Part, *, has_split: bool) -> str:
    """The keys to set; `data.validation` takes its holdout from `data.train`, but not its part."""
    same, own = (
        (" data.validation.split=train", " data.validation.split=<name>")
        if has_split
        else ("", " data.validation.path=<folder>")
    )
    if part == "train":
        return "Give data.train.holdout=0.05, or data.train.part=all"
    if part == "validation":
        return (
            "Give data.train.holdout=0.05 data.train.part=train, or, for validation pairs of their "
            f"own, data.validation.part=all{own}"
        )
    return (
        f"If this is data.validation, give data.validation.part=validation{same} for the captions "
        "that training leaves out, or data.validation.holdout=0 for pairs of its own; if it is "
        "data.train, give data.train.part=train, or data.train.holdout=0"
    )


class Selection(NamedTuple):
    """Rows that are pairs: (K,) indices into the table, (K,) which image wins, and counts."""

    rows: NDArray[np.int64]
    order: NDArray[np.int8]
    counts: dict[str, int]


def select(table: pa.Table, columns: Columns, rules: Rules, *, whole: bool = False) -> Selection:
    """Pairs of a table, in its order; reads captions and numbers, never images.

    Counts are of `rows`, `ties`, rows of the `other part`, rows `below min_margin`, and `kept`.
    A row without caption or with a label of no meaning is kept, and told when it is read.

    Args:
        table: with the columns.
        columns: what they hold.
        rules: which rows to take.
        whole: whether these are all rows there are. Both parts of a whole table have a caption, if
            two captions are left to the parts.

    Raises:
        UserError: a column of numbers holds something else.
    """
    order, ties = _order(table, columns)
    keep = ~ties
    counts = {"rows": len(table), "ties": int(ties.sum())}
    reached = _margin_reached(table, columns, rules.min_margin, order)
    other = keep & ~_in_part(table[columns.caption], rules, keep & reached if whole else None)
    keep &= ~other
    counts["other part"] = int(other.sum())
    small = keep & ~reached
    keep &= ~small
    counts["below min_margin"] = int(small.sum())
    rows = np.flatnonzero(keep)
    counts["kept"] = len(rows)
    return Selection(rows, order[rows], counts)


def account(counts: Mapping[str, int]) -> str:
    """Counts in one line, without those of filters that took nothing."""
    always = ("rows", "ties", "kept")
    return ", ".join(f"{n:,} {what}" for what, n in counts.items() if n or what in always)


def _order(table: pa.Table, columns: Columns) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """(N,) which image wins, and (N,) whether it is a tie."""
    size = len(table)
    order, ties = np.full(size, FIRST, np.int8), np.zeros(size, bool)
    if columns.winner is not None:
        return order, ties
    if columns.preferred is not None:
        order, ties = _preferred(table[columns.preferred], columns)
    elif columns.label_0 is not None:
        label = numbers(table, columns.label_0)
        order = np.select([label == 1, label == 0], [FIRST, SECOND], UNCLEAR).astype(np.int8)
        ties = np.isnan(label) | (label == 0.5)
    elif columns.score_0 is not None and columns.score_1 is not None:
        first, second = numbers(table, columns.score_0), numbers(table, columns.score_1)
        order = np.where(first > second, FIRST, SECOND).astype(np.int8)
        ties = ~(np.abs(first - second) > 0)  # equal, or one unknown
    if columns.has_label is not None:
        ties |= numbers(table, columns.has_label) != 1
    return order, ties


def _preferred(
    column: pa.ChunkedArray, columns: Columns
) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Order and ties by a column of words. Those that `columns.values` lacks are unclear."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    unique = pc.unique(column)
    values = unique.to_pylist()
    known: Mapping[Any, str] | None = columns.values
    if known is None:
        known = vocabulary(values, str(columns.preferred), columns.images, None)
    means = np.array([known.get(word(value), "") for value in values], dtype=object)
    means = means[np.asarray(pc.index_in(column, unique).to_numpy())]
    order = np.select([means == "image_0", means == "image_1"], [FIRST, SECOND], UNCLEAR)
    return order.astype(np.int8), means == "tie"


def _in_part(
    captions: pa.ChunkedArray, rules: Rules, candidates: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    """(N,) whether the caption is on the chosen side of the split."""
    if rules.part == "all":
        return np.ones(len(captions), bool)
    unique = pc.unique(captions)
    if candidates is None:
        sides = [is_held_out(caption, rules.holdout) for caption in unique.to_pylist()]
    else:
        used = pc.unique(captions.filter(pa.array(candidates))).to_pylist()
        chosen = held_out_captions(used, rules.holdout)
        sides = [str(caption or "") in chosen for caption in unique.to_pylist()]
    held = np.array(sides, bool)
    held = held[np.asarray(pc.index_in(captions, unique).to_numpy())]
    return held if rules.part == "validation" else ~held


def _margin_reached(
    table: pa.Table, columns: Columns, min_margin: float | None, order: NDArray[np.int8]
) -> NDArray[np.bool_]:
    if min_margin is None:
        return np.ones(len(table), bool)
    if columns.margin is not None:
        return numbers(table, columns.margin) >= min_margin
    assert columns.score_0 is not None
    assert columns.score_1 is not None
    lead = numbers(table, columns.score_0) - numbers(table, columns.score_1)
    return (np.where(order == FIRST, lead, -lead) >= min_margin) | (order == UNCLEAR)
