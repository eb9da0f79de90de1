"""`python -m sdpo_exp`: one training run from a checked configuration."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.command import run_command, settle_run_dir
from sdpo_exp.cli.printed import command, word
from sdpo_exp.cli.run_references import name_runs, point_latest
from sdpo_exp.cli.train.changes import check_changes
from sdpo_exp.cli.train.held_out import fit_held_out
from sdpo_exp.cli.train.own_files import check_own_files
from sdpo_exp.cli.train.own_words import add_own_words
from sdpo_exp.cli.train.prepare import prepare_torch
from sdpo_exp.cli.train.resuming import Resumed, carry_over, find_checkpoint, open_resumed, replay
from sdpo_exp.cli.train.run_record import (
    add_to_run_record,
    in_sweep,
    kept_warnings,
    write_run_record,
)
from sdpo_exp.cli.train.start_line import start_lines
from sdpo_exp.cli.train.sweep import Sweep
from sdpo_exp.cli.train.sweep_table import tell_sweep
from sdpo_exp.config.check import check_config
from sdpo_exp.errors import Interrupted, UserError, first_line
from sdpo_exp.loggers.wandb_session import close_run

if TYPE_CHECKING:
    import lightning as L

    from sdpo_exp.data.datamodule import PairDataModule
    from sdpo_exp.training import PreferenceModule

_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `python -m sdpo_exp` and of the `sdpo_exp` script."""
    try:
        name_runs(sys.argv, ("resume",))
        add_own_words(sys.argv)
    except UserError as error:
        sys.exit(str(error))
    sweep = Sweep()
    run_command(
        "train",
        partial(train_cell, sweep),
        check_train,
        late_check,
        file_check=check_own_files,
        at_begin=sweep.begin,
        at_end=tell_sweep,
    )


def check_train(config: DictConfig) -> list[str]:
    """Mistakes, and changes of a training that goes on."""
    return check_config(config) or check_changes(config)


def train_cell(sweep: Sweep, config: DictConfig) -> None:
    """`train`, or in a sweep what is left to do of this cell, whatever happens in it."""
    if in_sweep():
        sweep.run(config, train)
    else:
        train(config)


def late_check(config: DictConfig) -> list[str]:
    """Mistakes that only the libraries, the sources or the checkpoint tell."""
    from sdpo_exp.config.model_steps import timesteps_beyond
    from sdpo_exp.config.sources import absent_sources
    from sdpo_exp.config.third_party import check_third_party

    return (
        check_third_party(config)
        or absent_sources(config)
        or timesteps_beyond(config)
        or _unresumable(config)
    )


def _unresumable(config: DictConfig) -> list[str]:
    if config.resume is None:
        return []
    try:
        find_checkpoint(Path(config.resume), config.max_steps)
    except UserError as error:
        return [str(error)]
    return []


def train(config: DictConfig, called: Sequence[str] | None = None) -> None:
    """Run one cell and leave a complete run folder.

    Args:
        config: composed; Hydra's own node is where Hydra has it while a job runs.
        called: from Python, with these words; None: from the command line.

    Raises:
        UserError: something that the user can mend; what is already on disk stays.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    settle_run_dir(config, str(folder))
    prepare_torch(config)
    resumed = open_resumed(config)  # reads what may be in this very folder
    if _is_first_rank():
        _clear_results(folder)
        for line in start_lines(config, resumed):
            _log.info("%s", line)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
        write_run_record(folder, config)
        point_latest(folder)
    started = time.perf_counter()
    status, ended = "failed", None
    with kept_warnings() as warnings:
        try:
            ended = _fit(config, folder, resumed, called)
            status = "finished"
        except BaseException as error:
            status, told = _ending(error, folder, python=called is not None)
            raise told from (None if isinstance(told, UserError) else error.__cause__)
        finally:
            close_run(failed=status != "finished")
            seconds = time.perf_counter() - started
            _report(folder, status, seconds, list(warnings), ended)


def _ending(error: BaseException, folder: Path, *, python: bool) -> tuple[str, BaseException]:
    """The status that an exception ends a run with, and what is raised in its place."""
    if _is_interrupt(error):
        return "interrupted", Interrupted(f"interrupted{_onward(folder, python=python)}")
    if isinstance(error, UserError):
        return f"stopped: {error}", error
    if isinstance(error, SystemExit):
        return f"failed: exit {error.code}", UserError(f"something exited with code {error.code}")
    if "closed by peer" in str(error) or "reset by peer" in str(error):
        status = "stopped: another device stopped"
        return status, UserError(f"{status}; its own message says why")
    return f"failed: {type(error).__name__}: {first_line(error)}", error


def _onward(folder: Path, *, python: bool) -> str:
    if not any((folder / "checkpoints").glob("*.ckpt")):
        return " before the first checkpoint; the same words begin again"
    again = word("resume", folder)
    onward = f"sdpo_exp.train([{again!r}])" if python else command("train", again)
    return f"; go on with: {onward}"


def _is_interrupt(error: BaseException) -> bool:
    """Also as Lightning passes it on: an exit in the middle of handling an interrupt."""
    told = error.__context__ if isinstance(error, SystemExit) else error
    return isinstance(told, KeyboardInterrupt)


def _fit(
    config: DictConfig, folder: Path, resumed: Resumed | None, called: Sequence[str] | None
) -> str | None:
    """Train, export and compare; why the training ended before `max_steps`, where it did."""
    from sdpo_exp.cli.build import build_datamodule, build_module, build_trainer, log_config
    from sdpo_exp.cli.environment import command_line, write_environment
    from sdpo_exp.cli.train import before_after

    evaluator = before_after.build_evaluator(config)
    data = build_datamodule(config)
    notes = fit_held_out(config, data, HydraConfig.get().overrides.task)
    before_after.give_captions(evaluator, data)
    if _is_first_rank():
        for note in notes:
            _log.info("note: %s", note)
    module = build_module(config, data.cache)
    trainer = build_trainer(config)
    if trainer.is_global_zero:
        base = getattr(module.backbone, "origin", None)
        words = command_line() if called is None else ["sdpo_exp.train", *called]
        write_environment(folder, seed=config.seed, data=data, base=base, command=words)
        if resumed is not None:
            add_to_run_record(folder, resumed=resumed.record())
    log_config(trainer, config)
    _run_trainer(trainer, module, data, resumed)
    if trainer.is_global_zero:
        before_after.export(module.backbone, folder)
        if evaluator is not None:
            before_after.compare_with_base(config, trainer, module.backbone, evaluator, folder)
    return _early_end(trainer)


def _early_end(trainer: L.Trainer) -> str | None:
    """The reason of the callback that ended a training early."""
    from sdpo_exp.callbacks.ends import EndsEarly

    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    reasons = [c.reason for c in callbacks if isinstance(c, EndsEarly) and c.reason]
    return reasons[0] if reasons else None


def _run_trainer(
    trainer: L.Trainer, module: PreferenceModule, data: PairDataModule, resumed: Resumed | None
) -> None:
    checkpoint = resumed.checkpoint if resumed is not None else None
    if resumed is not None and trainer.is_global_zero:
        replay(resumed.history, trainer)
    with _at_whole_steps(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if checkpoint is not None and trainer.is_global_zero:
        carry_over(checkpoint, Path(trainer.default_root_dir))


@contextmanager
def _at_whole_steps(trainer: L.Trainer) -> Iterator[None]:
    """Let an interrupt wait for the step's end; several devices might each wait for another."""
    from sdpo_exp.callbacks.checkpoint import StepCheckpoint
    from sdpo_exp.callbacks.interrupt import InterruptCheckpoint

    savers = [c for c in trainer.callbacks if isinstance(c, StepCheckpoint)]  # type: ignore[attr-defined]
    if not savers or trainer.world_size > 1:
        yield
        return
    last = InterruptCheckpoint(str(savers[0].dirpath))
    trainer.callbacks.append(last)  # type: ignore[attr-defined]
    with last.listening():
        yield


def _clear_results(folder: Path) -> None:
    """Take away what an earlier run in the same `run_dir` said about another model."""
    for name in ("evaluation.json", "scores.csv", "plots/before_after.png", "summary.json"):
        (folder / name).unlink(missing_ok=True)
    for name in ("model", "samples"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _is_first_rank() -> bool:
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", None) in (None, 0)


def _report(
    folder: Path, status: str, seconds: float, warnings: list[str], ended: str | None
) -> None:
    """Plots, summary and the last words; on rank 0, which alone has the metrics."""
    if not _is_first_rank():
        return
    from sdpo_exp.cli.train.last_words import tell_end
    from sdpo_exp.reports.model_card import end_of_run, write_card
    from sdpo_exp.reports.summary import write_summary
    from sdpo_exp.reports.trajectories import plot_trajectories

    summary = write_summary(
        folder, status=status, seconds=seconds, warnings=warnings, ended_early=ended
    )
    if (folder / "metrics.csv").is_file():
        plot_trajectories(folder / "metrics.csv", folder / "plots" / "trajectories.png")
    if (folder / "model").is_dir():
        write_card(folder, folder / "model", end_of_run(folder))
    if status == "finished":
        tell_end(summary)
    _log.info("\nrun folder: %s", os.path.relpath(folder))
