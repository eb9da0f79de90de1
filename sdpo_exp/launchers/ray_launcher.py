"""Cells as tasks of a Ray cluster, or of one that starts and ends with the command."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn

from sdpo_exp.bounds import NonNegativeFloat, PositiveFloat, PositiveInt
from sdpo_exp.errors import first_line
from sdpo_exp.launchers.base import CellLauncher, cores, require, tell_begun, tell_died, tell_ended
from sdpo_exp.launchers.cell_job import CellJob, import_path, thread_environment

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray asks users to choose between its old and its new treatment of tasks without a GPU.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class RayLauncher(CellLauncher):
    """One task per cell, each in a fresh process; none is tried twice.

    Args:
        address: of a running cluster, `auto` for the one this machine belongs to; null starts one
            on this machine for as long as the command runs.
        num_cpus: CPUs that a cluster started here may use; null means all.
        num_gpus: GPUs likewise.
        cpus_per_cell: CPUs that a cell takes, and its threads if it is one or more.
        gpus_per_cell: GPUs that a cell takes; a fraction lets cells share one.
    """

    def __init__(
        self,
        address: str | None = None,
        num_cpus: PositiveInt | None = None,
        num_gpus: PositiveInt | None = None,
        cpus_per_cell: PositiveFloat = 1.0,
        gpus_per_cell: NonNegativeFloat = 0.0,
    ) -> None:
        self.address, self.num_cpus, self.num_gpus = address, num_cpus, num_gpus
        self.cpus_per_cell, self.gpus_per_cell = cpus_per_cell, gpus_per_cell

    def threads(self, cells: int) -> int:  # noqa: ARG002
        """What each cell asks for."""
        return max(1, int(self.cpus_per_cell))

    def side_by_side(self) -> int | None:
        """What fits the CPUs and GPUs given to a cluster started here."""
        if self.address is not None:
            return None
        room = [int((self.num_cpus or cores()) // self.cpus_per_cell)]
        if self.num_gpus and self.gpus_per_cell:
            room.append(int(self.num_gpus // self.gpus_per_cell))
        return max(1, min(room))

    def announcement(self, jobs: Sequence[CellJob]) -> str:
        """Cells and where they go."""
        return f"{len(jobs)} cells as tasks of Ray, {self.address or 'started here'}"

    def run_jobs(self, jobs: Sequence[CellJob]) -> list[JobReturn]:
        """Start or join the cluster, run the tasks, and leave it."""
        require("ray", "ray", "hydra/launcher=ray")
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        self._join(ray, jobs[0])
        try:
            return self._run_tasks(ray, jobs)
        finally:
            ray.shutdown()

    def _join(self, ray: Any, job: CellJob) -> None:
        environment = {"PYTHONPATH": import_path(), **thread_environment(job.threads)}
        here: dict[str, Any] = {}
        if self.address is None:
            here = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
            here |= {"include_dashboard": False}
        ray.init(
            address=self.address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": environment},
            **here,
        )

    def _run_tasks(self, ray: Any, jobs: Sequence[CellJob]) -> list[JobReturn]:
        task = ray.remote(
            max_calls=1,
            max_retries=0,
            num_cpus=self.cpus_per_cell,
            num_gpus=self.gpus_per_cell,
        )(_run)
        pending: dict[Any, CellJob] = {}
        for job in jobs:
            pending[task.remote(job)] = job
            tell_begun(job, "queued")
        returned: dict[int, JobReturn] = {}
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1)
            job = pending.pop(done[0])
            returned[job.number] = _collect(ray, done[0], job)
        return [returned[job.number] for job in jobs]


def _run(job: CellJob) -> JobReturn:
    return job()


def _collect(ray: Any, reference: Any, job: CellJob) -> JobReturn:
    try:
        returned: JobReturn = ray.get(reference)
    except ray.exceptions.RayError as error:
        tell_died(job, f"{type(error).__name__}: {first_line(error)[:200]}")
        return job.without_result()
    tell_ended(job)
    return returned
