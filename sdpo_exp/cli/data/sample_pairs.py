"""`python -m sdpo_exp.sample_pairs`: preference pairs from a model's own samples."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.checkpoints.pipelines import find_model
from sdpo_exp.cli.command import run_command
from sdpo_exp.cli.printed import command, word
from sdpo_exp.config.check import check_keys
from sdpo_exp.config.schema import SAMPLE_PAIRS_KEYS
from sdpo_exp.errors import UserError

_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `python -m sdpo_exp.sample_pairs`."""
    run_command("sample_pairs", sample_pairs, check_sample_pairs, lambda _: [])


def check_sample_pairs(config: DictConfig) -> list[str]:
    """Unknown keys, types, ranges, a folder that is already there, and nothing to do."""
    problems = check_keys(config, SAMPLE_PAIRS_KEYS)
    if not problems and Path(config.folder).exists():
        problems = [f"folder={config.folder} exists; give another folder"]
    if not problems and config.train == config.validation == 0:
        problems = ["train=0 validation=0: no pairs to make"]
    if not problems and config.pretrained is not None:
        try:
            find_model(config.pretrained)
        except UserError as error:
            problems = [f"pretrained={error}"]
    return problems


def sample_pairs(config: DictConfig) -> None:
    """Sample, rank and store; see `conf/sample_pairs.yaml`."""
    import torch

    from sdpo_exp.testbed.sample_pairs import SamplingPlan
    from sdpo_exp.testbed.sample_pairs import sample_pairs as make

    torch.set_num_threads(config.torch_threads)
    torch.set_flush_denormal(True)
    values = {str(key): value for key, value in OmegaConf.to_container(config).items()}  # type: ignore[union-attr]
    if config.pretrained is not None:  # a run's folder means its model
        values["pretrained"] = str(find_model(config.pretrained).folder)
    folder = Path(config.folder)
    plan = {key: values[key] for key in SamplingPlan.__dataclass_fields__}
    try:
        make(folder, SamplingPlan(**plan), _log.info)
    except OSError as error:  # weights that are missing or broken
        raise UserError(f"pretrained={config.pretrained}: {error}") from None
    onward = command("train", "data=tiny_sampled", word("data.train.folder", folder))
    _log.info("train on it: %s", onward)
