"""Several processes share the work; a user's mistake in one of them is told in its words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import distributed

from sdpo_exp.cli.workers import Rank, count_devices, resolve_device, run_on_devices
from sdpo_exp.errors import UserError


def note(rank: Rank, folder: str) -> None:
    """A file per process with its pid, and the sum over all ranks."""
    total = torch.tensor([float(rank.rank + 1)])
    if rank.world > 1:
        distributed.all_reduce(total)
    rank.barrier()
    (Path(folder) / f"{rank.rank}.txt").write_text(f"{os.getpid()} {total.item()}")


def stumble(rank: Rank) -> None:
    """The second process finds a mistake while the first waits for it."""
    if rank.rank == 1:
        raise UserError("file x: row 3 is bad; mend it")
    rank.barrier()


def break_down(rank: Rank) -> None:
    raise ZeroDivisionError("a defect of ours")


def test_one_process_works_here(tmp_path: Path) -> None:
    run_on_devices(note, "cpu", 1, str(tmp_path))
    assert (tmp_path / "0.txt").read_text() == f"{os.getpid()} 1.0"


@pytest.mark.slow
def test_two_processes_talk_to_each_other(tmp_path: Path) -> None:
    run_on_devices(note, "cpu", 2, str(tmp_path))
    rows = [(tmp_path / f"{rank}.txt").read_text().split() for rank in range(2)]
    assert [total for _, total in rows] == ["3.0", "3.0"]
    assert len({pid for pid, _ in rows} | {str(os.getpid())}) == 3


@pytest.mark.slow
def test_a_mistake_stops_all_and_is_told_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^file x: row 3 is bad; mend it$"):
        run_on_devices(stumble, "cpu", 2)


@pytest.mark.slow
def test_a_defect_keeps_its_traceback() -> None:
    with pytest.raises(Exception, match="a defect of ours"):
        run_on_devices(break_down, "cpu", 2)


def test_devices_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == "cpu"
    with pytest.raises(UserError, match="device=cuda: torch finds no CUDA device"):
        resolve_device("cuda")
    assert (count_devices("cpu", None), count_devices("cpu", 3)) == (1, 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == "cuda"
    assert (count_devices("cuda", None), count_devices("cuda", 1)) == (2, 1)
    with pytest.raises(UserError, match="devices=3: torch finds 2 CUDA devices"):
        count_devices("cuda", 3)
