"""What every launcher shares: cells composed as Hydra's basic launcher does, then handed over."""

from __future__ import annotations

import importlib.util
import logging
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from sdpo_exp.config.cell_name import cell_labels, config_hash
from sdpo_exp.errors import UserError
from sdpo_exp.launchers.cell_job import CONSOLE_FILE, CellJob, settle_folder
from sdpo_exp.reports.run_records import runs_of

_log = logging.getLogger(__name__)


class CellLauncher(Launcher):
    """A Hydra launcher that composes cells here and runs each in a process of its own.

    A subclass says how in `run_jobs`. Whatever happens to one cell's process, the others go on.
    """

    # Where what a cell prints can be read; a subclass whose system keeps it itself says False.
    prints_to_file = True

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives, and look at the machine or cluster if that takes no job."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run a batch of cells; returns one result for each, in the order given."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        sweep_folder = Path(str(self.config.hydra.sweep.dir))
        sweep_folder.mkdir(parents=True, exist_ok=True)
        threads = self.threads(len(job_overrides))
        labels = cell_labels([filter_overrides(cell) for cell in job_overrides])
        jobs = [
            self._job(list(overrides), initial_job_idx + i, labels[i], threads)
            for i, overrides in enumerate(job_overrides)
        ]
        returned = {job.number: job.without_result() for job in jobs if _is_taken(job)}
        left = [job for job in jobs if job.number not in returned]
        if left:
            where = f"; each prints to {CONSOLE_FILE} of its folder" if self.prints_to_file else ""
            _log.info("%s%s", self.announcement(left), where)
            pairs = zip(left, self.run_jobs(left), strict=True)
            returned |= {job.number: answer for job, answer in pairs}
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [returned[job.number] for job in jobs]

    @abstractmethod
    def run_jobs(self, jobs: Sequence[CellJob]) -> list[JobReturn]:
        """Run every job; `job.without_result()` stands for one whose process gave no answer."""

    @abstractmethod
    def threads(self, cells: int) -> int:
        """How many threads each of `cells` cells may use."""

    @abstractmethod
    def announcement(self, jobs: Sequence[CellJob]) -> str:
        """One line before the cells start."""

    def side_by_side(self) -> int | None:
        """How many cells run at a time; None where only the cluster knows."""
        return None

    def _job(self, overrides: list[str], number: int, label: str, threads: int) -> CellJob:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        settle_folder(config)
        return CellJob(
            config,
            label,
            self.hydra_context,
            self.task_function,
            Singleton.get_state(),
            threads,
            str(Path.cwd()),
            self.prints_to_file,
        )


def _is_taken(job: CellJob) -> bool:
    """Whether a cell is done or somebody is at it: no job is queued to find that out."""
    if job.config.get("redo", True):
        return False
    root, digest = Path(str(job.config.hydra.sweep.dir)), config_hash(job.config)
    runs = runs_of(root, digest)
    for status, words in (("finished", "done before"), ("running", "still running")):
        for run in runs:
            if run.status == status:
                where = os.path.relpath(run.folder)
                _log.info("cell %d  %s  %s  %s", job.number, words, job.label, where)
                return True
    return False


def share_of_cores(processes: int) -> int:
    """Threads for each of `processes` on this machine, at least one."""
    return max(1, cores() // max(1, processes))


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tell_begun(job: CellJob, how: str) -> None:
    """Log that a cell was handed over, and where to look.

    Args:
        job: the cell.
        how: `started`, or `queued` where another decides when.
    """
    _log.info("cell %d  %-8s %s  %s", job.number, how, job.label, os.path.relpath(job.folder))


def tell_ended(job: CellJob) -> None:
    """Log that a cell's process came to its end by itself."""
    _log.info("cell %d  ended    %s", job.number, job.label)


def tell_died(job: CellJob, reason: str) -> None:
    """Log that a cell's process did not."""
    _log.error("cell %d  died     %s: %s; the others go on", job.number, job.label, reason)


def require(library: str, extra: str, asked: str) -> None:
    """Raise where a library is not installed.

    Raises:
        UserError: with the command that installs it.
    """
    if importlib.util.find_spec(library) is None:
        raise UserError(f"{asked} needs {library}: pip install 'sdpo_exp[{extra}]'")
