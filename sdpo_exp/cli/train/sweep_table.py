"""How the cells of a sweep ended: the table that it ends with."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from sdpo_exp.cli.environment import code_revision
from sdpo_exp.cli.printed import command
from sdpo_exp.cli.train.sweep import labels_of
from sdpo_exp.config.cell_name import config_hash
from sdpo_exp.reports.run_records import RunRecord, find_runs
from sdpo_exp.reports.text_table import shortened, text_table
from sdpo_exp.reports.verdict import main_result
from sdpo_exp.terminal.screen import columns

_SKIPPED, _DONE = "skipped", "done"


class CellEnd(NamedTuple):
    """How one cell of a sweep ended."""

    label: str
    status: str
    seconds: float | None
    note: str
    record: RunRecord | None

    @property
    def has_result(self) -> bool:
        """Whether there are numbers to show."""
        return self.status in (_DONE, _SKIPPED)


def tell_sweep(cells: Sequence[DictConfig], began: float) -> int:
    """Print a table of a sweep's cells, and return how many are not done.

    Args:
        cells: composed configurations with their `hydra` nodes.
        began: when the sweep did, in seconds since the epoch.
    """
    ends = cell_ends(cells, began)
    counts = Counter(end.status for end in ends)
    print("\n" + "\n".join(sweep_table(ends, columns())))
    print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    others = {
        str(end.record.environment.get("git_revision"))[:12]
        for end in ends
        if end.status == _SKIPPED and end.record is not None
    } - {str(code_revision())[:12]}
    if others:
        print(
            f"skipped cells were done by another revision of the code ({', '.join(sorted(others))})"
            "; redo=true runs them again"
        )
    roots = sorted({os.path.relpath(Path(cell.hydra.sweep.dir)) for cell in cells})
    print(f"look at them together: {command('report', *roots)}")
    return len(ends) - counts[_DONE] - counts[_SKIPPED]


def cell_ends(cells: Sequence[DictConfig], began: float) -> list[CellEnd]:
    """How each cell ended, by what lies in its folders, whichever process ran it."""
    roots = {Path(cell.hydra.sweep.dir) for cell in cells}
    newest: dict[tuple[Path, str], RunRecord] = {}
    for root in roots:
        for record in sorted(find_runs([root]), key=_better):
            newest[root, record.digest] = record
    labels = labels_of(cells)
    keys = [(Path(cell.hydra.sweep.dir), config_hash(cell)) for cell in cells]
    return [_end(label, newest.get(key), began) for label, key in zip(labels, keys, strict=True)]


def _better(record: RunRecord) -> tuple[bool, float]:
    return record.status == "finished", record.started_at


def _end(label: str, record: RunRecord | None, began: float) -> CellEnd:
    # Starts are written in whole seconds.
    new = record is not None and record.started_at >= int(began)
    if record is None or (not new and record.status != "finished"):
        return CellEnd(label, "not run", None, "", record)
    seconds, where = record.summary.get("seconds"), os.path.relpath(record.folder)
    if record.status == "finished":
        return CellEnd(label, _DONE if new else _SKIPPED, seconds, where, record)
    return CellEnd(label, record.status, seconds, record.reason or where, record)


def sweep_table(ends: Sequence[CellEnd], width: int | None) -> list[str]:
    """How every cell ended and what came of it, in a terminal's width; None: any width.

    Folders are left out where they do not fit; why a cell failed then stands below it.
    """
    rows = [
        {
            "cell": end.label,
            "status": end.status,
            "seconds": "" if end.seconds is None else f"{end.seconds:.0f}",
            "result": main_result(end.record.summary) if end.record and end.has_result else "",
            "note": end.note,
        }
        for end in ends
    ]
    words = ("cell", "status", "result", "note")
    lines = text_table(rows, left=words).lines
    if width is None or max(map(len, lines)) <= width:
        return lines
    for row, end in zip(rows, ends, strict=True):
        row["note"] = "" if end.has_result else shortened(end.note, 4 * width)
    if not any(row["note"] for row in rows):
        rows = [{key: cell for key, cell in row.items() if key != "note"} for row in rows]
    return text_table(
        rows, width=width, left=words, spare=("seconds",), below="note", cut="cell"
    ).lines
