"""Cells side by side on this machine: joblib's worker processes, one cell each at a time."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn

from sdpo_exp.bounds import NonNegativeInt, PositiveInt
from sdpo_exp.launchers.base import (
    CellLauncher,
    cores,
    share_of_cores,
    tell_begun,
    tell_died,
    tell_ended,
)
from sdpo_exp.launchers.cell_job import CellJob, thread_environment

if TYPE_CHECKING:
    from concurrent.futures import Future

    from joblib.externals.loky.process_executor import ProcessPoolExecutor

# For cells to save what they have after an interrupt.
_GRACE_SECONDS = 20
_LOOK_SECONDS = 2.0
# Held in a worker while a cell runs.
_at_work = threading.Lock()


class JoblibLauncher(CellLauncher):
    """`n_jobs` processes that take cell after cell.

    joblib's pool ends all its processes when one is killed. So each process here is a pool of its
    own: a cell that the system kills for its memory takes no other cell with it, and a new process
    takes the next one.

    Args:
        n_jobs: processes; null means one per core, or one per entry of `gpus`.
        gpus: numbers of the CUDA devices; each process sees one of them, in turn. null leaves
            CUDA_VISIBLE_DEVICES alone, so that all processes use the same device.
    """

    def __init__(
        self, n_jobs: PositiveInt | None = None, gpus: list[NonNegativeInt] | None = None
    ) -> None:
        self.n_jobs = n_jobs
        self.gpus = None if gpus is None else list(gpus)

    def processes(self, cells: int) -> int:
        """How many processes `cells` cells get."""
        return min(cells, self.side_by_side())

    def side_by_side(self) -> int:
        """As many as there are processes."""
        return self.n_jobs or len(self.gpus or ()) or cores()

    def threads(self, cells: int) -> int:
        """The cores, divided by the processes."""
        return share_of_cores(self.processes(cells))

    def announcement(self, jobs: Sequence[CellJob]) -> str:
        """Cells, processes and threads."""
        count = self.processes(len(jobs))
        return f"{len(jobs)} cells in {count} processes, {jobs[0].threads} thread(s) each"

    def run_jobs(self, jobs: Sequence[CellJob]) -> list[JobReturn]:
        """Keep every process busy until all cells are through."""
        from concurrent.futures import FIRST_COMPLETED, wait

        waiting = list(jobs)
        slots = [_Slot(self._environment(i, jobs[0])) for i in range(self.processes(len(jobs)))]
        busy: dict[Future[JobReturn], tuple[_Slot, CellJob]] = {}
        returned: dict[int, JobReturn] = {}
        clean = False
        try:
            while waiting or busy:
                taken = {slot for slot, _ in busy.values()}
                for slot in slots:
                    if slot not in taken and waiting:
                        job = waiting.pop(0)
                        tell_begun(job, "started")
                        busy[slot.submit(job)] = slot, job
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    slot, job = busy.pop(future)
                    returned[job.number] = slot.result(future, job)
            clean = True
        except KeyboardInterrupt:
            wait(busy, timeout=_GRACE_SECONDS)  # the terminal's signal goes to every cell, too
            raise
        finally:
            for slot in slots:
                slot.close(kill=not clean)
        return [returned[job.number] for job in jobs]

    def _environment(self, slot: int, job: CellJob) -> dict[str, str]:
        environment = thread_environment(job.threads)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(self.gpus[slot % len(self.gpus)])
        return environment


class _Slot:
    """One worker process, replaced after it died."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, job: CellJob) -> Future[JobReturn]:
        """Start a cell."""
        from joblib.externals.loky.process_executor import ProcessPoolExecutor

        if self._pool is None:
            self._pool = ProcessPoolExecutor(max_workers=1, env=self._environment)
        future: Future[JobReturn] = self._pool.submit(_run, job, os.getpid())
        return future

    def result(self, future: Future[JobReturn], job: CellJob) -> JobReturn:
        """What a cell returned; a cell that ended its process is told, and the slot is new."""
        from joblib.externals.loky.process_executor import BrokenProcessPool

        try:
            returned = future.result()
        except BrokenProcessPool as error:
            self.close(kill=True)
            tell_died(job, _how(error))
            return job.without_result()
        tell_ended(job)
        return returned

    def close(self, *, kill: bool) -> None:
        """End the process; without `kill` only where it is idle."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=kill)
            self._pool = None


def _run(job: CellJob, parent: int) -> JobReturn:
    """Run a cell in a worker process."""
    if not any(thread.name == _ORPHAN_WATCH for thread in threading.enumerate()):
        threading.Thread(target=_end_with, args=(parent,), name=_ORPHAN_WATCH, daemon=True).start()
    with _at_work:
        return job()


_ORPHAN_WATCH = "end with the command"


def _end_with(parent: int) -> None:
    """End this process once the command was killed and the cell is through.

    A worker of joblib's would wait for its next task for ever, and keep its memory.
    """
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    with _at_work:
        os._exit(1)


def _how(error: Exception) -> str:
    """Its exit code, such as SIGKILL, from a page of advice."""
    found = re.search(r"exit codes of the workers are \{([^}]*)\}", str(error))
    return f"its process ended by {found[1]}" if found else "its process ended"
