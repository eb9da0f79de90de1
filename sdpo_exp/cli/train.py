"""`python -m sdpo_exp`: one training run from a checked configuration."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.command import run_command, settle_run_dir
from sdpo_exp.cli.resuming import carry_over, find_checkpoint
from sdpo_exp.cli.run_record import in_sweep, kept_warnings, write_run_record
from sdpo_exp.cli.sweep import relative, run_cell, tell_sweep
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
    run_command("train", train_cell, check_config, _late_check, at_end=tell_sweep)


def train_cell(config: DictConfig) -> None:
    """`train`, or in a sweep what is left to do of this cell, whatever happens in it."""
    if in_sweep():
        run_cell(config, train)
    else:
        train(config)


def _late_check(config: DictConfig) -> list[str]:
    from sdpo_exp.config.sources import absent_sources
    from sdpo_exp.config.third_party import check_third_party

    return check_third_party(config) or absent_sources(config)


def train(config: DictConfig) -> None:
    """Run one cell and leave a complete run folder.

    Raises:
        UserError: something that the user can mend; what is already on disk stays.
    """
    from hydra.core.hydra_config import HydraConfig

    folder = Path(HydraConfig.get().runtime.output_dir)
    settle_run_dir(config, str(folder))
    _prepare_torch(config)
    if _is_first_rank():
        _clear_results(folder)
        _say_recipe(config)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
        write_run_record(folder, config)
    started = time.perf_counter()
    status = "failed"
    with kept_warnings() as warnings:
        try:
            _fit(config, folder)
            status = "finished"
        except BaseException as error:
            status, told = _ending(error, folder)
            raise told from (None if isinstance(told, UserError) else error.__cause__)
        finally:
            close_run(failed=status != "finished")
            _report(folder, status, time.perf_counter() - started, list(warnings))


def _ending(error: BaseException, folder: Path) -> tuple[str, BaseException]:
    """The status that an exception ends a run with, and what is raised in its place."""
    if _is_interrupt(error):
        return "interrupted", Interrupted(f"interrupted; go on with resume={relative(folder)}")
    if isinstance(error, UserError):
        return f"stopped: {error}", error
    if isinstance(error, SystemExit):
        return f"failed: exit {error.code}", UserError(f"something exited with code {error.code}")
    if "closed by peer" in str(error) or "reset by peer" in str(error):
        status = "stopped: another device stopped"
        return status, UserError(f"{status}; its own message says why")
    return f"failed: {type(error).__name__}: {first_line(error)}", error


def _is_interrupt(error: BaseException) -> bool:
    """Also as Lightning passes it on: an exit in the middle of handling an interrupt."""
    told = error.__context__ if isinstance(error, SystemExit) else error
    return isinstance(told, KeyboardInterrupt)


def _fit(config: DictConfig, folder: Path) -> None:
    from sdpo_exp.cli.before_after import build_evaluator, compare_with_base, export
    from sdpo_exp.cli.build import build_datamodule, build_module, build_trainer, log_config
    from sdpo_exp.cli.environment import write_environment

    evaluator = build_evaluator(config)
    data = build_datamodule(config)
    module = build_module(config)
    trainer = build_trainer(config)
    if trainer.is_global_zero:
        base = getattr(module.backbone, "origin", None)
        write_environment(folder, seed=config.seed, data=data, base=base)
    log_config(trainer, config)
    _run_trainer(trainer, module, data, config.resume)
    if trainer.is_global_zero:
        export(module.backbone, folder)
        if evaluator is not None:
            compare_with_base(config, trainer, module.backbone, evaluator, folder)


def _run_trainer(
    trainer: L.Trainer, module: PreferenceModule, data: PairDataModule, resume: str | None
) -> None:
    checkpoint = find_checkpoint(Path(resume), data.max_steps) if resume else None
    if checkpoint is not None:
        _log.info("resuming from %s", checkpoint)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if checkpoint is not None and trainer.is_global_zero:
        carry_over(checkpoint, Path(trainer.default_root_dir))


def _clear_results(folder: Path) -> None:
    """Take away what an earlier run in the same `run_dir` said about another model."""
    for name in ("evaluation.json", "scores.csv", "plots/before_after.png", "summary.json"):
        (folder / name).unlink(missing_ok=True)
    for name in ("model", "samples"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _is_first_rank() -> bool:
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", None) in (None, 0)


def _say_recipe(config: DictConfig) -> None:
    recipe = config.recipe
    numbers = f"beta={recipe.beta:g}, mu={recipe.mu:g}, lr={config.lr:g}"
    numbers += f", effective batch {config.effective_batch}, {config.max_steps} steps"
    if recipe.source is None:
        _log.info("no published recipe for this cell; using %s", numbers)
    else:
        _log.info("recipe: %s (%s)", recipe.source, numbers)
    if recipe.source is not None and _choice("tuning") != "full":
        _log.info("note: the recipe's learning rate is one of full tuning; give lr for adapters")
    if recipe.note:
        _log.info("note: %s", recipe.note)


def _choice(group: str) -> str:
    from hydra.core.hydra_config import HydraConfig

    return str(HydraConfig.get().runtime.choices[group])


def _prepare_torch(config: DictConfig) -> None:
    import warnings

    import lightning as L
    import torch
    import transformers

    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    # Saturated pairs make subnormal gradients, which slow single CPU backward passes 7-10 times.
    torch.set_flush_denormal(True)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    for harmless in (
        ".*all_gather is deprecated.*",
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*LeafSpec.* is deprecated.*",
        # Ours is: step k's pairs depend on k alone (data/sampler.py).
        ".*your dataloader is not resumable.*",
    ):
        warnings.filterwarnings("ignore", message=harmless)
    L.seed_everything(config.seed, workers=True, verbose=False)


def _report(folder: Path, status: str, seconds: float, warnings: list[str]) -> None:
    """Plots, summary and the last words; on rank 0, which alone has the metrics."""
    if not _is_first_rank():
        return
    from sdpo_exp.reports.model_card import end_of_run, write_card
    from sdpo_exp.reports.summary import format_summary, write_summary
    from sdpo_exp.reports.trajectories import plot_trajectories

    summary = write_summary(folder, status=status, seconds=seconds, warnings=warnings)
    if (folder / "metrics.csv").is_file():
        plot_trajectories(folder / "metrics.csv", folder / "plots" / "trajectories.png")
    if (folder / "model").is_dir():
        write_card(folder, folder / "model", end_of_run(folder))
    if status == "finished":
        _log.info("\n%s", format_summary(summary))
    _log.info("\nrun folder: %s", relative(folder))
