"""From scores on disk to winners, and the account of what became of every pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sdpo_exp.cli.relabel.shards import Scores
from sdpo_exp.data.preference_rules import PreferenceRule, Values, Verdicts, differences, scale_of
from sdpo_exp.data.relabelled import Labels, name_of, write_labels
from sdpo_exp.errors import UserError
from sdpo_exp.protocols import PairSource

_NAMED = 3


class Agreement(NamedTuple):
    """Pairs whose order in the source is confirmed, reversed, or left open by equal scores."""

    agree: int
    disagree: int
    equal: int

    @property
    def share(self) -> float | None:
        """Confirmed ones among those with an order; None without any."""
        ordered = self.agree + self.disagree
        return self.agree / ordered if ordered else None

    def __str__(self) -> str:
        return f"{self.share:.1%}" if self.share is not None else "-"

    def record(self) -> dict[str, Any]:
        """As `relabel.json` has it."""
        return {**self._asdict(), "share": self.share}


@dataclass(frozen=True)
class Account:
    """What became of the pairs of one part.

    Attributes:
        counts: `pairs`, `bad`, `ties`, `below min_margin`, `kept`, and `flipped` among the kept.
        bad_rows: names by kind of reason.
        rule: agreement of the kept pairs' winners with the source's order.
        metrics: the same of every metric, over all pairs that could be read.
        scales: by metric, the standard deviation of its score differences.
    """

    counts: Mapping[str, int]
    bad_rows: Mapping[str, list[str]]
    rule: Agreement
    metrics: Mapping[str, Agreement]
    scales: Mapping[str, float]

    def record(self) -> dict[str, Any]:
        """As `relabel.json` has it."""
        return {
            "counts": dict(self.counts),
            "bad_rows": {
                kind: {"count": len(names), "first": names[:_NAMED]}
                for kind, names in self.bad_rows.items()
            },
            "agreement": {
                "rule": self.rule.record(),
                "metrics": {name: found.record() for name, found in self.metrics.items()},
            },
            "scales": dict(self.scales),
        }

    def lines(self) -> list[str]:
        """For the terminal."""
        said = [", ".join(f"{count:,} {what}" for what, count in self.counts.items())]
        for kind, names in self.bad_rows.items():
            more = ", ..." if len(names) > _NAMED else ""
            said.append(f"bad: {len(names):,} {kind}: {', '.join(names[:_NAMED])}{more}")
        shares = [f"{name} {found}" for name, found in {"rule": self.rule, **self.metrics}.items()]
        return [*said, f"agreement with the source's order: {', '.join(shares)}"]


def write_winners(
    path: Path,
    source: PairSource,
    fingerprint: str,
    scores: Mapping[str, Scores],
    rule: PreferenceRule,
) -> Account:
    """Judge all pairs of a part and write those with a winner.

    Args:
        path: of the labels.
        source: for the names of its rows.
        fingerprint: of the source.
        scores: by metric.
        rule: who wins.

    Raises:
        UserError: not one pair has a winner.
    """
    bad = _bad_rows(scores, source)
    usable = np.setdiff1d(np.arange(len(source)), np.fromiter(bad, np.int64, len(bad)))
    readable = {name: found.values[usable] for name, found in scores.items()}
    apart = differences(readable)
    verdicts = rule.judge(readable)
    account = _account(len(source), bad, apart, verdicts)
    if not account.counts["kept"]:
        raise UserError(f"{path.stem}: no pair has a winner: {'; '.join(account.lines()[:-1])}")
    kept = verdicts.kept
    flipped = verdicts.lead[kept] < 0
    labels = Labels(usable[kept], flipped, np.abs(verdicts.lead[kept]), fingerprint)
    ordered = {name: _in_order(values[kept], flipped) for name, values in readable.items()}
    about = {"rule": asdict(rule), "decides": rule.voices(list(scores))}
    write_labels(path, labels, ordered, about)
    return account


def _bad_rows(scores: Mapping[str, Scores], source: PairSource) -> dict[int, tuple[str, str]]:
    """Name and reason of each pair that some metric has no score of, in the source's order."""
    found = {index: bad for values in scores.values() for index, bad in values.bad.items()}
    return {
        index: (found[index].row or name_of(source, index), found[index].reason)
        for index in sorted(found)
    }


def _account(
    pairs: int,
    bad: Mapping[int, tuple[str, str]],
    apart: Mapping[str, Values],
    verdicts: Verdicts,
) -> Account:
    kept = verdicts.lead[verdicts.kept]
    counts = {
        "pairs": pairs,
        "bad": len(bad),
        "ties": int(verdicts.ties.sum()),
        "below min_margin": int(verdicts.narrow.sum()),
        "kept": len(kept),
        "flipped": int((kept < 0).sum()),
    }
    kinds: dict[str, list[str]] = {}
    for name, reason in bad.values():
        kinds.setdefault(reason.partition(" (")[0], []).append(name)
    metrics = {name: _agreement(d) for name, d in apart.items()}
    scales = {name: scale_of(d) for name, d in apart.items()}
    return Account(counts, kinds, _agreement(kept), metrics, scales)


def _agreement(lead: Values) -> Agreement:
    return Agreement(int((lead > 0).sum()), int((lead < 0).sum()), int((lead == 0).sum()))


def _in_order(values: NDArray[np.float32], flipped: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(K, 2), the new winner's score first."""
    return np.where(flipped[:, None], values[:, ::-1], values)
