"""One process per device, each with its share of the work, and a user's mistake told in words."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import distributed, multiprocessing

from sdpo_exp.errors import UserError

# Shares take unequal times; an idle process waits for the others at the end.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Rank:
    """One of `world` processes, and the device that is its own."""

    rank: int
    world: int
    device: str

    def barrier(self) -> None:
        """Wait for the others."""
        if self.world > 1:
            distributed.barrier()


Work = Callable[..., None]


def without_hydra(config: DictConfig) -> dict[str, Any]:
    """The command's own values, resolved, as another process can take them."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain: Any = OmegaConf.to_container(own, resolve=True)
    return dict(plain)


def quiet(threads: int) -> None:
    """Settings of torch in this process, and libraries that keep their bars to themselves."""
    import diffusers
    import transformers

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()


def resolve_device(device: str) -> str:
    """`auto`: CUDA where there is one, else the CPU.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: torch finds no CUDA device; give device=cpu")
    return device


def count_devices(device: str, devices: int | None) -> int:
    """How many processes to start; None: one per CUDA device, and one on the CPU.

    Raises:
        UserError: more CUDA devices than there are.
    """
    there = torch.cuda.device_count() if device == "cuda" else None
    if devices is None:
        return there or 1
    if there is not None and devices > there:
        raise UserError(f"devices={devices}: torch finds {there} CUDA devices")
    return devices


def run_on_devices(work: Work, device: str, count: int, *arguments: Any) -> None:
    """Call `work(rank, *arguments)` once per process; a single one runs here.

    Several talk through torch.distributed (NCCL on CUDA, else gloo), which has found them by a
    file, so that no port is opened for it.

    Args:
        work: a function of a module, so that a new process can import it.
        device: `cpu` or `cuda`.
        count: number of processes.
        arguments: can be pickled.

    Raises:
        UserError: one of them met a mistake of the user's; the others were stopped.
    """
    if count == 1:
        work(Rank(0, 1, device), *arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "mistake"
        try:
            processes = multiprocessing.spawn(  # type: ignore[attr-defined]
                _start, (work, device, count, folder, arguments), nprocs=count, join=False
            )
            _wait_for(processes)
        except Exception:
            if told.is_file():
                raise UserError(told.read_text()) from None
            raise


def _wait_for(context: Any) -> None:
    """Join the processes; whatever ends the wait ends them, too."""
    try:
        while not context.join():
            pass
    except BaseException:
        for process in context.processes:
            process.terminate()
        for process in context.processes:
            process.join(10)
        raise


def _start(
    rank: int, work: Work, device: str, count: int, folder: str, arguments: tuple[Any, ...]
) -> None:
    import logging
    import sys

    # A new process knows nothing of Hydra's logging; one of them speaks for all.
    level = logging.INFO if rank == 0 else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    own = f"cuda:{rank}" if device == "cuda" else device
    if device == "cuda":
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=count,
        timeout=_PATIENCE,
    )
    try:
        work(Rank(rank, count, own), *arguments)
    except UserError as error:
        (Path(folder) / "mistake").write_text(str(error))
        raise
    finally:
        distributed.destroy_process_group()
