"""A sweep: every cell once, whatever happens to the others."""

from __future__ import annotations

import logging
import os
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sdpo_exp.config.cell_name import cell_labels, config_hash
from sdpo_exp.errors import Interrupted, UserError, first_line
from sdpo_exp.reports.run_records import RunRecord, finished_run
from sdpo_exp.terminal.pace import cell_title, cells_left

_log = logging.getLogger(__name__)


class Sweep:
    """The cells that one process goes through, and how long those took that it ran."""

    def __init__(self) -> None:
        self._labels: list[str] = []
        self._cells: list[tuple[Path, str, bool]] = []
        self._seconds: list[float] = []

    def begin(self, cells: Sequence[DictConfig]) -> None:
        """Know the cells; none: it is no sweep, or its sweeper chooses them on the way."""
        self._labels = labels_of(cells)
        self._cells = [
            (Path(cell.hydra.sweep.dir), config_hash(cell), bool(cell.redo)) for cell in cells
        ]

    def title(self, number: int) -> str | None:
        """`cell 3/18, 12 min left: seed=1` of cell 2; None where they are not known."""
        if number >= len(self._cells):
            return None
        left = sum(_done(*cell) is None for cell in self._cells[number:])
        title = cell_title(number, len(self._cells), cells_left(self._seconds, left))
        label = self._labels[number]
        return f"{title}: {label}" if label else title

    def run(self, config: DictConfig, train: Callable[[DictConfig], None]) -> None:
        """Run a cell that is not done yet; a failure is told and the other cells go on.

        What failed can be read in the cell's folder, and in the table at the end.

        Raises:
            KeyboardInterrupt: the user stopped it, and with it the sweep.
        """
        job = HydraConfig.get()
        done = _done(Path(job.sweep.dir), config_hash(config), config.redo)
        if done is not None:
            _log.info("done before: %s", os.path.relpath(done.folder))
            _take_away(Path(job.runtime.output_dir), {".hydra", f"{job.job.name}.log"})
            return
        if title := self.title(job.job.num):
            _log.info("\n%s", title)
        began = time.monotonic()
        if _ends_well(config, train, Path(job.runtime.output_dir)):
            self._seconds.append(time.monotonic() - began)


def labels_of(cells: Sequence[DictConfig]) -> list[str]:
    """What is particular to each cell, in words of its command line."""
    return cell_labels([[str(line) for line in cell.hydra.overrides.task] for cell in cells])


def _done(root: Path, digest: str, redo: bool) -> RunRecord | None:
    return None if redo else finished_run(root, digest)


def _ends_well(config: DictConfig, train: Callable[[DictConfig], None], folder: Path) -> bool:
    try:
        train(config)
    except Interrupted as error:
        _log.error("%s", error)
        raise KeyboardInterrupt from None
    except UserError as error:
        _log.error("%s", error)
    except (Exception, SystemExit) as error:
        (folder / "error.txt").write_text(traceback.format_exc())
        where = os.path.relpath(folder / "error.txt")
        _log.error("%s: %s; all of it: %s", type(error).__name__, first_line(error), where)
    else:
        return True
    return False


def _take_away(folder: Path, hydras: set[str]) -> None:
    """The folder that Hydra made for a cell that has one already."""
    if {path.name for path in folder.iterdir()} <= hydras:
        shutil.rmtree(folder)
