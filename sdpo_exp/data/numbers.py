"""Columns of numbers, in whatever way a table has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sdpo_exp.errors import UserError

# Texts that stand for a truth value, and those that stand for no number at all.
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
_NONE = frozenset({"", "na", "n/a", "nan", "none", "null"})
# Characters of a cell in a message, and names in a list of columns.
_SHOWN, _NAMES = 40, 20


class NoNumber(UserError):  # noqa: N818 - what the cell is
    """A cell that should be a number.

    Attributes:
        row: its row in the table that was looked at, or None where the whole column is no number.
    """

    def __init__(self, column: str, what: str, row: int | None) -> None:
        self.column, self.what, self.row = column, what, row
        where = "it" if row is None else f"row {row}"
        super().__init__(f"column '{column}' should hold numbers; {where} {what}")


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64 (N,): truth values as 1 and 0, numbers as text read, null as nan.

    Raises:
        UserError: a cell holds something else; the message names its row.
    """
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _read(column, name)
    try:
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if column.null_count:
            column = column.cast(pa.float64()).fill_null(float("nan"))
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise NoNumber(name, f"holds {shortened(column.type)}", None) from None


def shortened(value: object) -> str:
    """The beginning of a cell, on one line, for a message."""
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def listed(names: Sequence[str]) -> str:
    """The first names of columns, for a message."""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(map(shortened, names[:_NAMES])) + more


def _read(column: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    unique = pc.unique(column)
    values = np.array([_number(text) for text in unique.to_pylist()], dtype=object)
    found = values[np.asarray(pc.index_in(column, unique).to_numpy())]
    wrong = np.flatnonzero(np.array([value is None for value in found], bool))
    if len(wrong):
        row = int(wrong[0])
        raise NoNumber(name, f"has '{shortened(column[row].as_py())}'", row)
    return found.astype(np.float64)


def _number(text: str | None) -> float | None:
    word = (text or "").strip().lower()
    if word in _NONE:
        return float("nan")
    if word in _WORDS:
        return _WORDS[word]
    try:
        return float(word)
    except ValueError:
        return None
