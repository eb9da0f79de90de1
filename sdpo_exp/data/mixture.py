"""Pairs of several sources in one stream, each with its share and its prompt template."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sdpo_exp.bounds import HalfOpenUnit
from sdpo_exp.data.columns import Part
from sdpo_exp.data.mixed_source import MixedSource
from sdpo_exp.data.relabelled import name_of
from sdpo_exp.data.shares import MixedOrder, interleave, split, whole_weights
from sdpo_exp.data.templates import template_mark, with_template
from sdpo_exp.errors import BadRow, NoPairLeft, UserError
from sdpo_exp.protocols import PairSource
from sdpo_exp.types import ImagePair, PairRow

_log = logging.getLogger(__name__)
_NONE = "data.train.sources: none; give data.train.sources.<name>.path=<folder or table> for each"


class MixedPairs:
    """Rows of all sources, interleaved by their weights; the first n are a mixture of n.

    A training run draws them by `order`, each source in epochs of its own. Where a source's rows
    end, the list of rows goes on with those of the others.

    Args:
        sources: by name.
        holdout, part: split by a hash of the caption, in every source alike.

    Raises:
        UserError: a source cannot be opened, told by its name, or no pair is left.
    """

    def __init__(
        self,
        sources: dict[str, MixedSource],
        holdout: HalfOpenUnit = 0.0,
        part: Part = "all",
    ) -> None:
        if not sources:
            raise UserError(_NONE)
        self.part = part
        self.words = {name: sources[name] for name in sorted(sources)}
        self.sources = _opened(self.words, holdout, part)
        given = [self.words[name].weight for name in self.sources]
        self.weights = whole_weights(
            [1 if weight is None else weight for weight in given]
            if any(weight is not None for weight in given)
            else self.sizes
        )
        self._source_of = interleave(self.sizes, self.weights)
        self._rows = [np.flatnonzero(self._source_of == i) for i in range(len(self.sources))]
        self._names = list(self.sources)

    @classmethod
    def absent(cls, sources: Mapping[str, Mapping[str, Any]], **_: Any) -> str | None:
        """Why the data cannot be had, a line per reason, or None; loads nothing."""
        lines = [
            _of_source(name, problem)
            for name, words in sources.items()
            for problem in MixedSource.problems(words)
        ]
        return ("\n".join(lines) or None) if sources else _NONE

    @property
    def sizes(self) -> list[int]:
        """Pairs of every source."""
        return [len(source) for source in self.sources.values()]

    @property
    def shares(self) -> dict[str, float]:
        """Of the pairs drawn, by source; they sum to 1."""
        total = sum(self.weights)
        return {name: w / total for name, w in zip(self.sources, self.weights, strict=True)}

    @property
    def description(self) -> str:
        """How many pairs there are of each source, and their shares."""
        return f"mixture: {'; '.join(self._told().values())}"

    def told_with(self, draws: int) -> str:
        """The same, with how often a run of so many draws goes through each source."""
        epochs = [n / size for n, size in zip(split(draws, self.weights), self.sizes, strict=True)]
        lines = [
            f"{told}, {n:.3g} epochs" for told, n in zip(self._told().values(), epochs, strict=True)
        ]
        return f"mixture of {draws:,} draws: {'; '.join(lines)}"

    def _told(self) -> dict[str, str]:
        return {
            name: f"{name} {100 * share:.3g} % ({len(self.sources[name]):,} pairs)"
            for name, share in self.shares.items()
        }

    def __len__(self) -> int:
        return len(self._source_of)

    def __getitem__(self, index: int) -> PairRow | ImagePair:
        """Pair `index`, of the kind that its source gives.

        Raises:
            BadRow: its source cannot read it.
            IndexError: outside 0..len-1.
        """
        name, row = self._place(index)
        try:
            pair = self.sources[name][row]
        except BadRow as error:
            raise BadRow(_of_source(name, error.row), error.reason) from None
        return with_template(pair, self.words[name].template)

    def row_name(self, index: int) -> str:
        """`source <name>: ` and the source's own name for the pair."""
        name, row = self._place(index)
        return _of_source(name, name_of(self.sources[name], row))

    def order(self, seed: int) -> MixedOrder:
        """The training stream."""
        return MixedOrder(seed, dict(zip(self.sources, self._rows, strict=True)), self.weights)

    def kin(self, index: int) -> Sequence[int]:
        """Rows of the same source, ascending."""
        rows: Any = self._rows[int(self._source_of[index])]
        return rows

    def fingerprint(self) -> str:
        """sha256 over names, templates, weights and the sources' fingerprints."""
        digest = hashlib.sha256(b"mixture")
        for (name, source), weight in zip(self.sources.items(), self.weights, strict=True):
            digest.update(template_mark(self.words[name].template))
            digest.update(f"{name}\0{weight}\0{source.fingerprint()}\0".encode())
        return digest.hexdigest()

    def _place(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        source = int(self._source_of[index])
        return self._names[source], int(np.searchsorted(self._rows[source], index))


def _opened(words: Mapping[str, MixedSource], holdout: float, part: Part) -> dict[str, PairSource]:
    """All sources; of held-out pairs those that have any."""
    found: dict[str, PairSource] = {}
    without: list[str] = []
    for name, source in words.items():
        try:
            found[name] = source.open(holdout, part)
        except NoPairLeft as error:
            without.append(_of_source(name, str(error)))
        except UserError as error:
            raise UserError(_of_source(name, str(error))) from None
    if without and (part != "validation" or not found):
        raise NoPairLeft("; ".join(without))
    for line in without:
        _log.info("held out: nothing of %s", line)
    return found


def _of_source(name: str, problem: str) -> str:
    return f"source {name}: {problem}"
