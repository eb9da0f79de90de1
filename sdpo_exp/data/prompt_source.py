"""Where prompts are: which files of a folder or a hub dataset, or why they cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sdpo_exp import hub
from sdpo_exp.data.files import missing_files, names_below
from sdpo_exp.data.prompt_formats import FORMATS
from sdpo_exp.errors import UserError


def find_files(path: str, revision: str | None, patterns: Sequence[str]) -> list[list[Path]]:
    """Local files of a source, fetched where needed: per pattern, or a lone file by itself.

    Args:
        path: a file, a folder, or a hub dataset.
        revision: of a hub dataset.
        patterns: names of its files, as `PurePath.match` has them: `a.json` is in any folder, and
            `a-*.parquet` may be several. Empty: the only file of prompts that there is.

    Raises:
        UserError: it cannot be had, or lacks a file, or has two of a name.
    """
    if (problem := _no_such_file(path)) is not None:
        raise UserError(problem)

    def wanted(names: Sequence[str]) -> list[str]:
        if (problem := _lack(names, patterns)) is not None:
            raise UserError(f"{path}: {problem}")
        return _needed(names, patterns)

    try:
        located = hub.locate(path, "dataset", revision, wanted)
    except UserError as error:
        raise UserError(_with_advice(str(error), patterns)) from None
    if located.is_file():
        return [[located]]
    names = names_below(located)
    if (problem := _lack(names, patterns)) is not None:
        raise UserError(f"{path}: {problem}")
    if not patterns:
        return [[located / _prompt_files(names)[0]]]
    return [[located / name for name in _matching(names, pattern)] for pattern in patterns]


def absent_files(path: str, revision: str | None, patterns: Sequence[str]) -> str | None:
    """Why the files cannot be had, in one sentence, or None; nothing is loaded or fetched."""

    def complete(found: Path) -> bool:
        return _lack_of(found, patterns) is None

    if (problem := _no_such_file(path)) is not None:
        return problem
    reason = hub.absence(path, "dataset", revision, complete)
    if reason is None:
        return None
    if (found := hub.local_path(path)) is not None:
        return f"{path}: {_lack_of(found, patterns)}"
    return _with_advice(reason, patterns)


def _lack_of(found: Path, patterns: Sequence[str]) -> str | None:
    if found.is_dir():
        return _lack(names_below(found), patterns)
    if found.suffix.lower() not in FORMATS:
        return f"prompts are read from {', '.join(FORMATS)}"
    return None


def _lack(names: Sequence[str], patterns: Sequence[str]) -> str | None:
    """What is wrong with the files of a folder, in words, or None."""
    if not patterns and len(found := _prompt_files(names)) != 1:
        if not found:
            return f"no file of prompts in it; they are read from {', '.join(FORMATS)}"
        shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        return f"{len(found)} files of prompts in it ({shown}); choose by prompts.files=[<name>]"
    for pattern in patterns:
        found = _matching(names, pattern)
        if not found:
            return f"no file {pattern} in it"
        if len(found) > 1 and "*" not in pattern:
            return f"two files {pattern} in it: {found[0]} and {found[1]}"
        if (missing := missing_files(found)) is not None:
            return missing
    return None


def _needed(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    if not patterns:
        return _prompt_files(names)
    return [name for pattern in patterns for name in _matching(names, pattern)]


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    return sorted(name for name in names if PurePosixPath(name).match(pattern))


def _prompt_files(names: Sequence[str]) -> list[str]:
    return sorted(name for name in names if PurePosixPath(name).suffix.lower() in FORMATS)


def _no_such_file(path: str) -> str | None:
    """A file that is not there; what looks like a file is not asked of the hub."""
    if PurePosixPath(path).suffix.lower() in FORMATS and hub.local_path(path) is None:
        return f"{path}: no such file (in {Path.cwd()})"
    return None


def _with_advice(reason: str, patterns: Sequence[str]) -> str:
    """The hub's reason, how to fetch no more than is needed, and what to do without."""
    options = " ".join(f"--include '*{pattern}'" for pattern in patterns)
    less = f" (add {options}: no more is needed)" if options and "hf download" in reason else ""
    return f"{reason}{less}; or give a local copy: prompts.path=/path/to/file"
