"""`python -m sdpo_exp.generate`: images from a prompt, or from a whole set of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig

from sdpo_exp.cli.command import job_folder, run_command
from sdpo_exp.cli.generate.draw_checks import absent_for_drawing, check_draws, is_chosen
from sdpo_exp.config.command_line import parsed
from sdpo_exp.config.schema import GENERATE_KEYS

EXAMPLE = "a large red circle on a blue background at the top left"
_TEXT = re.compile(r"^(?P<key>\+{0,2}(?:negative_)?prompt=)(?P<value>.*)$", re.DOTALL)


def main() -> None:
    """Entry point of `python -m sdpo_exp.generate`."""
    quote_prompts(sys.argv)
    run_command("generate", generate, check_generate, late_check, runs=("checkpoint",))


def quote_prompts(argv: list[str]) -> None:
    """Quote prompts for Hydra in place, so that commas, colons and the like stand for themselves.

    What Hydra reads as one text or null already stays, and so does all of a sweep's command line,
    where a comma separates two prompts.
    """
    if parsed(argv[1:]).multirun:
        return
    for i, argument in enumerate(argv):
        match = _TEXT.match(argument)
        if match and not _is_one_text(argument):
            argv[i] = match["key"] + QuotedString(match["value"], Quote.single).with_quotes()


def _is_one_text(argument: str) -> bool:
    try:
        value = OverridesParser.create().parse_override(argument).value()
        return isinstance(value, str | None)  # not a number, a list or a sweep
    except HydraException:
        return False


def check_generate(config: DictConfig) -> list[str]:
    """What needs no torch: keys, types, ranges, a model or a folder that cannot be used."""
    problems = check_draws(config, GENERATE_KEYS)
    if problems:
        return problems
    if config.prompt is not None and is_chosen(config, "prompts"):
        problems.append("prompt and prompts: give one prompt or a set of them, not both")
    if not is_chosen(config, "prompts"):
        if Path(config.folder).exists():
            problems.append(f"folder={config.folder} exists; give another folder")
        if config.devices not in (None, 1):
            problems.append("devices: one prompt is drawn by one process; leave devices out")
    return problems


def late_check(config: DictConfig) -> list[str]:
    """Something to draw is needed to run, but not to look; and models that cannot be had."""
    if not is_chosen(config, "prompts") and not (config.prompt or "").strip():
        return [
            f"prompt: what should the images show? For example prompt='{EXAMPLE}', or a set of "
            "prompts: prompts=tiny"
        ]
    return absent_for_drawing(config)


def generate(config: DictConfig) -> None:
    """Generate and write; see `conf/generate.yaml`.

    Raises:
        UserError: the model cannot be loaded, or takes no prompt.
    """
    folder = job_folder(config)
    if is_chosen(config, "prompts"):
        from sdpo_exp.cli.generate.generate_set import generate_set

        generate_set(config, folder)
    else:
        from sdpo_exp.cli.generate.one_prompt import generate_one

        generate_one(config, folder)
