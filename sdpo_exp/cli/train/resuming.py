"""`resume=`: which checkpoint is meant, and what a resumed run takes over."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sdpo_exp.cli.train.changes import changes_of
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.reports.metrics_file import read_rows

if TYPE_CHECKING:
    import lightning as L

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resumed:
    """A training that goes on.

    Attributes:
        checkpoint: where it goes on from.
        step: the optimiser step of it.
        changes: `key: old -> new` of what shapes the training.
        history: rows of the earlier `metrics.csv` up to that step.
    """

    checkpoint: Path
    step: int
    changes: list[str]
    history: list[dict[str, float]]

    def record(self) -> dict[str, Any]:
        """What `run.json` says of it."""
        return {
            "from": os.path.relpath(self.checkpoint),
            "step": self.step,
            "changes": self.changes,
        }


def open_resumed(config: DictConfig) -> Resumed | None:
    """What `config.resume` goes on with; None where it names nothing.

    Raises:
        UserError: as `find_checkpoint`.
    """
    if config.resume is None:
        return None
    checkpoint = find_checkpoint(Path(config.resume), config.max_steps)
    step = _step(checkpoint)
    rows = read_rows(checkpoint.parents[1] / "metrics.csv")
    history = [row for row in rows if row["step"] <= step]
    return Resumed(checkpoint, step, changes_of(config), history)


def replay(history: Sequence[Mapping[str, float]], trainer: L.Trainer) -> None:
    """Give the earlier rows to this run's `metrics.csv`, so that it tells the whole training."""
    from lightning.pytorch.loggers import CSVLogger

    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            for row in history:
                values: dict[str, Any] = {
                    name: value for name, value in row.items() if name != "step"
                }
                logger.log_metrics(values, step=int(row["step"]))


def carry_over(checkpoint: Path, folder: Path) -> None:
    """Copy what training would have left, where only the images were missing of a whole run."""
    target = folder / "checkpoints"
    if any(target.glob("*.ckpt")):
        return
    target.mkdir(exist_ok=True)
    for name in {checkpoint.name, "best.ckpt", "best.json"}:
        if (checkpoint.parent / name).is_file():
            shutil.copyfile(checkpoint.parent / name, target / name)


def find_checkpoint(path: Path, max_steps: int) -> Path:
    """The checkpoint that `resume=path` means: a file, or the newest one of a run's folder.

    `best.ckpt` may be an old step under a new date, so it counts only where its step is further.

    Raises:
        UserError: the folder holds none, the file is broken or something else, or it is past
            `max_steps`.
    """
    if path.is_file():
        return _readable_checkpoint(path, max_steps)
    folder = path / "checkpoints"
    best = folder / "best.ckpt"
    found = sorted(set(folder.glob("*.ckpt")) - {best}, key=lambda p: p.stat().st_mtime)
    if not found:
        raise UserError(f"resume={path}: no checkpoint in {folder}{_but_the_best(best)}")
    if best.is_file() and _best_step(best) > _step(found[-1]):
        found.append(best)
    return _readable_checkpoint(found[-1], max_steps)


def _best_step(best: Path) -> int:
    """Its step; before the first where it is broken, for the other checkpoints are there."""
    try:
        return _step(best)
    except UserError as error:
        _log.warning("%s; left alone", error)
        return -1


def _but_the_best(best: Path) -> str:
    if not best.is_file():
        return ""
    return f" but the best; give resume={best} to go on from step {_step(best)}"


def _readable_checkpoint(path: Path, max_steps: int) -> Path:
    step = _step(path)
    if step > max_steps or (step == max_steps and _finished(path.parent.parent)):
        raise UserError(
            f"resume={path}: the run is at step {step} already; "
            f"max_steps={max_steps} leaves nothing to do, give a larger one"
        )
    return path


def _step(path: Path) -> int:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        complete = {"state_dict", "loops", "global_step"} <= set(content)
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"resume={path}: the file cannot be read ({reason})") from None
    if not complete:
        raise UserError(f"resume={path}: not a training checkpoint of this package")
    return int(content["global_step"])


def _finished(run_folder: Path) -> bool:
    """Whether a run did everything; one stopped while its images were judged did not."""
    try:
        summary = json.loads((run_folder / "summary.json").read_text())
    except (OSError, ValueError):
        return False
    return summary.get("status") == "finished"
