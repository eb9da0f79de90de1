"""What sources of a table share: where the table is, and which of its rows are meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sdpo_exp.bounds import HalfOpenUnit, NonNegativeFloat
from sdpo_exp.data.columns import Columns, Part, Rules, Selection, select
from sdpo_exp.data.files import absent_table
from sdpo_exp.data.numbers import NoNumber, shortened
from sdpo_exp.errors import UserError


@dataclass(eq=False)
class TableSource:
    """A table, and the least margin of its pairs; a subclass opens it once it is built.

    Args:
        path: a parquet, arrow, csv or jsonl file, a folder of them, a folder of
            `datasets.save_to_disk`, or a hub id.
        columns: which column is what.
        split: the split's name in file or folder names; a lone file is `train`.
        config: folder of a configuration inside the dataset; null: the whole dataset.
        revision: branch, tag or commit of a hub id; null: its default branch.
        min_margin: drop rows whose winner is better by less; needs a margin or scores.

    Raises:
        UserError: rules that the columns cannot serve.
    """

    path: str
    columns: Columns
    split: str = "train"
    config: str | None = None
    revision: str | None = None
    min_margin: NonNegativeFloat | None = None

    def __post_init__(self) -> None:
        """Refuse rules that the columns cannot serve."""
        self.rules.check(self.columns, self.path, self.split)

    @property
    def rules(self) -> Rules:
        """Which rows to take."""
        return Rules(self.min_margin)

    def select(self, table: pa.Table, *, whole: bool = False, passing: bool = False) -> Selection:
        """`columns.select` by these rules, whose complaints name the table.

        Args:
            table: with the columns.
            whole: whether these are all rows there are.
            passing: whether the number of a row says nothing, so that its caption has to.

        Raises:
            UserError: a column of numbers holds something else.
        """
        try:
            return select(table, self.columns, self.rules, whole=whole)
        except NoNumber as error:
            if not passing or error.row is None:
                raise UserError(f"{self.path}: {error}") from None
            caption = shortened(table[self.columns.caption][error.row].as_py())
            raise UserError(
                f"{self.path}: column '{error.column}' should hold numbers; the row of '{caption}' "
                f"{error.what}"
            ) from None

    @classmethod
    def absent(
        cls,
        path: str,
        split: str = "train",
        config: str | None = None,
        revision: str | None = None,
        **_: Any,
    ) -> str | None:
        """Why the data cannot be had, in one sentence, or None; loads nothing."""
        return absent_table(path, revision, config, split)


@dataclass(eq=False)
class TablePart(TableSource):
    """The whole of a table, or one side of a split of it by caption.

    Args:
        holdout, part: split by a hash of the caption: `train` and `validation` share no caption.
    """

    holdout: HalfOpenUnit = 0.0
    part: Part = "all"

    @property
    def rules(self) -> Rules:
        """Which rows to take."""
        return Rules(self.min_margin, self.holdout, self.part)
