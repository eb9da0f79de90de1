"""One source of a mixture, as a configuration says it, before train or validation is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from sdpo_exp.bounds import HalfOpenUnit, NonNegativeFloat, PositiveFloat, PositiveInt, Template
from sdpo_exp.data.columns import Columns, Part
from sdpo_exp.data.files import absent_table
from sdpo_exp.data.folder import FolderPairs
from sdpo_exp.data.folder_files import is_folder_of_pairs
from sdpo_exp.data.keyed import is_endless
from sdpo_exp.data.relabelled import RelabelledPairs
from sdpo_exp.data.table import TablePairs
from sdpo_exp.data.templates import check_template
from sdpo_exp.data.usual_columns import columns_of
from sdpo_exp.errors import NoPairLeft, UserError
from sdpo_exp.protocols import PairSource

_OF_TABLES = {
    "columns": None,
    "split": "train",
    "config": None,
    "revision": None,
    "min_margin": None,
    "cache_dir": None,
}


class MixedSource:
    """A folder of pairs or a table by its path, or any other pairs by nodes of their own.

    Args:
        path: a folder with `winner` and `loser` (or `w` and `l`), or what `TablePairs` takes.
        weight: share of the pairs drawn, in any unit. Given for none: by size; given for some: the
            others have 1.
        template: what prompts are made of, such as `a photo of {caption}`.
        labels: a folder of `sdpo_exp.relabel`, which ordered this source's pairs anew.
        max_samples: stop after so many pairs; null: all.
        columns: of a table, by what they hold; null: winner, loser, caption.
        split, config, revision, min_margin, cache_dir: of a table, as `TablePairs` has them.
        train, validation: pairs in place of `path`; without the second none of them are held out.
    """

    def __init__(
        self,
        path: str | None = None,
        weight: PositiveFloat | None = None,
        template: Template | None = None,
        labels: str | None = None,
        max_samples: PositiveInt | None = None,
        columns: dict[str, str | None] | None = None,
        split: str = "train",
        config: str | None = None,
        revision: str | None = None,
        min_margin: NonNegativeFloat | None = None,
        cache_dir: str | None = None,
        train: PairSource | None = None,
        validation: PairSource | None = None,
    ) -> None:
        self.path, self.weight, self.template, self.labels = path, weight, template, labels
        self.columns, self.max_samples = columns, max_samples
        self.split, self.config, self.revision = split, config, revision
        self.min_margin, self.cache_dir = min_margin, cache_dir
        self.train, self.validation = train, validation

    def open(self, holdout: HalfOpenUnit, part: Part) -> PairSource:
        """The pairs of a part.

        Raises:
            NoPairLeft: there are none in this part.
            UserError: they cannot be had.
        """
        if problem := next(self.problems(vars(self)), None):
            raise UserError(problem)
        pairs = self._opened(holdout, part)
        if self.labels is not None:
            pairs = RelabelledPairs(pairs, str(_labels(self.labels, part)))
        if is_endless(pairs):
            raise UserError("an endless stream cannot be mixed; use a table")
        return pairs

    def _opened(self, holdout: float, part: Part) -> PairSource:
        if self.path is None:
            pairs = self.validation if part == "validation" else self.train
            if pairs is None:
                raise NoPairLeft("no validation pairs are given")
            return pairs
        if is_folder_of_pairs(Path(self.path).expanduser()):
            return FolderPairs(self.path, holdout, part, self.max_samples)
        return TablePairs(
            self.path,
            Columns(**columns_of(self.columns)),
            split=self.split,
            config=self.config,
            revision=self.revision,
            min_margin=self.min_margin,
            holdout=holdout,
            part=part,
            max_samples=self.max_samples,
            cache_dir=self.cache_dir,
        )

    @classmethod
    def problems(cls, words: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with a source's words, as far as names tell; nothing is read."""
        path = words.get("path")
        others = [key for key in ("train", "validation") if words.get(key) is not None]
        if path is None and "train" not in others:
            yield "where is it? Give path=<a folder with winner/ and loser/, or a table>"
        elif path is not None and others:
            yield f"path and {others[0]}: give one of them"
        elif path is not None:
            yield from _problems_of_path(path, words)
        known = [one.name for one in fields(Columns)]
        for role in words.get("columns") or {}:
            if role not in known:
                yield f"columns.{role}: unknown key; there are: {', '.join(known)}"
        try:
            check_template(words.get("template"))
        except UserError as error:
            yield str(error)
        labels = words.get("labels")
        if labels is not None and not _labels(labels, "train").is_file():
            yield f"labels={labels}: has no train.parquet; python -m sdpo_exp.relabel makes it"


def _problems_of_path(path: str, words: Mapping[str, Any]) -> Iterator[str]:
    if is_folder_of_pairs(Path(path).expanduser()):
        given = [key for key, default in _OF_TABLES.items() if words.get(key, default) != default]
        if given:
            yield f"{', '.join(given)}: of tables alone; {path} is a folder of pairs"
        return
    split = words.get("split", "train")
    if absent := absent_table(path, words.get("revision"), words.get("config"), split):
        # What one source alone would be told to give is named otherwise here.
        yield absent.partition("; or give local files")[0]


def _labels(folder: str, part: Part) -> Path:
    return Path(folder) / f"{'validation' if part == 'validation' else 'train'}.parquet"
