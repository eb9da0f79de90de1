"""Cells as jobs of a SLURM cluster, or as detached processes here, both by submitit."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.utils import JobReturn, env_override

from sdpo_exp.bounds import NonNegativeInt, PositiveFloat, PositiveInt
from sdpo_exp.errors import first_line
from sdpo_exp.launchers.base import (
    CellLauncher,
    cores,
    require,
    tell_begun,
    tell_died,
    tell_ended,
)
from sdpo_exp.launchers.cell_job import CellJob, import_path

if TYPE_CHECKING:
    import submitit

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 20
JOBS_FOLDER = ".submitit"


class SubmititLauncher(CellLauncher):
    """One job per cell; on SLURM all of a batch are one job array.

    Args:
        cluster: `slurm`, or `local` for processes on this machine that outlive the terminal.
        n_jobs: how many run at a time; null means all that SLURM lets in, or the cores here.
        timeout_min: minutes after which a job is ended.
        cpus_per_task: CPUs of a job, and its threads.
        gpus_per_node: GPUs of a job.
        mem_gb: memory of a job; null asks for the partition's default.
        name: of the jobs in `squeue`.
        slurm_partition: where to queue.
        slurm_account: on whose account.
        slurm_qos: quality of service.
        slurm_constraint: features that the node must have.
        slurm_setup: shell lines before the job, such as `module load cuda`.
        slurm_additional_parameters: further `#SBATCH` directives by their long names.
        poll_seconds: how often to look whether a job has ended.
    """

    prints_to_file = False

    def __init__(
        self,
        cluster: Literal["slurm", "local"] = "slurm",
        n_jobs: PositiveInt | None = None,
        timeout_min: PositiveInt = 1440,
        cpus_per_task: PositiveInt = 1,
        gpus_per_node: NonNegativeInt = 0,
        mem_gb: PositiveFloat | None = None,
        name: str = "sdpo_exp",
        slurm_partition: str | None = None,
        slurm_account: str | None = None,
        slurm_qos: str | None = None,
        slurm_constraint: str | None = None,
        slurm_setup: list[str] | None = None,
        slurm_additional_parameters: dict[str, Any] | None = None,
        poll_seconds: PositiveFloat = 10.0,
    ) -> None:
        self.cluster, self.n_jobs, self.cpus_per_task = cluster, n_jobs, cpus_per_task
        self.poll_seconds = poll_seconds
        self.parameters = {
            "timeout_min": timeout_min,
            "cpus_per_task": cpus_per_task,
            "gpus_per_node": gpus_per_node,
            "mem_gb": mem_gb,
            "name": name,
            "slurm_partition": slurm_partition,
            "slurm_account": slurm_account,
            "slurm_qos": slurm_qos,
            "slurm_constraint": slurm_constraint,
            "slurm_setup": slurm_setup and list(slurm_setup),
            "slurm_additional_parameters": dict(slurm_additional_parameters or {}) or None,
        }

    def threads(self, cells: int) -> int:  # noqa: ARG002
        """What each job asks for."""
        return self.cpus_per_task

    def side_by_side(self) -> int | None:
        """`n_jobs`, or the cores here."""
        if self.cluster == "local" and self.n_jobs is None:
            return max(1, cores() // self.cpus_per_task)
        return self.n_jobs

    def announcement(self, jobs: Sequence[CellJob]) -> str:
        """Cells and where they go."""
        return f"{len(jobs)} cells as jobs of submitit's cluster {self.cluster}"

    def run_jobs(self, jobs: Sequence[CellJob]) -> list[JobReturn]:
        """Submit, wait, and collect."""
        executor = self._executor(Path(str(self.config.hydra.sweep.dir)) / JOBS_FOLDER)
        running: dict[int, submitit.Job[JobReturn]] = {}
        returned: dict[int, JobReturn] = {}
        waiting = list(jobs)
        try:
            while waiting or running:
                room = self._room(len(waiting), len(running))
                for job, submitted in self._submit(executor, waiting[:room]):
                    running[job.number] = submitted
                del waiting[:room]
                for job in jobs:
                    if job.number in running and running[job.number].done():
                        returned[job.number] = _collect(job, running.pop(job.number))
                if running:
                    time.sleep(self.poll_seconds)
        except KeyboardInterrupt:
            self._leave(list(running.values()))
            raise
        return [returned[job.number] for job in jobs]

    def _executor(self, folder: Path) -> submitit.AutoExecutor:
        require("submitit", "slurm", "hydra/launcher=submitit")
        import submitit

        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        given = {key: value for key, value in self.parameters.items() if value is not None}
        if self.cluster == "slurm" and self.n_jobs:
            given["slurm_array_parallelism"] = self.n_jobs
        if self.cluster == "local":
            given = {key: value for key, value in given.items() if not key.startswith("slurm_")}
        executor.update_parameters(**given)
        return executor

    def _room(self, waiting: int, running: int) -> int:
        """How many more to submit now; SLURM holds its own queue."""
        if self.cluster == "slurm":
            return waiting
        return max(0, (self.side_by_side() or 1) - running)

    def _submit(
        self, executor: submitit.AutoExecutor, jobs: Sequence[CellJob]
    ) -> list[tuple[CellJob, submitit.Job[JobReturn]]]:
        if not jobs:
            return []
        # SLURM hands the environment of `sbatch` on to its jobs.
        with env_override({"PYTHONPATH": import_path()}):
            submitted = executor.map_array(CellJob.__call__, jobs)
        for job, handle in zip(jobs, submitted, strict=True):
            tell_begun(job, f"job {handle.job_id}")
        return list(zip(jobs, submitted, strict=True))

    def _leave(self, running: list[submitit.Job[JobReturn]]) -> None:
        """SLURM's jobs stay, for days may be in them; those here end with the command."""
        if self.cluster == "local":
            # The terminal's signal reached them, too: let them save what they have.
            until = time.monotonic() + _GRACE_SECONDS
            while time.monotonic() < until and not all(handle.done() for handle in running):
                time.sleep(self.poll_seconds)
            for handle in running:
                if not handle.done():
                    handle.cancel()
            return
        numbers = " ".join(str(handle.job_id) for handle in running)
        if numbers:
            _log.warning("these jobs stay in the queue; to end them: scancel %s", numbers)


def _collect(job: CellJob, handle: submitit.Job[JobReturn]) -> JobReturn:
    try:
        returned = handle.result()
    # Whatever a cluster comes up with concerns one cell: cancelled, timed out, node lost.
    except Exception as error:
        tell_died(job, f"{handle.state}: {_last_words(error)} ({handle.paths.stderr})")
        return job.without_result()
    tell_ended(job)
    return returned


def _last_words(error: Exception) -> str:
    """submitit puts a job's whole output into its errors."""
    return first_line(error)[:200]
