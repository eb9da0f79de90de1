"""Ours on a Hydra command line: `--version`, `safeguard=true|false`, `--dry-run`, mixed sources."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from sdpo_exp import __version__

_CHOICES = {"true": "on", "false": "off"}
_MIXED = re.compile(
    r"^\+{0,2}(?P<sources>data\.(train|validation)\.sources)(\.(?P<name>[^.=]+)[.=]|=\{)", re.DOTALL
)
_MIXED_CLASS = "sdpo_exp.data.mixed_source.MixedSource"
_SAFEGUARD = re.compile(r"^(?P<key>\+{0,2}safeguard=)(?P<value>.*)$", re.DOTALL)


def parsed(arguments: Sequence[str]) -> Any:
    """Hydra's flags and the overrides; `--version` prints ours, not Hydra's, and ends."""
    if "--version" in arguments:
        print(f"sdpo_exp {__version__}")
        sys.exit(0)
    return get_args_parser().parse_args(list(arguments))


def given_keys(words: Iterable[str]) -> set[str]:
    """The keys that overrides set, add or take away."""
    return {word.lstrip("+~").partition("=")[0] for word in words}


def rewrite_booleans(argv: list[str]) -> None:
    """Map true -> on and false -> off for the key `safeguard`, in place.

    Hydra's grammar turns `true` into a bool before it looks for a config file of that name, and
    fails. In place, because distributed launchers execute `sys.argv` again. Comma-separated
    sweeps are mapped item by item; `choice(true,false)` is not: write `choice(on,off)`.
    """
    for i, argument in enumerate(argv):
        match = _SAFEGUARD.match(argument)
        if match:
            items = match["value"].split(",")
            mapped = [_CHOICES.get(item.strip().lower(), item) for item in items]
            argv[i] = match["key"] + ",".join(mapped)


def rewrite_dry_run(argv: list[str]) -> None:
    """Map `--dry-run`, which Hydra would not know, to `dry_run=true`, in place."""
    argv[1:] = ["dry_run=true" if argument == "--dry-run" else argument for argument in argv[1:]]


def name_sources(argv: list[str]) -> None:
    """Let `data.train.sources.<name>.<key>=<value>` name a new source of a mixture, in place.

    Hydra takes a key that is in no file only with a `+`, and what is built needs its class. A whole
    source, or all of them, may be given as a mapping.
    """
    given = {argument.lstrip("+").partition("=")[0] for argument in argv}
    for i, argument in reversed(list(enumerate(argv))):
        match = _MIXED.match(argument)
        if match is None:
            continue
        argv[i] = f"++{argument.lstrip('+')}"
        names = [match["name"]] if match["name"] else _names_in(argument)
        targets = [f"{match['sources']}.{name}._target_" for name in names]
        new = [target for target in targets if target not in given]
        argv[i + 1 : i + 1] = [f"++{target}={_MIXED_CLASS}" for target in new]
        given.update(new)


def _names_in(argument: str) -> list[str]:
    """The keys of a mapping that is given as a value."""
    try:
        value = OverridesParser.create().parse_override(argument).value()
    except HydraException:
        return []  # told when the command line is checked
    return [str(name) for name in value] if isinstance(value, dict) else []
