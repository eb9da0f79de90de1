"""From configuration nodes to objects, with the constructor's complaint instead of a traceback."""

from __future__ import annotations

import os
from typing import Any, cast

import lightning as L
import torch
from hydra.errors import InstantiationException
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.callbacks.ends import EndsEarly, TimeLimit
from sdpo_exp.config.flat import flatten
from sdpo_exp.config.hydra_versions import instantiate
from sdpo_exp.data.cached import PairCache
from sdpo_exp.data.datamodule import PairDataModule
from sdpo_exp.errors import UserError
from sdpo_exp.models.cached import CachedBackbone
from sdpo_exp.protocols import Backbone
from sdpo_exp.training import PreferenceModule


def build(node: DictConfig, path: str, **more: Any) -> Any:
    """Instantiate a node, with `more` arguments that are not the configuration's.

    Raises:
        UserError: the constructor refused its arguments; the message names `path`.
    """
    try:
        return instantiate(node, **more)
    except InstantiationException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, (ValueError, TypeError, ImportError, OSError)):
            raise UserError(f"{path}: {cause}") from None
        raise


def build_datamodule(config: DictConfig) -> PairDataModule:
    """The data module of `config.data`."""
    data: PairDataModule = build(config.data, "data")
    return data


def build_backbone(config: DictConfig, cache: PairCache | None) -> Backbone:
    """The model; with a cache, one that loads no VAE and no text encoder to train.

    Raises:
        UserError: the cache is of another model.
    """
    if cache is None:
        plain: Backbone = build(config.model, "model")
        return plain
    found = build(config.model, "model", loading="on_demand")
    cache.check_model(found.frozen_files())
    cached: Any = CachedBackbone(found, cache.texts)
    return cast(Backbone, cached)


def build_module(config: DictConfig, cache: PairCache | None = None) -> PreferenceModule:
    """Backbone, objective, safeguard, reference, tuning and optimiser in their host."""
    objective, safeguard = (
        build(config.objective, "objective"),
        build(config.safeguard, "safeguard"),
    )
    if getattr(safeguard, "weighted", False) and not hasattr(objective, "weights"):
        raise UserError("safeguard.weighted=true: the objective has no closed-form weights(errors)")
    return PreferenceModule(
        backbone=build_backbone(config, cache),
        objective=objective,
        safeguard=safeguard,
        reference=build(config.reference, "reference"),
        tuning=build(config.tuning, "tuning"),
        optimizer=build(config.optimizer, "optimizer"),
        warmup_steps=config.warmup_steps,
        schedule=config.schedule,
        timesteps=(config.timesteps.min, config.timesteps.max),
        seed=config.seed,
    )


def build_trainer(config: DictConfig) -> L.Trainer:
    """The trainer with the config's callbacks and loggers.

    `metrics.csv` is part of a run's folder, so a CSV logger is added where none was chosen.
    """
    loggers = [build(node, f"logger.{name}") for name, node in config.logger.items()]
    if not any(isinstance(logger, CSVLogger) for logger in loggers):
        csv = CSVLogger(config.run_dir, name="", version="", flush_logs_every_n_steps=1)
        loggers.insert(0, csv)
    # Scorers of callbacks are built here, before Lightning has told each rank its device.
    if torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    callbacks = _in_order(
        [build(node, f"callbacks.{name}") for name, node in config.callbacks.items()]
    )
    if config.max_time is not None:
        callbacks.insert(0, TimeLimit(config.max_time))
    trainer: L.Trainer = instantiate(
        config.trainer,
        logger=loggers,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        limit_val_batches=0,  # callbacks.validation goes through the validation pairs itself
        use_distributed_sampler=False,
        log_every_n_steps=1,
    )
    return trainer


def _in_order(callbacks: list[Any]) -> list[Any]:
    """What may end the training after what it looks at; Lightning puts checkpoints last."""
    return sorted(callbacks, key=lambda callback: isinstance(callback, EndsEarly))


def log_config(trainer: L.Trainer, config: DictConfig) -> None:
    """Give every logger the resolved configuration, flattened to dotted keys."""
    flat = flatten(OmegaConf.to_container(config, resolve=True))
    flat = {key: str(v) if isinstance(v, list) else v for key, v in flat.items() if v != {}}
    for logger in trainer.loggers:
        logger.log_hyperparams(flat)
