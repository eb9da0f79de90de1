"""Bare paths on the command line of a command that looks at folders."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from sdpo_exp.cli.run_references import is_reference, referred
from sdpo_exp.config.command_line import parsed
from sdpo_exp.errors import UserError


def gather_paths(argv: list[str], keys: Collection[str]) -> None:
    """Turn bare paths into one `paths=[...]` for Hydra, in place, whatever they are called.

    A path is what has no equals sign, or lies on the disk, or has a slash before its equals sign;
    what begins with one of a command's `keys` is a value, even if a file is called so (write
    `./seed=1`). A short name of a run, such as `latest`, becomes its folder.

    Raises:
        UserError: bare paths, and `paths=` as well; or no such run.
    """
    given = parsed(argv[1:]).overrides
    paths = [argument for argument in given if _is_path(argument, keys)]
    if not paths:
        return
    if any(argument.lstrip("+").startswith("paths=") for argument in given):
        raise UserError(f"paths= and {paths[0]}: give the paths in one way, not in both")
    named = (str(referred(path)) if is_reference(path) else path for path in paths)
    quoted = (QuotedString(path, Quote.single).with_quotes() for path in named)
    rest = [argument for argument in given if not _is_path(argument, keys)]
    # Hydra's flags stand before or behind all the rest, and may have values of their own.
    starts = [i for i in range(1, len(argv)) if argv[i : i + len(given)] == given]
    argv[starts[-1] : starts[-1] + len(given)] = [f"paths=[{','.join(quoted)}]", *rest]


def _is_path(argument: str, keys: Collection[str]) -> bool:
    key, equals, _ = argument.partition("=")
    name = key.lstrip("+~")
    if equals and (name in keys or name.startswith(("hydra.", "hydra/"))):
        return False
    return not equals or "/" in key or Path(argument).exists()
