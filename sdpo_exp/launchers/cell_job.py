"""One cell of a sweep as a thing that another process can run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.errors import CompactHydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

import sdpo_exp
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.errors import first_line

CONSOLE_FILE = ".hydra/console.log"
PACKAGE_ROOT = Path(sdpo_exp.__file__).parents[1]
# What OpenMP, MKL and OpenBLAS read when they are loaded, which is when torch and numpy are.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class CellJob:
    """A composed cell and what Hydra needs to run it; call it, here or in another process.

    Args:
        config: with its `hydra` node and its run folder settled.
        label: what sets it apart from the other cells, in overrides.
        context: of Hydra's, with its loader and callbacks.
        task_function: the command's body.
        globals_: `Singleton.get_state()` of the process that composed the cell.
        threads: for libraries that divide work among threads, unless the user's environment
            says another number.
        cwd: where the command was started; relative paths mean that folder.
        to_file: whether what the cell prints goes to `CONSOLE_FILE` of its run folder, because
            others print at the same time.
    """

    config: DictConfig
    label: str
    context: HydraContext
    task_function: TaskFunction
    globals_: Any
    threads: int
    cwd: str
    to_file: bool

    @property
    def number(self) -> int:
        """Its place in the sweep, from 0."""
        return int(self.config.hydra.job.num)

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.config.hydra.runtime.output_dir)

    def __call__(self) -> JobReturn:
        """Run the cell in this process, which may be a bare one."""
        for name, value in thread_environment(self.threads).items():
            os.environ.setdefault(name, value)
        os.chdir(self.cwd)
        Singleton.set_state(self.globals_)
        register_resolvers()
        with printing_to(self.folder / CONSOLE_FILE if self.to_file else None):
            returned = run_job(
                task_function=self.task_function,
                config=self.config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self.context,
            )
        error = returned._return_value
        if returned.status is JobStatus.FAILED and not isinstance(error, CompactHydraException):
            # Not every exception survives the way home.
            returned.return_value = RuntimeError(f"{type(error).__name__}: {first_line(error)}")
        return returned

    def without_result(self) -> JobReturn:
        """What Hydra is given for a cell that was not run, or whose process ended under it.

        Not a failure, which would end the sweep: whether the cell is done is to be read from its
        folder, as it is of any other.
        """
        config = self.config.copy()
        with read_write(config), open_dict(config):
            hydra = config.pop("hydra")
        return JobReturn(
            overrides=list(self.config.hydra.overrides.task),
            cfg=config,
            hydra_cfg=DictConfig({"hydra": hydra}),
            working_dir=self.cwd,
            task_name=str(self.config.hydra.job.name),
            status=JobStatus.COMPLETED,
        )


def settle_folder(config: DictConfig) -> None:
    """Write the run folder that `hydra.sweep` means into the config, once and for all.

    So the folder of a cell is known before it runs and after it died, and a job that a cluster
    starts a second time goes to the same one.
    """
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        folder, below = str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)
    finally:
        HydraConfig.instance().cfg = before
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir, config.hydra.sweep.subdir = folder, below
        config.hydra.runtime.output_dir = str((Path(folder) / below).absolute())


def thread_environment(threads: int) -> dict[str, str]:
    """Environment for `threads` threads; what the user has set already is left out."""
    return {name: str(threads) for name in THREAD_VARIABLES if name not in os.environ}


def import_path() -> str:
    """PYTHONPATH with which a bare process finds this package, also in a checkout."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(PACKAGE_ROOT), *([given] if given else [])])


@contextmanager
def printing_to(file: Path | None) -> Iterator[None]:
    """Send standard output and error, also of child processes and C libraries, to a file."""
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(1), os.dup(2)]
    with file.open("ab") as stream:
        try:
            for number in (1, 2):
                os.dup2(stream.fileno(), number)
            yield
        finally:
            for python_stream in (sys.stdout, sys.stderr):
                python_stream.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
