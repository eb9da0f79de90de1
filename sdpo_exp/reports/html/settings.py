"""What two configurations do not share, from their resolved files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdpo_exp.reports.html.runs import Run
from sdpo_exp.reports.run_records import leaves
from sdpo_exp.shaping import shapes

# What may differ between two runs of one cell, beside the seed.
_NOT_PART = frozenset(
    {
        "seed",
        "hydra",
        "name",
        "run_dir",
        "resume",
        "resume_changes",
        "redo",
        "logger",
        "torch_threads",
    }
)
_FIRST = ("._target_", ".rank")
_ABSENT = "(absent)"
Settings = dict[str, str]


def settings_of(run: Run) -> Settings:
    """Every leaf of a run's configuration that is part of its cell, by its dotted path.

    How a run is executed and watched is left out: runs that differ in that alone are one cell.
    Keys called `seed` are left in: which of them follow the run's own is seen over several runs.
    """
    parts = {key: value for key, value in run.config.items() if key not in _NOT_PART}
    run_dir = str(run.config.get("run_dir") or "\0")
    return {
        path: _word(value).replace(run_dir, "RUN") for path, value in leaves(parts) if _counts(path)
    }


def _counts(path: str) -> bool:
    """Whether a key decides what is learned, for how long, or what is judged."""
    return shapes(path) or path.endswith(".seed") or path.startswith(("max_steps", "evaluation."))


def _word(value: Any) -> str:
    """As it is written on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def differing(all_settings: Sequence[Settings]) -> dict[str, list[str]]:
    """The keys on which they do not all agree, and each one's value."""
    if not all_settings:
        return {}
    keys = dict.fromkeys(key for one in all_settings for key in one)
    values = {key: [one.get(key, _ABSENT) for one in all_settings] for key in keys}
    return {key: column for key, column in values.items() if len(set(column)) > 1}


def named_keys(runs: Iterable[Run]) -> frozenset[str]:
    """The keys that the runs' command lines set."""
    lines = (line for run in runs for line in run.record.overrides)
    return frozenset(line.lstrip("+~").partition("=")[0] for line in lines)


def without_echoes(
    columns: Mapping[str, Sequence[str]], preferred: frozenset[str]
) -> dict[str, tuple[str, ...]]:
    """One key of each set of keys that always move together, with all keys of its set.

    Interpolations repeat a value: `recipe.mu` and `safeguard.mu` are one decision. The key that a
    command line names speaks for its set, or else the shortest path outside the recipe; a
    class or a rank before its like.
    """

    def rank(key: str) -> tuple[Any, ...]:
        place = key.startswith("recipe."), key.count("."), not key.endswith(_FIRST), key
        return key not in preferred, *place

    spoken: dict[tuple[str, ...], list[str]] = {}
    for key in sorted(columns, key=rank):
        codes: dict[str, int] = {}
        moves = tuple(str(codes.setdefault(value, len(codes))) for value in columns[key])
        spoken.setdefault(moves, []).append(key)
    return {keys[0]: tuple(keys) for keys in spoken.values()}
