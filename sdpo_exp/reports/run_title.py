"""A run's name on its pictures: what it tries, in the words of its command line."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from sdpo_exp.reports.run_records import read_run
from sdpo_exp.shaping import is_plumbing

_CHOICES = (
    "model",
    "objective",
    "safeguard",
    "seed",
    "name",
    "run_dir",
    "resume",
    "redo",
    "logger",
)
_WIDTH = 96  # letters of a line


def run_title(folder: Path) -> str:
    """`tiny dpo, safeguard on, seed 0, lr=1e-3`; the folder's own name where it has no `run.json`.

    Long ones have several lines.
    """
    record = read_run(folder)
    if not record.told.get("objective"):
        return folder.resolve().name
    seed = [] if record.seed is None else [f"seed {record.seed}"]
    words = [f"{record.model} {record.objective}", f"safeguard {record.safeguard}", *seed]
    line = ", ".join([*words, *_settings(record.overrides)])
    return "\n".join(textwrap.wrap(line, _WIDTH, break_on_hyphens=False))


def _settings(overrides: Sequence[str]) -> list[str]:
    """What the command line sets beside the choices; of a key that it sets twice, the last."""
    pairs = (line.lstrip("+~").partition("=") for line in overrides)
    found = {
        key: f"{key}={value}"
        for key, _, value in pairs
        if value and key not in _CHOICES and not key.startswith("hydra") and not is_plumbing(key)
    }
    return list(found.values())
