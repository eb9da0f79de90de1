"""The end of a run: export the tuned model, then compare it with the base."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig

from sdpo_exp.cli.build import build
from sdpo_exp.cli.printed import command, word
from sdpo_exp.models.lora import has_adapters
from sdpo_exp.terminal.progress import on_behalf_of

if TYPE_CHECKING:
    import lightning as L

    from sdpo_exp.data.datamodule import PairDataModule
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


def give_captions(evaluator: Evaluator | None, data: PairDataModule) -> None:
    """The data's first held-out captions, to an evaluator that wants some.

    Raises:
        UserError: there are none, or it cannot judge them.
    """
    if wanted := getattr(evaluator, "captions_wanted", 0):
        cast(Any, evaluator).take_captions(data.held_out_captions(wanted))


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
            "model/ holds the adapters alone; with the base merged in, a whole model: %s",
            command("export", word("checkpoint", folder)),
        )
    else:
        backbone.save(partial)
    partial.rename(target)


def compare_with_base(
    config: DictConfig, trainer: L.Trainer, tuned: Backbone, evaluator: Evaluator, folder: Path
) -> None:
    """Write picture, samples and, where there are any, scores, and give them to the loggers.

    The base is built anew from the configuration: the run's reference may be something else.
    """
    from sdpo_exp.reports.before_after import (
        PICTURE,
        plot_before_after,
        write_evaluation,
        write_samples,
    )
    from sdpo_exp.reports.run_title import run_title

    _log.info("evaluating base and tuned: %s", evaluator.description)
    base_backbone: Backbone = build(config.model, "model")
    device = trainer.strategy.root_device
    results = []
    for name, backbone in (("base", base_backbone), ("tuned", tuned)):
        backbone.denoiser.to(device).eval()
        backbone.to(device)
        with on_behalf_of(name):
            results.append(evaluator(backbone))
    base, after = results
    content = write_evaluation(
        folder, evaluator.description, base.prompts, base.scores, after.scores
    )
    first = next(iter(base.scores), None)
    scores = None if first is None else (base.scores[first], after.scores[first])
    picture = folder / PICTURE
    told = evaluator.description + ("" if first is None else f"; below the images: {first}")
    told = f"{run_title(folder)}\n{told}"
    plot_before_after(picture, base.prompts, base.images, after.images, scores, told)
    write_samples(folder / SAMPLES, base.prompts, base.images, after.images)
    _log.info("base beside tuned: %s", os.path.relpath(picture))
    _tell_loggers(trainer, content["scores"], picture, base, after)


def _tell_loggers(
    trainer: L.Trainer, scores: dict[str, Any], picture: Path, base: ModelScores, tuned: ModelScores
) -> None:
    """All but `metrics.csv`, which is the training's alone; the files beside it have the rest."""
    from lightning.pytorch.loggers import CSVLogger

    from sdpo_exp.loggers.pictures import log_picture

    metrics = {f"eval/{name}": score["tuned"]["mean"] for name, score in scores.items()}
    metrics |= {f"eval/{name}_change": score["change"]["mean"] for name, score in scores.items()}
    step = trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            continue
        logger.log_metrics(metrics, step=step)
        log_picture([logger], "eval/before_after", picture, step)
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
