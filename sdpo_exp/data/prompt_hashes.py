"""Hashes of prompt lists, and a note in the user's cache of those seen, so that a change is told.

Images are known by the index of their prompt. When a public list changes between two runs, index 7
is another prompt, and nothing else would say so.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sdpo_exp.errors import UserError

_log = logging.getLogger(__name__)
_NO_COMPARISON = "images drawn for the one do not compare with images for the other, index by index"
_HEX = set("0123456789abcdef")


class PromptList(NamedTuple):
    """What a list of prompts is known by: the set's name, where it is from, and its hash.

    `source` is a hub id, or the full path of a local file or folder.
    """

    name: str
    source: str
    revision: str | None
    sha256: str
    n: int


def texts_hash(texts: Sequence[str]) -> str:
    """sha256 over texts in order, as a compact JSON list in ASCII."""
    return hashlib.sha256(json.dumps(list(texts), separators=(",", ":")).encode()).hexdigest()


def check_pin(pin: str, name: str) -> None:
    """Refuse a pin that can be no hash.

    Raises:
        UserError: not 64 lower-case hexadecimal digits.
    """
    if len(pin) != 64 or set(pin) - _HEX:
        raise UserError(f"prompts {name}: sha256 should be 64 lower-case hex digits, got '{pin}'")


def compare_with_pin(found: PromptList, pin: str) -> None:
    """Warn of a list that is not the pinned one."""
    if found.sha256 != pin:
        _log.warning(
            "prompts %s: %s has sha256 %s (%d prompts), but sha256=%s is asked for: another list, "
            "or another order; %s",
            found.name,
            found.source,
            found.sha256,
            found.n,
            pin,
            _NO_COMPARISON,
        )


def compare_with_record(found: PromptList) -> None:
    """Warn of a list that is not what its source gave before, and remember this one.

    The note is `sdpo_exp/prompt_sets.json` below `$XDG_CACHE_HOME`, or else `~/.cache`. One that
    cannot be read counts as empty, and one that cannot be written changes nothing.
    """
    with contextlib.suppress(RuntimeError):  # no home
        file = record_file()
        key = {"name": found.name, "source": found.source, "revision": found.revision}
        entries = _read(file)
        before = next((entry for entry in entries if key.items() <= entry.items()), None)
        if before is not None and before["sha256"] == found.sha256:
            return
        today = datetime.date.today().isoformat()
        if before is not None:
            _warn(found, before, today, file)
        others = [entry for entry in entries if entry is not before]
        entry = {**key, "sha256": found.sha256, "prompts": found.n, "date": today}
        _write(file, [*others, entry])


def record_file() -> Path:
    """Where hashes are remembered.

    Raises:
        RuntimeError: no cache folder is named, and there is no home.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = named if named.is_absolute() else Path.home() / ".cache"
    return folder / "sdpo_exp" / "prompt_sets.json"


def _warn(found: PromptList, before: Mapping[str, Any], today: str, file: Path) -> None:
    at = f" at {found.revision}" if found.revision else ""
    _log.warning(
        "prompts %s: %s%s has changed: sha256 %s (%s prompts) on %s, now %s (%d prompts) on %s; "
        "%s. The new one is remembered from here on, in %s",
        found.name,
        found.source,
        at,
        before["sha256"],
        before.get("prompts", "?"),
        before.get("date", "an unknown day"),
        found.sha256,
        found.n,
        today,
        _NO_COMPARISON,
        file,
    )


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return []
    entries = content if isinstance(content, list) else []
    return [e for e in entries if isinstance(e, dict) and isinstance(e.get("sha256"), str)]


def _write(file: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Replace the note as a whole; several processes may do so at once."""
    partial: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, suffix=".partial", delete=False
        ) as stream:
            partial = Path(stream.name)
            stream.write(json.dumps(entries, indent=2) + "\n")
        partial.replace(file)
    except OSError as error:
        _log.debug("%s: not written (%s)", file, error)
        if partial is not None:
            partial.unlink(missing_ok=True)
