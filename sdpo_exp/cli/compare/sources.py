"""What `python -m sdpo_exp.compare` is given: evaluations, tables of scores, public manifests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Any

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.evaluation.scores import (
    EVALUATION_FILE,
    SCORES_FILE,
    ScoreTable,
    read_manifest_scores,
    read_scores,
)

_MANIFEST = "manifest.json"
_EVALUATE = "python -m sdpo_exp.evaluate"


@dataclass(frozen=True)
class Source:
    """A model's scores.

    Attributes:
        path: as given.
        name: of the model.
        table: its scores.
        by_prompt: only prompts tell its images apart, so that it must be paired by them.
        evaluation: content of `evaluation.json`; empty where there is none.
        notes: what to know about it.
    """

    path: str
    name: str
    table: ScoreTable
    by_prompt: bool = False
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def said(self, *keys: str) -> Any:
        """A value of `evaluation.json` by its path of keys; None where there is none."""
        value: Any = self.evaluation
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def read_source(path: str, fields: Sequence[str] = ()) -> Source:
    """Read what lies at a path: a folder of `evaluate`, a table of scores, or a manifest.

    Args:
        path: on disk.
        fields: of a manifest, to take as scores besides those that are known to be.

    Raises:
        UserError: nothing is there, or something else, with the way from it to scores.
    """
    found = Path(path).expanduser()
    if not found.exists():
        raise UserError(f"{path}: no such file or folder")
    if found.is_dir():
        if not (found / SCORES_FILE).is_file():
            raise UserError(f"{path}: {_why_no_scores(path, found)}")
        return _evaluated(path, found / SCORES_FILE)
    if found.name == EVALUATION_FILE and (found.parent / SCORES_FILE).is_file():
        return _evaluated(path, found.parent / SCORES_FILE)
    return _manifest(path, found, fields) if found.suffix == ".json" else _evaluated(path, found)


def with_names(sources: Sequence[Source], names: Sequence[str] | None) -> list[Source]:
    """The sources under the names given, or under their own, numbered where some are alike."""
    if names is not None:
        return [replace(source, name=name) for source, name in zip(sources, names, strict=True)]
    taken: set[str] = set()
    named = []
    for source in sources:
        name, number = source.name, 1
        while name in taken:
            number += 1
            name = f"{source.name} ({number})"
        taken.add(name)
        named.append(replace(source, name=name))
    return named


def _why_no_scores(path: str, folder: Path) -> str:
    """What a folder without scores is, and how to come to some."""
    if (folder / "config.yaml").is_file() and (folder / "model").is_dir():
        way = f"{_EVALUATE} checkpoint={quote(path)}"
        return f"a training run, not yet evaluated. Do that first: {way}"
    if (folder / _MANIFEST).is_file():
        return f"images without scores. Score them first: {_EVALUATE} images={quote(path)}"
    near = sorted(file.parent for file in folder.glob(f"*/{SCORES_FILE}"))
    if near:
        return f"no {SCORES_FILE} here, but in {', '.join(map(str, near[:3]))}"
    return f"no {SCORES_FILE} in this folder; {_EVALUATE} writes one"


def _evaluated(path: str, file: Path) -> Source:
    table, content = read_scores(file), _evaluation(file.parent / EVALUATION_FILE)
    fallback = file.parent.resolve().name if file.name == SCORES_FILE else file.stem
    name = content.get("name")
    return Source(
        path,
        name if isinstance(name, str) and name.strip() else _printable(fallback),
        table,
        by_prompt=content.get("pairing") == "prompt",
        evaluation=content,
    )


def _evaluation(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({first_line(error)})") from None
    return content if isinstance(content, dict) else {}


def _manifest(path: str, file: Path, fields: Sequence[str]) -> Source:
    found = read_manifest_scores(file, fields)
    if not found.table.scores:
        other = ", ".join(found.numbers)
        hint = f" If one of {other} is a score, name it: only=[<field>]." if other else ""
        raise UserError(
            f"{path}: its entries hold no scores, neither `scores` nor numbers called "
            f"<metric>_score. Score its images first: {_EVALUATE} images={quote(path)} "
            f"metric=[<metric>].{hint}"
        )
    dropped = f"{path}: {found.dropped} entries without prompt or path of an image left out"
    return Source(
        path,
        _printable(file.parent.resolve().name if file.name == _MANIFEST else file.stem),
        found.table,
        by_prompt=not found.by_index,
        notes=(dropped,) if found.dropped else (),
    )


def _printable(name: str) -> str:
    """A name of a file, whatever bytes it holds; the root has none."""
    return name.encode("utf-8", "replace").decode() or "model"
