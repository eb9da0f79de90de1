"""`python -m sdpo_exp.sample_pairs`: preference pairs from a model's own samples."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.command import run_command
from sdpo_exp.config.check import check_keys
from sdpo_exp.config.schema import SAMPLE_PAIRS_KEYS

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
    return problems


def sample_pairs(config: DictConfig) -> None:
    """Sample, rank and store; see `conf/sample_pairs.yaml`."""
    import torch

    from sdpo_exp.testbed.sample_pairs import SamplingPlan
    from sdpo_exp.testbed.sample_pairs import sample_pairs as make

    torch.set_num_threads(config.torch_threads)
    torch.set_flush_denormal(True)
    values = {str(key): value for key, value in OmegaConf.to_container(config).items()}  # type: ignore[union-attr]
    folder = Path(config.folder)
    plan = {key: values[key] for key in SamplingPlan.__dataclass_fields__}
    make(folder, SamplingPlan(**plan), _log.info)
    _log.info("use it with data=tiny_sampled data.train.folder=%s", folder)
