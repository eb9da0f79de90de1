"""`python -m sdpo_exp.pretrain`: the base model of the embedded world, from nothing."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from sdpo_exp.cli.command import run_command
from sdpo_exp.cli.printed import command, word
from sdpo_exp.config.check import check_keys
from sdpo_exp.config.schema import PRETRAIN_KEYS

_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `python -m sdpo_exp.pretrain`."""
    run_command("pretrain", pretrain, check_pretrain, lambda _: [])


def check_pretrain(config: DictConfig) -> list[str]:
    """Unknown keys, types, ranges, and a folder that is already there."""
    problems = check_keys(config, PRETRAIN_KEYS)
    if not problems and Path(config.folder).exists():
        problems = [f"folder={config.folder} exists; give another folder"]
    return problems


def pretrain(config: DictConfig) -> None:
    """Train, measure and store; see `conf/pretrain.yaml`."""
    from sdpo_exp.testbed.pretrain import pretrain as train_base

    target, threads = Path(config.folder), config.torch_threads
    model, base = config.model, config.base
    train_base(target, config.steps, config.seed, threads, _log.info, model, base)
    chosen = () if model == "tiny" else (word("model", model),)
    _log.info("train it: %s", command("train", *chosen, word("model.pretrained", target)))
