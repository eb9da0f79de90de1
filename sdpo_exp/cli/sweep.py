"""A sweep: every cell once, whatever happens to the others, and a table of how they all ended."""

from __future__ import annotations

import logging
import os
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sdpo_exp.cli.environment import code_revision
from sdpo_exp.config.cell_name import cell_labels, config_hash
from sdpo_exp.errors import Interrupted, UserError, first_line
from sdpo_exp.reports.run_records import RunRecord, find_runs, finished_run

_log = logging.getLogger(__name__)
_SKIPPED, _DONE = "skipped", "done"


class CellEnd(NamedTuple):
    """How one cell of a sweep ended."""

    label: str
    status: str
    seconds: float | None
    note: str
    record: RunRecord | None


def run_cell(config: DictConfig, train: Callable[[DictConfig], None]) -> None:
    """Run a cell that is not done yet; a failure is told and the other cells go on.

    What failed can be read in the cell's folder, and in the table at the end.

    Raises:
        KeyboardInterrupt: the user stopped it, and with it the sweep.
    """
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    done = None if config.redo else finished_run(Path(job.sweep.dir), config_hash(config))
    if done is not None:
        _log.info("done before: %s", relative(done.folder))
        _take_away(folder, {".hydra", f"{job.job.name}.log"})
        return
    try:
        train(config)
    except Interrupted as error:
        _log.error("%s", error)
        raise KeyboardInterrupt from None
    except UserError as error:
        _log.error("%s", error)
    except (Exception, SystemExit) as error:
        (folder / "error.txt").write_text(traceback.format_exc())
        where = relative(folder / "error.txt")
        _log.error("%s: %s; all of it: %s", type(error).__name__, first_line(error), where)


def _take_away(folder: Path, hydras: set[str]) -> None:
    """The folder that Hydra made for a cell that has one already."""
    if {path.name for path in folder.iterdir()} <= hydras:
        shutil.rmtree(folder)


def tell_sweep(cells: Sequence[DictConfig], began: float) -> int:
    """Print a table of a sweep's cells, and return how many are not done.

    Args:
        cells: composed configurations with their `hydra` nodes.
        began: when the sweep did, in seconds since the epoch.
    """
    ends = cell_ends(cells, began)
    counts = Counter(end.status for end in ends)
    print("\n" + "\n".join(_lines(ends)))
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
    roots = sorted({relative(Path(cell.hydra.sweep.dir)) for cell in cells})
    print(f"look at them together: python -m sdpo_exp.report {' '.join(roots)}")
    return len(ends) - counts[_DONE] - counts[_SKIPPED]


def cell_ends(cells: Sequence[DictConfig], began: float) -> list[CellEnd]:
    """How each cell ended, by what lies in its folders, whichever process ran it."""
    roots = {Path(cell.hydra.sweep.dir) for cell in cells}
    newest: dict[tuple[Path, str], RunRecord] = {}
    for root in roots:
        for record in sorted(find_runs([root]), key=_better):
            newest[root, record.digest] = record
    labels = cell_labels([[str(line) for line in cell.hydra.overrides.task] for cell in cells])
    keys = [(Path(cell.hydra.sweep.dir), config_hash(cell)) for cell in cells]
    return [_end(label, newest.get(key), began) for label, key in zip(labels, keys, strict=True)]


def _better(record: RunRecord) -> tuple[bool, float]:
    return record.status == "finished", record.started_at


def _end(label: str, record: RunRecord | None, began: float) -> CellEnd:
    # Starts are written in whole seconds.
    new = record is not None and record.started_at >= int(began)
    if record is None or (not new and record.status != "finished"):
        return CellEnd(label, "not run", None, "", record)
    seconds = record.summary.get("seconds")
    if record.status == "finished":
        return CellEnd(label, _DONE if new else _SKIPPED, seconds, relative(record.folder), record)
    return CellEnd(label, record.status, seconds, record.reason or relative(record.folder), record)


def _lines(ends: Sequence[CellEnd]) -> list[str]:
    width = max(len("cell"), *(len(end.label) for end in ends))
    lines = [f"{'cell':<{width}}  {'status':<11}  {'seconds':>7}  "]
    for end in ends:
        seconds = "" if end.seconds is None else f"{end.seconds:.0f}"
        lines.append(f"{end.label:<{width}}  {end.status:<11}  {seconds:>7}  {end.note}")
    return [line.rstrip() for line in lines]


def relative(path: Path) -> str:
    """As seen from the current folder, which is shorter to read and to copy."""
    return os.path.relpath(path)
