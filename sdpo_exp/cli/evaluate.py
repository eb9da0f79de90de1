"""`python -m sdpo_exp.evaluate`: images drawn where they are missing, then scored."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sdpo_exp.cli.command import run_command
from sdpo_exp.cli.draw_checks import absent_for_drawing, check_draws, is_chosen
from sdpo_exp.config.schema import EVALUATE_KEYS


def main() -> None:
    """Entry point of `python -m sdpo_exp.evaluate`."""
    run_command("evaluate", evaluate, check_evaluate, absent_for_drawing)


def check_evaluate(config: DictConfig) -> list[str]:
    """What needs no torch: keys, types, ranges, and images, model or folder that cannot be used."""
    found = check_draws(config, EVALUATE_KEYS)
    if found:
        return found
    if not is_chosen(config, "metric"):
        found.append("metric: by what? For example metric=[tiny_reward] or metric=[pickscore,clip]")
    if config.images is None and not is_chosen(config, "prompts"):
        found.append("prompts: of which? For example prompts=tiny, or images=<folder> of generate")
    if config.images is not None:
        if not Path(config.images).exists():
            found.append(f"images={config.images}: no such folder or manifest")
        if config.checkpoint is not None:
            found.append("images and checkpoint: score what is drawn, or draw; not both")
    return found


def evaluate(config: DictConfig) -> None:
    """Draw, score, write and say; see `conf/evaluate.yaml`.

    Raises:
        UserError: model, prompts, images or a scorer cannot be used.
    """
    from sdpo_exp.cli.scoring import score_folder

    hydra = HydraConfig.get()
    sweep = hydra.mode == RunMode.MULTIRUN  # its jobs may share the time in the folder's name
    folder = Path(config.folder) / str(hydra.job.num) if sweep else Path(config.folder)
    if config.images is None:
        from sdpo_exp.cli.generate_set import generate_set

        generate_set(config, folder)
    score_folder(config, folder)
