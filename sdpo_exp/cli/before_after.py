"""The end of a run: export the tuned model, then compare it with the base."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from sdpo_exp.cli.build import build
from sdpo_exp.models.lora import has_adapters

if TYPE_CHECKING:
    import lightning as L

    from sdpo_exp.protocols import Backbone, Evaluator
    from sdpo_exp.types import ModelScores

MODEL_FOLDER, SAMPLES = "model", "samples"
_TOLD = 64  # prompts in a logger's table; scores.csv has all
_log = logging.getLogger(__name__)


def build_evaluator(config: DictConfig) -> Evaluator | None:
    """The evaluator of `config.evaluation`; None for `evaluation=off`.

    Built before the training, so that a run does not end in a mistake known at its start.
    """
    if "_target_" not in config.evaluation:
        return None
    evaluator: Evaluator = build(config.evaluation, "evaluation")
    return evaluator


def export(backbone: Backbone, folder: Path) -> None:
    """Write the tuned model to `folder/model`, complete or not at all.

    Adapters that the family's pipeline can load are written alone; `load_pipeline` and the export
    command put them together with their base.
    """
    partial, target = folder / f"{MODEL_FOLDER}.partial", folder / MODEL_FOLDER
    for old in (partial, target):
        shutil.rmtree(old, ignore_errors=True)
    save_lora = getattr(backbone, "save_lora", None)
    if save_lora is not None and has_adapters(backbone.denoiser):
        save_lora(partial)
        _log.info(
            "model/ holds the adapters alone; with the base merged in, a whole model: python -m "
            "sdpo_exp.export checkpoint=%s",
            os.path.relpath(folder),
        )
    else:
        backbone.save(partial)
    partial.rename(target)


def compare_with_base(
    config: DictConfig, trainer: L.Trainer, tuned: Backbone, evaluator: Evaluator, folder: Path
) -> None:
    """Write scores, table and picture, and give them to the loggers.

    The base is built anew from the configuration: the run's reference may be something else.
    """
    from sdpo_exp.reports.before_after import plot_before_after, write_evaluation, write_samples

    _log.info("evaluating base and tuned: %s", evaluator.description)
    base_backbone: Backbone = build(config.model, "model")
    device = trainer.strategy.root_device
    results = []
    for backbone in (base_backbone, tuned):
        backbone.denoiser.to(device).eval()
        backbone.to(device)
        results.append(evaluator(backbone))
    base, after = results
    content = write_evaluation(
        folder, evaluator.description, base.prompts, base.scores, after.scores
    )
    first = next(iter(base.scores))
    picture = folder / "plots" / "before_after.png"
    plot_before_after(
        picture, base.prompts, base.images, after.images, (base.scores[first], after.scores[first])
    )
    write_samples(folder / SAMPLES, base.images, after.images)
    _tell_loggers(trainer, content["scores"], picture, base, after)


def _tell_loggers(
    trainer: L.Trainer, scores: dict[str, Any], picture: Path, base: ModelScores, tuned: ModelScores
) -> None:
    """All but `metrics.csv`, which is the training's alone; the files beside it have the rest."""
    from lightning.pytorch.loggers import CSVLogger

    metrics = {f"eval/{name}": score["tuned"]["mean"] for name, score in scores.items()}
    metrics |= {f"eval/{name}_change": score["change"]["mean"] for name, score in scores.items()}
    step = trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            continue
        logger.log_metrics(metrics, step=step)
        if hasattr(logger, "log_image"):
            logger.log_image("eval/before_after", [str(picture)], step=step)
        if hasattr(logger, "log_table"):
            logger.log_table("eval/table", *_table(base, tuned), step=step)
        logger.save()


def _table(base: ModelScores, tuned: ModelScores) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the first prompts: both images, and both scores by every metric."""
    columns = ["prompt", "base", "tuned"]
    columns += [f"{model} {name}" for name in base.scores for model in ("base", "tuned")]
    rows = []
    for i, prompt in enumerate(base.prompts[:_TOLD]):
        values = [float(m.scores[name][i]) for name in base.scores for m in (base, tuned)]
        rows.append([prompt, base.images[i], tuned.images[i], *values])
    return columns, rows
