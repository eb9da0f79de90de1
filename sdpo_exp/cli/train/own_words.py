"""`resume=RUN`: the words that made RUN stand before those of this command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdpo_exp.cli.train.changes import differing, run_of, saved_values, values_of
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.command_line import parsed
from sdpo_exp.config.composition import compose_cell
from sdpo_exp.errors import UserError
from sdpo_exp.reports.run_records import RUN_FILE

# Of one run alone, whoever goes on with it.
_ITS_OWN = frozenset({"run_dir", "resume", "resume_changes", "redo", "hydra"})


def add_own_words(argv: list[str]) -> None:
    """Put the overrides of the run that `resume=` names before those given, in place.

    A given word replaces the run's own of the same key; one that chooses a group anew replaces
    all below it. Where defaults have changed since the run was made, its saved values are added.
    In place, because distributed launchers execute `sys.argv` again, which then adds nothing.

    Raises:
        UserError: `resume=` names several runs.
    """
    flags = parsed(argv[1:])
    resume = _resumed(flags.overrides)
    if resume is None:
        return
    run = run_of(Path(resume))
    own, config_dir = _recorded(run)
    config_dir = flags.config_dir or config_dir
    own += _drifted(run, own, config_dir)
    own = [word for word in own if not _is_replaced(word, flags.overrides)]
    if any(_key(word) == "experiment" for word in own) and not flags.multirun:
        own.append("hydra.mode=RUN")  # a sweep's overlay would make a sweep of it
    at = argv.index(flags.overrides[0])
    argv[at:at] = [word for word in own if word not in flags.overrides]
    if config_dir and not flags.config_dir:
        argv[1:1] = ["--config-dir", config_dir]


def _resumed(overrides: Iterable[str]) -> str | None:
    words = [word for word in overrides if _key(word) == "resume"]
    if not words:
        return None
    try:
        override = OverridesParser.create().parse_override(words[-1])
    except HydraException:
        return None  # told when the command line is checked
    if override.is_sweep_override():
        raise UserError(f"{words[-1]}: one run at a time; a resume takes that run's own settings")
    value = override.value()
    return None if value is None else str(getattr(value, "text", value))


def _recorded(run: Path) -> tuple[list[str], str | None]:
    """The overrides that a run was made with, and its `--config-dir`."""
    try:
        told = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
        words, config_dir = [str(w) for w in told["overrides"]], told.get("config_dir")
    except (OSError, ValueError, KeyError, TypeError):
        words, config_dir = _hydras(run), None
    return [word for word in words if re.split(r"[./]", _key(word))[0] not in _ITS_OWN], config_dir


def _hydras(run: Path) -> list[str]:
    """From Hydra's own file: runs had no other record once."""
    try:
        return [str(word) for word in OmegaConf.load(run / ".hydra" / "overrides.yaml")]
    except (OSError, ValueError, OmegaConfBaseException):
        return []


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def _is_replaced(word: str, given: Iterable[str]) -> bool:
    key = _key(word)
    return any(key == other or key.startswith(f"{other}.") for other in map(_key, given))


def _drifted(run: Path, own: list[str], config_dir: str | None) -> list[str]:
    """The run's saved values where its own words mean others by now: defaults change."""
    saved = saved_values(run)
    register_resolvers()
    composed = compose_cell("train", own, config_dir)
    if saved is None or composed.config is None or composed.problems:
        return []
    try:
        now = values_of(composed.config)
    except OmegaConfBaseException:
        return []
    return [f"{key}={_literal(saved[key])}" for key in differing(saved, now) if key in now]


def _literal(value: Any) -> str:
    """A value as Hydra's command line writes it."""
    if isinstance(value, str):
        return str(QuotedString(value, Quote.single).with_quotes())
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else repr(value)
