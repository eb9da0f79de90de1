"""Compose a command line's configuration and collect every mistake in it, not just the first."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdpo_exp.config import conf_dir
from sdpo_exp.config.check import close_matches
from sdpo_exp.config.hydra_versions import composing
from sdpo_exp.errors import first_line

# ValueError: what Hydra raises for a group that is given null or a number.
_MISTAKES = (HydraException, OmegaConfBaseException, ValueError)


@dataclass
class Composed:
    """A configuration (with its `hydra` node), and the overrides that had to be left out."""

    config: DictConfig | None
    problems: list[str] = field(default_factory=list)


def compose_cell(config_name: str, overrides: list[str], config_dir: str | None = None) -> Composed:
    """Compose one cell; an override that fails is reported, left out, and the rest goes on.

    Args:
        config_name: primary config.
        overrides: Hydra overrides without sweeps.
        config_dir: a folder of the user's own configs (Hydra's `--config-dir`).
    """
    search = [f"hydra.searchpath=[{Path(config_dir).absolute()}]"] if config_dir else []
    result, left = Composed(None), list(overrides)
    while True:
        try:
            result.config = _compose(config_name, left + search)
            return result
        except _MISTAKES as error:
            culprit = _culprit(error, left)
            if culprit is None:
                result.problems.append(first_line(error))
                return result
            result.problems.append(_explain(error, culprit, config_name, left, config_dir))
            left.remove(culprit)


def compose_beside(
    config_name: str, overrides: list[str], config_dir: str | None = None
) -> DictConfig | None:
    """Compose while a job of Hydra's runs, which goes on as it was; None for what has mistakes."""
    running = GlobalHydra.instance().hydra
    try:
        composed = compose_cell(config_name, overrides, config_dir)
    finally:
        GlobalHydra.instance().hydra = running
    return None if composed.problems else composed.config


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with composing(job_name="sdpo_exp"):
        return compose(config_name, overrides, return_hydra_config=True)


def readable(overrides: list[str]) -> tuple[list[str], list[str]]:
    """The overrides that Hydra's grammar accepts, and a problem for each of the others."""
    accepted, problems = [], []
    for line in overrides:
        try:
            OverridesParser.create().parse_override(line)
            accepted.append(line)
        except HydraException as error:
            problems.append(f"{line}: cannot be read as key=value. {first_line(error)}")
    return accepted, problems


def unswept(overrides: list[str]) -> list[str]:
    """The overrides that all cells of a sweep share."""
    parser = OverridesParser.create()
    return [line for line in overrides if not parser.parse_override(line).is_sweep_override()]


def expand_sweep(overrides: list[str], params: dict[str, str]) -> Iterator[list[str]]:
    """The cells of a sweep as Hydra's basic sweeper would make them.

    Args:
        overrides: of the command line; comma lists, ranges and choices are swept.
        params: `hydra.sweeper.params` of an overlay; the command line wins.
    """
    given = {override.split("=", 1)[0] for override in overrides}
    extra = [f"{key}={value}" for key, value in params.items() if key not in given]
    axes = []
    for override in OverridesParser.create().parse_overrides([*overrides, *extra]):
        if override.is_sweep_override():
            key = override.get_key_element()
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            axes.append([str(override.input_line)])
    return (list(cell) for cell in itertools.product(*axes))


def _culprit(error: Exception, overrides: list[str]) -> str | None:
    """The override that an error of Hydra's is about."""
    text = f"{error} {error.__cause__ or ''}"
    parser = OverridesParser.create()
    for line in reversed(overrides):
        override = parser.parse_override(line)
        key = override.key_or_group
        if isinstance(error, ValueError) and _is_no_choice(override):
            return line
        if f"'{key}'" in text or f"'{key}/" in text:
            return line
    return None


def _explain(
    error: Exception,
    culprit: str,
    config_name: str,
    overrides: list[str],
    config_dir: str | None,
) -> str:
    override = OverridesParser.create().parse_override(culprit)
    key = override.key_or_group
    if isinstance(error, ValueError) and _is_no_choice(override):
        return f"{culprit}: no such choice.{_nearest(str(override.value()), _options(key))[1:]}"
    if isinstance(error, MissingConfigException):
        missing = str(error).split(f"'{key}/")[-1].split("'")[0]
        return f"{culprit}: no such choice{_nearest(missing, _options(key, config_dir))}"
    if f"Could not override '{key}'" not in str(error):
        return f"{culprit}: {first_line(error)}"
    others = [line for line in overrides if line != culprit]
    base = compose_cell(config_name, others, config_dir).config
    return f"{culprit}: {_unknown_key(override, base)}"


def _is_no_choice(override: Override) -> bool:
    """Whether a group is given null, a number or a truth value."""
    value = override.value()
    return bool(_options(override.key_or_group)) and not isinstance(
        value, str | list | QuotedString
    )


def _unknown_key(override: Override, base: DictConfig | None) -> str:
    key = override.key_or_group
    if base is None:
        return "unknown key"
    group, _, leaf = key.partition(".")
    choice = base.hydra.runtime.choices.get(group)
    elsewhere = [option for option in _options(group) if _has_key(group, option, leaf)]
    if leaf and elsewhere:
        return f"{group}={choice} takes no '{leaf}'; {group}={', '.join(elsewhere)} does"
    paths = [path for path in _paths(base) if not path.startswith("hydra")]
    near = close_matches(key, paths)
    if near.startswith("; did"):
        return f"unknown key{near}"
    siblings = [p.rpartition(".")[2] for p in paths if p.rpartition(".")[0] == group and leaf]
    return f"unknown key{close_matches(leaf or key, siblings or list(base))}"


def _nearest(word: str, known: list[str]) -> str:
    near = close_matches(word, known)
    listing = f" Choices: {', '.join(known)}." if known else ""
    return f"{near}{listing}" if near.startswith("; did") else f".{listing}"


def _options(group: str, config_dir: str | None = None) -> list[str]:
    folders = [conf_dir(), *([Path(config_dir)] if config_dir else [])]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _has_key(group: str, option: str, leaf: str) -> bool:
    """Whether an option's own file sets `leaf`, following one step of inheritance."""
    config = OmegaConf.load(conf_dir() / group / f"{option}.yaml")
    if not isinstance(config, DictConfig):
        return False
    parents = [p for p in config.get("defaults", []) if isinstance(p, str)]
    inherits = any(
        p != option and p in _options(group) and _has_key(group, p, leaf) for p in parents
    )
    return leaf in config or inherits


def _paths(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in config:
        path = f"{prefix}{key}"
        yield path
        if OmegaConf.is_interpolation(config, str(key)) or OmegaConf.is_missing(config, str(key)):
            continue
        child = config[key]
        if isinstance(child, DictConfig):
            yield from _paths(child, f"{path}.")
