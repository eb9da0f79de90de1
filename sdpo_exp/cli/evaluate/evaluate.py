"""`python -m sdpo_exp.evaluate`: images drawn where they are missing, then scored."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from sdpo_exp.cli.command import job_folder, run_command
from sdpo_exp.cli.generate.draw_checks import absent_for_drawing, check_draws, is_chosen
from sdpo_exp.config.schema import EVALUATE_KEYS
from sdpo_exp.errors import UserError


def main() -> None:
    """Entry point of `python -m sdpo_exp.evaluate`."""
    run_command("evaluate", evaluate, check_evaluate, late_check, runs=("checkpoint",))


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
        if config.n is not None or config.seed:
            found.append("n and seed: images= scores all that is there; leave them out")
    return found


def late_check(config: DictConfig) -> list[str]:
    """What cannot be had, and prompts that a scorer cannot judge, before anything is drawn."""
    if config.images is not None:
        from sdpo_exp.config.sources import absent_sources

        return absent_sources(config, ("metric",))
    return absent_for_drawing(config) or _refusals(config)


def _refusals(config: DictConfig) -> list[str]:
    """What scorers say of the prompts by a classmethod `refuses(prompts)`, where they have one."""
    from hydra.utils import get_object

    from sdpo_exp.cli.build import build

    classes = [get_object(str(node["_target_"])) for node in config.metric.values()]
    asked = [kind for kind in classes if hasattr(kind, "refuses")]
    if not asked:
        return []
    try:
        texts = [prompt.text for prompt in build(config.prompts, "prompts").prompts()]
    except UserError as error:
        return [str(error)]
    said = (kind.refuses(texts) for kind in asked)
    return list(dict.fromkeys(line for line in said if line))


def evaluate(config: DictConfig) -> None:
    """Draw, score, write and say; see `conf/evaluate.yaml`.

    Raises:
        UserError: model, prompts, images or a scorer cannot be used.
    """
    from sdpo_exp.cli.evaluate.scoring import score_folder

    folder = job_folder(config)
    if config.images is None:
        from sdpo_exp.cli.generate.generate_set import generate_set

        generate_set(config, folder)
    score_folder(config, folder)
