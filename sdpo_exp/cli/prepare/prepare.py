"""`python -m sdpo_exp.prepare`: checks, and the words of a training with a few of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.cli.cache_settings import settings_of, uncachable
from sdpo_exp.cli.command import run_command
from sdpo_exp.cli.train.own_files import check_own_files
from sdpo_exp.config.check import check_config, check_keys
from sdpo_exp.data.cache_card import CARD, read_card
from sdpo_exp.errors import UserError

KEYS: dict[str, Any] = {
    "out": str,
    "cache_dtype": Literal["float32", "bfloat16"],
    "shard": PositiveInt,
    "device": Literal["auto", "cpu", "cuda"],
    "devices": PositiveInt | None,
}


def main() -> None:
    """Entry point of `python -m sdpo_exp.prepare`."""
    run_command("prepare", prepare, check_prepare, _late_check, file_check=_file_check)


def check_prepare(config: DictConfig) -> list[str]:
    """Mistakes of the training's own words, and of the command's."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key in KEYS])
    rest = [str(key) for key in config if key not in KEYS]
    problems = check_keys(own, KEYS) + check_config(OmegaConf.masked_copy(config, rest))
    if not problems and config.data.get("cache") is not None:
        problems.append("data.cache: out says where the cache goes; leave data.cache=null")
    return problems or uncachable(config)


def _file_check(config: DictConfig) -> list[str]:
    """What files tell, a cache in `out` among them that is of other work."""
    found = check_own_files(config)
    if found or OmegaConf.is_missing(config, "out"):  # the latter is told elsewhere
        return found
    folder = Path(config.out)
    if not (folder / CARD).is_file():
        return []
    try:
        card = read_card(folder, "out")
    except UserError as error:
        return [str(error)]
    mine = settings_of(config) | {"cache_dtype": config.cache_dtype, "shard": config.shard}
    there = {**card.settings, "cache_dtype": card.dtype, "shard": card.shard}
    return [
        f"{key}: out={folder} was begun with {there.get(key)}, not {mine.get(key)}; give the same, "
        "or another folder"
        for key in dict.fromkeys([*there, *mine])
        if there.get(key) != mine.get(key)
    ]


def _late_check(config: DictConfig) -> list[str]:
    from sdpo_exp.config.sources import absent_sources

    return absent_sources(config)


def prepare(config: DictConfig) -> None:
    """Encode what is not in the cache yet; see `conf/prepare.yaml`.

    Raises:
        UserError: pairs, model, folder or disk cannot be used, or the user stopped it.
    """
    from sdpo_exp.cli.prepare.run import prepare_into

    prepare_into(config, Path(config.out))
