"""Commands as they are printed: to be copied, and to do what the text around them says."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException


def command(module: str, *words: str) -> str:
    """`python -m sdpo_exp[.module] words`, quoted for a shell where it must be."""
    name = f"sdpo_exp.{module}" if module != "train" else "sdpo_exp"
    return shlex.join(["python", "-m", name, *words])


def word(key: str, path: Path | str) -> str:
    """`key=path`, the path as seen from here, quoted for Hydra where its grammar needs it."""
    value = os.path.relpath(path) if isinstance(path, Path) else path
    try:
        plain = OverridesParser.create().parse_override(f"{key}={value}").value()
    except HydraException:
        plain = None
    if plain == value:
        return f"{key}={value}"
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"
