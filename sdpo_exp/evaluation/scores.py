"""Scores in files: `scores.parquet`, a row per image and metric, and public JSON manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.evaluation.manifests import ManifestEntry, read_entries
from sdpo_exp.evaluation.pairing import ImageKey, PromptKey, Score
from sdpo_exp.whole_files import write_parquet

SCORES_FILE = "scores.parquet"
EVALUATION_FILE = "evaluation.json"  # beside it: which model, which prompts, which scorers
_COLUMNS = {
    "set": pa.string(),
    "index": pa.int64(),
    "seed": pa.int64(),
    "prompt": pa.string(),
    "metric": pa.string(),
    "score": pa.float32(),
}


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one model's images.

    Attributes:
        scores: by metric, in the order of the file.
        texts: the prompts' texts.
        labels: by axis, such as `category`, what a prompt is filed under.
    """

    scores: Mapping[str, Sequence[Score]]
    texts: Mapping[PromptKey, str]
    labels: Mapping[str, Mapping[PromptKey, str]]


def write_scores(path: Path, table: ScoreTable) -> None:
    """Write a table, complete or not at all; scores are stored as float32, as scorers give them.

    A prompt without a label on some axis has null there.
    """
    rows: dict[str, list[Any]] = {name: [] for name in (*_COLUMNS, *table.labels)}
    for metric, scores in table.scores.items():
        for image, value in scores:
            prompt = PromptKey(image.set, image.prompt)
            values = (*image, table.texts[prompt], metric, value)
            for name, cell in zip(_COLUMNS, values, strict=True):
                rows[name].append(cell)
            for axis, by_prompt in table.labels.items():
                rows[axis].append(by_prompt.get(prompt))
    schema = pa.schema({**_COLUMNS, **dict.fromkeys(table.labels, pa.string())})
    write_parquet(path, pa.table(rows, schema=schema))


class ManifestScores(NamedTuple):
    """What a manifest says of its images.

    Attributes:
        table: the scores; without any, the images' prompts all the same.
        by_index: the entries say set, index and seed; otherwise only prompts tell images apart.
        dropped: entries whose prompt is no text, or that have no path of an image.
        numbers: further fields that hold numbers, which may be scores or not.
    """

    table: ScoreTable
    by_index: bool
    dropped: int
    numbers: tuple[str, ...]


def read_scores(path: Path) -> ScoreTable:
    """Read what `write_scores` wrote; any further column of texts is an axis of labels.

    Raises:
        UserError: unreadable, a column is missing or of another type, a cell is empty, there is no
            row, or a prompt has two texts.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as scores ({first_line(error)})") from None
    if missing := [name for name in _COLUMNS if name not in table.column_names]:
        raise UserError(f"{path}: not a table of scores: no column {', '.join(missing)}")
    if not table.num_rows:
        raise UserError(f"{path}: holds no scores; it has no rows")
    if empty := [name for name in _COLUMNS if table[name].null_count]:
        raise UserError(f"{path}: not a table of scores: empty cells in {', '.join(empty)}")
    kinds = {**_COLUMNS, "score": pa.float64()}  # whoever wrote more digits keeps them
    try:
        columns = {name: table[name].cast(kind).to_pylist() for name, kind in kinds.items()}
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a table of scores ({first_line(error)})") from None
    prompts = [PromptKey(*key) for key in zip(columns["set"], columns["index"], strict=True)]
    scores: dict[str, list[Score]] = {}
    for row, prompt in enumerate(prompts):
        image = ImageKey(*prompt, columns["seed"][row])
        scores.setdefault(columns["metric"][row], []).append(Score(image, columns["score"][row]))
    labels = {axis: table[axis].to_pylist() for axis in _axes(table)}
    return ScoreTable(
        scores,
        _texts(path, zip(prompts, columns["prompt"], strict=True)),
        {
            axis: {k: v for k, v in zip(prompts, cells, strict=True) if v}
            for axis, cells in labels.items()
        },
    )


def read_manifest_scores(path: Path, fields: Sequence[str] = ()) -> ManifestScores:
    """Scores in a manifest: a JSON list of `{prompt, gen_image_path, metadata, ...}`.

    Scores are the numbers of an entry's `scores`, a mapping by metric; the numbers of the entry
    itself that are called `<metric>_score`, under that name; and what `fields` names, in the entry
    or its `metadata`. Texts in `metadata` are labels. As in the public scripts, an entry counts if
    its prompt is a text and its image path, or the first filled one of a list of them, is one.

    Args:
        path: of the JSON file; an image's set is named after it, its index is its place among the
            entries that count, unless all entries say `set`, `index` and `seed`.
        fields: further fields to take as scores.

    Raises:
        UserError: no manifest, no entry that counts, or one without a metric that others have.
    """
    entries, by_index, dropped = read_entries(path)
    numbers = [_numbers(entry.fields, fields) for entry in entries]
    table = ScoreTable(
        _scores(path, entries, [scores for scores, _ in numbers]),
        _texts(path, ((_prompt(entry), entry.prompt) for entry in entries)),
        _labels(entries),
    )
    others = dict.fromkeys(name for _, loose in numbers for name in loose)
    return ManifestScores(table, by_index, dropped, tuple(others))


def _prompt(entry: ManifestEntry) -> PromptKey:
    return PromptKey(entry.image.set, entry.image.prompt)


def _scores(
    path: Path, entries: Sequence[ManifestEntry], scores: Sequence[Mapping[str, float]]
) -> dict[str, list[Score]]:
    found: dict[str, list[Score]] = {name: [] for own in scores for name in own}
    for entry, own in zip(entries, scores, strict=True):
        if missing := sorted(found.keys() - own.keys()):
            raise UserError(
                f"{path}: entry {entry.place} has no {', '.join(missing)}, and others do"
            )
        for name, column in found.items():
            column.append(Score(entry.image, own[name]))
    return found


def _labels(entries: Sequence[ManifestEntry]) -> dict[str, dict[PromptKey, str]]:
    found: dict[str, dict[PromptKey, str]] = {}
    for entry in entries:
        for axis, value in entry.labels.items():
            found.setdefault(axis, {})[_prompt(entry)] = value
    return found


def _numbers(
    entry: Mapping[str, Any], fields: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """The scores of an entry, and its other numbers."""
    metadata, top = _numeric(entry.get("metadata")), _numeric(entry)
    loose = {**metadata, **{k: v for k, v in top.items() if k not in ("index", "seed")}}
    scores = {k: v for k, v in top.items() if k.endswith("_score")}
    scores |= {name: {**metadata, **top}[name] for name in fields if name in metadata | top}
    scores |= _numeric(entry.get("scores"))
    return scores, {k: v for k, v in loose.items() if k not in scores}


def _numeric(value: Any) -> dict[str, float]:
    return {
        name: float(cell)
        for name, cell in _mapping(value).items()
        if isinstance(cell, int | float) and not isinstance(cell, bool)
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _axes(table: pa.Table) -> list[str]:
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return [
        field.name
        for field in table.schema
        if field.name not in _COLUMNS and any(kind(field.type) for kind in texts)
    ]


def _texts(path: Path, pairs: Iterable[tuple[PromptKey, str]]) -> dict[PromptKey, str]:
    found: dict[PromptKey, str] = {}
    for prompt, text in pairs:
        if found.setdefault(prompt, text) != text:
            raise UserError(
                f"{path}: prompt {prompt.prompt} of set {prompt.set} has two texts, "
                f"{found[prompt]!r} and {text!r}"
            )
    return found
