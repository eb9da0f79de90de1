"""Pairs in a new order: those of a source, with winners from a file of `sdpo_exp.relabel`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sdpo_exp.bounds import NonNegativeFloat
from sdpo_exp.data.keyed import is_endless
from sdpo_exp.data.rows import NamesRows
from sdpo_exp.data.sampler import OrdersPairs
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.protocols import PairSource
from sdpo_exp.types import ImagePair, PairRow
from sdpo_exp.whole_files import write_parquet

_ABOUT = b"sdpo_exp.relabel"
_COLUMNS = {"index": pa.int64(), "flipped": pa.bool_(), "margin": pa.float64()}
MIXTURE = (
    "the shares of a mixture would be lost; relabel its sources one by one, and give their labels: "
    "data.train.sources.<name>.labels=<folder of relabel>"
)
_ADVICE = "python -m sdpo_exp.relabel makes such a file"


@dataclass(frozen=True)
class Labels:
    """Winners of K of a source's pairs.

    Attributes:
        index: (K,) the pair's place in the source, ascending.
        flipped: (K,) whether the source's loser wins.
        margin: (K,) by how much, above 0.
        source: fingerprint of the source.
    """

    index: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    margin: NDArray[np.float64]
    source: str


class RelabelledPairs:
    """The pairs of `source` that `labels` has a winner for, in the source's order.

    A pair is what the source gives, with its two images exchanged where the labels say so; the
    geometry of finished pixels stays what it was.

    Args:
        source: the pairs that were scored.
        labels: `train.parquet` or `validation.parquet` of a folder of `sdpo_exp.relabel`.
        min_margin: leave out pairs whose winner is better by less, in the rule's own unit.

    Raises:
        UserError: no such file, labels of other pairs, an endless stream, or no pair left.
    """

    def __init__(self, source: PairSource, labels: str, min_margin: NonNegativeFloat = 0.0) -> None:
        if is_endless(source):
            raise UserError(f"{labels}: labels belong to numbered pairs; a stream has none")
        if isinstance(source, OrdersPairs):
            raise UserError(f"{labels}: {MIXTURE}")
        self.source, self.path, self.min_margin = source, labels, min_margin
        found = read_labels(Path(labels))
        _refuse_others(found, source, labels)
        kept = found.margin >= min_margin
        self.index, self.flipped = found.index[kept], found.flipped[kept]
        if not len(self.index):
            raise UserError(f"{labels}: no pair left of {len(kept):,} at min_margin={min_margin:g}")

    @classmethod
    def absent(cls, labels: str, **_: Any) -> str | None:
        """Why the labels cannot be had, in one sentence, or None; loads nothing."""
        return None if Path(labels).is_file() else f"{labels}: no such file; {_ADVICE}"

    @property
    def description(self) -> str:
        """How many pairs there are, and how many changed sides."""
        origin = getattr(self.source, "description", type(self.source).__name__)
        return f"{origin}; relabelled: {len(self):,} pairs, {int(self.flipped.sum()):,} flipped"

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> PairRow | ImagePair:
        """Pair `index`, of the kind that the source gives.

        Raises:
            BadRow: the source cannot read it.
            IndexError: outside 0..len-1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        pair = self.source[int(self.index[index])]
        if not self.flipped[index]:
            return pair
        if isinstance(pair, ImagePair):
            return pair._replace(winner=pair.loser, loser=pair.winner)
        return pair._replace(winner=pair.loser, loser=pair.winner)

    def row_name(self, index: int) -> str:
        """The source's own name for the pair."""
        return name_of(self.source, int(self.index[index]))

    def fingerprint(self) -> str:
        """sha256 over the source's fingerprint, and which pairs are taken in which order.

        Margins count by what they leave out. Computed once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"relabelled {self.source.fingerprint()}".encode())
        digest.update(self.index.tobytes() + self.flipped.tobytes())
        return digest.hexdigest()


def name_of(source: PairSource, index: int) -> str:
    """What messages call pair `index`."""
    return source.row_name(index) if isinstance(source, NamesRows) else f"row {index}"


def write_labels(
    path: Path, labels: Labels, scores: Mapping[str, NDArray[np.floating]], about: Any
) -> None:
    """Write labels, complete or not at all.

    Args:
        path: of the parquet file.
        labels: K winners.
        scores: by metric, (K, 2): of the new winner and the new loser.
        about: where the labels come from; kept in the file as json.
    """
    columns = {name: pa.array(getattr(labels, name), kind) for name, kind in _COLUMNS.items()}
    for metric, values in scores.items():
        for side, role in enumerate(("winner", "loser")):
            columns[f"{role}_{metric}"] = pa.array(values[:, side], pa.float32())
    text = json.dumps({"source": labels.source, "about": about})
    write_parquet(path, pa.table(columns).replace_schema_metadata({_ABOUT: text}))


def read_labels(path: Path) -> Labels:
    """Read what `write_labels` wrote.

    Raises:
        UserError: there is no such file, or it is something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {_ADVICE}")
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[_ABOUT])
        columns = {name: table[name].cast(kind).to_numpy() for name, kind in _COLUMNS.items()}
        return Labels(**columns, source=str(about["source"]))
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"{path}: not labels of pairs ({reason}); {_ADVICE}") from None


def _refuse_others(labels: Labels, source: PairSource, path: str) -> None:
    mine = source.fingerprint()
    if labels.source != mine:
        raise UserError(
            f"{path}: labels of other pairs than its source now gives (fingerprint "
            f"{labels.source[:12]} there, {mine[:12]} here). Give the source the settings and data "
            "that were relabelled, or relabel what it gives now"
        )
