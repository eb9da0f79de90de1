"""`where='[model=tiny,safeguard=on]'`: some of the runs, by their choices or any of their keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sdpo_exp.config.check import close_matches
from sdpo_exp.errors import UserError
from sdpo_exp.reports.data_words import data_of
from sdpo_exp.reports.run_records import RunRecord, leaves

_OF_RUNS = ("status", "model", "objective", "safeguard", "seed", "name")
_WORDS = {"true": "on", "false": "off"}  # of the safeguard
_NULL = "null"


def rewrite_where(argv: list[str]) -> None:
    """Turn `where=[key=value,...]` and `where=key=value` into a mapping for Hydra, in place.

    Raises:
        UserError: `where=` is neither these nor a mapping.
    """
    for i, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        value = value.strip()
        if name != "where" or value in ("", _NULL) or value.startswith("{"):
            continue
        inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        pairs = [part.partition("=") for part in re.split(r",(?=\s*[\w./]+\s*=)", inner)]
        if not all(key.strip() and equals and word.strip() for key, equals, word in pairs):
            raise UserError(
                f"{argument}: give keys with values, as in where='[model=tiny,safeguard=on]' or "
                "where='[lr=[1e-4,2e-4]]'"
            )
        told = ", ".join(f"{key.strip()}: {_listed(word.strip())}" for key, _, word in pairs)
        argv[i] = f"where={{{told}}}"


def _listed(word: str) -> str:
    """`a,b` are two values, with or without brackets."""
    return f"[{word}]" if "," in word and not word.startswith(("[", "{", '"', "'")) else word


def chosen(records: Sequence[RunRecord], where: Mapping[str, Any] | None) -> list[RunRecord]:
    """The runs that have one of the wanted values of every key.

    Args:
        records: of the runs.
        where: by key, a value or a list of values. A key is `status`, `model`, `data`,
            `objective`, `safeguard`, `seed`, `name`, or a dotted key of the configuration.

    Raises:
        UserError: no run has the key, or none is left.
    """
    left = list(records)
    for key, wanted in leaves(where or {}):
        if not key:  # of an empty mapping
            continue
        values = {id(record): _values(record, key) for record in records}
        there = {found[0] for found in values.values() if found}
        if not there:
            keys = [*_OF_RUNS, "data", *(k for r in records for k, _ in leaves(r.config))]
            raise UserError(f"where: {key}: no run has this key{close_matches(key, keys)}")
        words = {_word(key, one) for one in (wanted if isinstance(wanted, list) else [wanted])}
        left = [record for record in left if words & set(values[id(record)])]
        if not left:
            told = ", ".join(sorted(there)[:8])
            asked = ", ".join(sorted(words))
            raise UserError(f"where: no run is left with {key}={asked}; there is: {told}")
    return left


def _values(record: RunRecord, key: str) -> list[str]:
    """What a run has of a key, and other words for it; empty where it has none."""
    if key in _OF_RUNS:
        return [_word(key, getattr(record, key))]
    if key == "data":  # `folder own` is both `folder` and `own`
        words = data_of(record)
        return [words, *words.split(" ")] if words else []
    found = dict(leaves(record.config))
    return [_word(key, found[key])] if key in found else []


def _word(key: str, value: Any) -> str:
    """As it is written on a command line; numbers alike are alike."""
    if value is None:
        return _NULL
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if key == "safeguard":
        return _WORDS.get(text, text)
    try:
        return f"{float(text):g}"
    except ValueError:
        return text
