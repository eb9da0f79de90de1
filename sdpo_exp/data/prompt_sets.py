"""Prompt sets to draw and judge images from: public lists, and files of the user's own."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpo_exp import hub
from sdpo_exp.bounds import PositiveInt
from sdpo_exp.data.prompt_files import PromptColumns, PromptRow, read_prompts
from sdpo_exp.data.prompt_hashes import (
    PromptList,
    check_pin,
    compare_with_pin,
    compare_with_record,
    texts_hash,
)
from sdpo_exp.data.prompt_source import absent_files, find_files
from sdpo_exp.errors import UserError

if TYPE_CHECKING:
    from sdpo_exp.types import Prompt

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Columns of a table of scores, beside which labels stand.
_TAKEN = ("set", "index", "seed", "prompt", "metric", "score")


class FilePrompts:
    """Prompts of files in their order, byte for byte: local files, or those of a hub dataset.

    The hash of the whole list is compared with a pin, or else with what the same source gave the
    last time; a change is logged as a warning.

    Args:
        path: a file, a folder, or the id of a hub dataset.
        name: of the set; null: of the file, without its ending.
        revision: branch, tag or commit of a hub id; null: its default branch.
        files: those to read of a folder or dataset, in this order, by name or pattern; or label by
            file, on the label axis `axis`. A lone file in place of several labelled ones has their
            labels in blocks of equal length, if it has `expected` prompts. Null: the only one.
        axis: label axis of labelled files.
        column: of the prompts; of several names the first that a file has.
        labels: column by label axis.
        labels_optional: whether files may lack columns of labels.
        unique: leave out prompts that came before.
        expected: how many there should be; another number is logged as a warning.
        first: take only so many; null: all.
        sha256: hash that the whole list should have; null: what it was the last time.

    Raises:
        UserError: no such data, a column that is not there, or a prompt that is none.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        revision: str | None = None,
        files: list[str] | dict[str, str] | None = None,
        axis: str = "category",
        column: str | list[str] = "prompt",
        labels: dict[str, str] | None = None,
        labels_optional: bool = False,
        unique: bool = False,
        expected: PositiveInt | None = None,
        first: PositiveInt | None = None,
        sha256: str | None = None,
    ) -> None:
        self.name = _checked_name(Path(path).stem if name is None else name)
        names = [column] if isinstance(column, str) else list(column)
        columns = PromptColumns(names, dict(labels or {}), labels_optional)
        _check_axes(path, [*columns.labels, *([axis] if isinstance(files, Mapping) else [])])
        if sha256 is not None:
            check_pin(sha256, self.name)
        found = find_files(path, revision, _patterns(files))
        parts = [[row for file in part for row in read_prompts(file, columns)] for part in found]
        rows = [row for part in parts for row in part]
        if isinstance(files, Mapping):
            rows = self._labelled(parts, list(files), axis, expected)
        kept = _without_repeats(rows) if unique else rows
        self._compare(_identified(self.name, path, revision, kept), expected, sha256)
        self.rows = kept[:first]
        self.description = _account(path, len(rows), len(kept), len(self.rows))
        _log.info("%s: %s, sha256 %s", self.name, self.description, self.fingerprint())

    @classmethod
    def absent(
        cls,
        path: str,
        revision: str | None = None,
        files: Sequence[str] | Mapping[str, str] | None = None,
        **_: Any,
    ) -> str | None:
        """Why the prompts cannot be had, in one sentence, or None; loads nothing."""
        return absent_files(path, revision, _patterns(files))

    def prompts(self) -> Sequence[Prompt]:
        """All of them, or the first so many; `prompts()[i].index` is i."""
        return self._prompts

    def fingerprint(self) -> str:
        """sha256 over the texts of `prompts()`, in order; no labels, no names and no paths."""
        return texts_hash([row.text for row in self.rows])

    @cached_property
    def _prompts(self) -> Sequence[Prompt]:
        from sdpo_exp.types import Prompt

        return tuple(Prompt(i, row.text, row.labels) for i, row in enumerate(self.rows))

    def _labelled(
        self,
        parts: Sequence[Sequence[PromptRow]],
        labels: Sequence[str],
        axis: str,
        expected: int | None,
    ) -> list[PromptRow]:
        """All rows with the labels of their files, or, of a lone file, of their blocks."""
        if len(parts) < len(labels):
            (rows,) = parts
            size, rest = divmod(len(rows), len(labels))
            if rest or len(rows) != expected:
                _log.warning(
                    "prompts %s: no labels '%s': one file in place of %s, without %s prompts",
                    *(self.name, axis, ", ".join(labels), expected or "a known number of"),
                )
                return list(rows)
            parts = [rows[i * size : (i + 1) * size] for i in range(len(labels))]
        return [
            PromptRow(row.text, {**row.labels, axis: label})
            for label, part in zip(labels, parts, strict=True)
            for row in part
        ]

    def _compare(self, found: PromptList, expected: int | None, pin: str | None) -> None:
        """Warn where the whole list is not what it should be."""
        if expected is not None and found.n != expected:
            _log.warning(
                "prompts %s: %s has %d, not %d", self.name, found.source, found.n, expected
            )
        if pin is None:
            compare_with_record(found)
        else:
            compare_with_pin(found, pin)


def _identified(
    name: str, path: str, revision: str | None, rows: Sequence[PromptRow]
) -> PromptList:
    sha256 = texts_hash([row.text for row in rows])
    if (local := hub.local_path(path)) is not None:
        return PromptList(name, str(local.resolve()), None, sha256, len(rows))
    return PromptList(name, path, revision, sha256, len(rows))


def _account(path: str, read: int, kept: int, taken: int) -> str:
    repeats = f", {read - kept} repeats left out" if kept < read else ""
    part = f"the first {taken} of " if taken < kept else ""
    return f"{part}{kept} prompts of {path}{repeats}"


def _patterns(files: Sequence[str] | Mapping[str, str] | None) -> list[str]:
    return list(files.values() if isinstance(files, Mapping) else files or ())


def _without_repeats(rows: Iterable[PromptRow]) -> list[PromptRow]:
    first: dict[str, PromptRow] = {}
    for row in rows:
        first.setdefault(row.text, row)
    return list(first.values())


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError(
            f"prompts.name={name}: a set's name is of letters, digits, '.', '_' and '-', as it "
            "names folders; give prompts.name=<name>"
        )
    return name


def _check_axes(path: str, axes: Sequence[str]) -> None:
    for axis in axes:
        if axis in _TAKEN or axes.count(axis) > 1:
            why = "a column of scores" if axis in _TAKEN else "named twice"
            raise UserError(f"{path}: the label axis '{axis}' is {why}; give it another name")
