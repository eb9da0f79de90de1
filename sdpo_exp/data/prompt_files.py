"""A file of prompts as checked texts with labels."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sdpo_exp.data.numbers import listed
from sdpo_exp.data.prompt_formats import Cells, Table, read_table
from sdpo_exp.errors import UserError

_log = logging.getLogger(__name__)


class PromptRow(NamedTuple):
    """A prompt's text, byte for byte, and its labels by axis."""

    text: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class PromptColumns:
    """Which columns of a file are what; lists of texts have none.

    Attributes:
        text: names for the prompts' column; the first that a file has is it.
        labels: column by label axis. An empty or null cell is no label.
        labels_optional: whether a file may lack columns of labels; then it has fewer.
    """

    text: Sequence[str] = ("prompt",)
    labels: Mapping[str, str] = field(default_factory=dict)
    labels_optional: bool = False


def read_prompts(path: Path, columns: PromptColumns) -> list[PromptRow]:
    """All prompts of a file, in order.

    Raises:
        UserError: as `read_table`; or no prompt, no such column, or a prompt that is blank or no
            text, by its row and, where there are lines, its line.
    """
    table = read_table(path, {*columns.text, *columns.labels.values()})
    if not table.rows:
        raise UserError(f"{path}: no prompt in it")
    text = _text_column(path, columns.text, table) if table.columns else ""
    labels = _label_columns(path, columns, table)
    found: list[PromptRow] = []
    problems: list[str] = []
    for where, cells in table.rows:
        try:
            value = cells if isinstance(cells, str) else cells.get(text)
            found.append(PromptRow(_checked(value), _labels_of(cells, labels)))
        except ValueError as error:
            problems.append(f"{where}: {error}")
    if problems:
        more = f" (and {len(problems) - 1} more rows)" if len(problems) > 1 else ""
        raise UserError(f"{path} {problems[0]}{more}")
    return found


def _text_column(path: Path, names: Sequence[str], table: Table) -> str:
    found = next((name for name in names if name in table.columns), None)
    if found is None:
        raise _no_column(path, names, table.columns)
    return found


def _label_columns(path: Path, columns: PromptColumns, table: Table) -> dict[str, str]:
    missing = {a: name for a, name in columns.labels.items() if name not in table.columns}
    if missing and not columns.labels_optional:
        raise _no_column(path, [next(iter(missing.values()))], table.columns)
    if missing:
        _log.warning("%s: no labels %s; it has no such column", path, ", ".join(missing))
    return {axis: name for axis, name in columns.labels.items() if axis not in missing}


def _no_column(path: Path, names: Sequence[str], present: Sequence[str]) -> UserError:
    quoted = " or ".join(f"'{name}'" for name in names)
    if not present:
        return UserError(f"{path}: no column {quoted}: it is a list of texts, without columns")
    folded = {name.casefold(): name for name in present}
    near = difflib.get_close_matches(names[0].casefold(), folded, n=1)
    hint = f"; did you mean '{folded[near[0]]}'?" if near else "."
    return UserError(f"{path}: no column {quoted}{hint} It has: {listed(present)}")


def _checked(value: Any) -> str:
    """A prompt as it is.

    Raises:
        ValueError: it cannot be one.
    """
    if value is None:
        raise ValueError("no prompt (null, or not there)")
    if not isinstance(value, str):
        raise ValueError(f"no prompt but a {type(value).__name__}")
    if not value.strip():
        raise ValueError("blank prompt")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("prompt with half a character (a lone surrogate)") from None
    return value


def _labels_of(cells: Cells, columns: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for axis, column in columns.items():
        value = None if isinstance(cells, str) else cells.get(column)
        if not isinstance(value, str | int | float | None):
            raise ValueError(f"label '{column}' is a {type(value).__name__}, not a text")
        if value is not None and value != "":
            found[axis] = str(value)
    return found
