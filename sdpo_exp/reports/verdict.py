"""What a run did to winner, reward and pairs, in words that follow from 95 % intervals alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sdpo_exp.evaluation.statistics import Interval, t_interval, wilson_interval

# A drift of less than this share of the reference's own winner error changes nothing one can see.
NEGLIGIBLE = 0.01
Outcome = Literal["good", "bad", "open"]


class Finding(NamedTuple):
    """One thing that happened.

    Attributes:
        subject: `winner`, a score such as `reward`, or `pairs`.
        word: what happened to it.
        outcome: whether that is what the training is for.
        quantity: what the interval is of.
        interval: of the quantity; its ends are nan where there is none.
        also: a further quantity in words; empty: none.
    """

    subject: str
    word: str
    outcome: Outcome
    quantity: str
    interval: Interval
    also: str = ""

    def __str__(self) -> str:
        name = "" if self.quantity == self.subject else f"{self.quantity} "
        more = f", {self.also}" if self.also else ""
        return f"{self.subject} {self.word}: {name}{signed(self.interval)}{more}"


def verdict(summary: Mapping[str, Any]) -> list[Finding]:
    """Findings of a `summary.json`: winner, main score, pairs; what was not measured is left out.

    - winner: `kept` where the whole interval of its drift lies within 1 % of the reference's
      winner error around 0; else `worse` or `better` where it does not hold 0.
    - main score, the evaluation's first: `up` or `down` where its change's interval does not hold
      0, `unchanged` where every image scores the same.
    - pairs: `separated` or `turned round` where the margin's interval does not hold 0.

    Everything else is `not decided`.
    """
    found = [_winner(summary), _score(summary), _pairs(summary)]
    return [finding for finding in found if finding is not None]


def main_result(summary: Mapping[str, Any]) -> str:
    """The main score's change in a few words, or the winner drift where nothing was scored."""
    for finding in (_score(summary), _winner(summary)):
        if finding is not None:
            name = "winner drift" if finding.subject == "winner" else finding.quantity
            return f"{name} {signed(finding.interval)}"
    return ""


def verdict_content(findings: Sequence[Finding]) -> dict[str, Any]:
    """For `summary.json`: the sentence, and its parts with what is no number as None."""
    parts = [
        {
            **{key: getattr(f, key) for key in ("subject", "word", "outcome", "quantity")},
            **{k: v if math.isfinite(v) else None for k, v in f.interval._asdict().items()},
        }
        for f in findings
    ]
    return {"text": "; ".join(map(str, findings)), "findings": parts}


def signed(found: Interval) -> str:
    """`-0.0002 [-0.0006, +0.0002]`, with a digit of what the interval is wide at least."""
    half = (found.high - found.low) / 2
    if not half > 0:
        return f"{found.value:+.4f} [no interval]"
    places = min(max(-math.floor(math.log10(half)), 3), 6)
    return f"{found.value:+.{places}f} [{found.low:+.{places}f}, {found.high:+.{places}f}]"


def _winner(summary: Mapping[str, Any]) -> Finding | None:
    drift = _last(summary, "winner_minus_ref")
    if drift is None:
        return None
    found = _interval(summary, "winner_minus_ref", drift)
    error = _last(summary, "winner_error")
    small = NEGLIGIBLE * (error - drift) if error is not None else 0.0
    if -small <= found.low and found.high <= small:
        return Finding("winner", "kept", "good", "drift", found)
    word, outcome = _side(found, ("worse", "bad"), ("better", "good"))
    return Finding("winner", word, outcome, "drift", found)


def _score(summary: Mapping[str, Any]) -> Finding | None:
    scores = (summary.get("evaluation") or {}).get("scores") or {}
    for name, score in scores.items():
        change, error = (score["change"].get(key) for key in ("mean", "standard_error"))
        if change is None:
            return None
        if change == 0 == error:
            return Finding(name, "unchanged", "open", name, Interval(0.0, math.nan, math.nan))
        ends = [score["change"].get(end) if error else None for end in ("low", "high")]
        low, high = (math.nan if end is None else float(end) for end in ends)
        found = Interval(change, low, high)
        word, outcome = _side(found, ("up", "good"), ("down", "bad"))
        return Finding(name, word, outcome, name, found)
    return None


def _pairs(summary: Mapping[str, Any]) -> Finding | None:
    margin = _last(summary, "margin")
    if margin is None:
        return None
    found = _interval(summary, "margin", margin)
    word, outcome = _side(found, ("separated", "good"), ("turned round", "bad"))
    return Finding("pairs", word, outcome, "margin", found, _accuracy(summary))


def _accuracy(summary: Mapping[str, Any]) -> str:
    """Wilson's interval, which is one also where all pairs agree."""
    rate, pairs = _last(summary, "implicit_accuracy"), _last(summary, "pairs")
    if rate is None or not pairs or not 0 <= rate <= 1:
        return ""
    found = wilson_interval(rate, pairs)
    return f"accuracy {rate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _side(
    found: Interval, above: tuple[str, Outcome], below: tuple[str, Outcome]
) -> tuple[str, Outcome]:
    if found.low > 0:
        return above
    return below if found.high < 0 else ("not decided", "open")


def _interval(summary: Mapping[str, Any], name: str, value: float) -> Interval:
    error, pairs = _last(summary, f"{name}_se"), _last(summary, "pairs")
    return t_interval(value, error or math.nan, pairs or math.inf)


def _last(summary: Mapping[str, Any], name: str) -> float | None:
    """Of the probe's last visit, which is held against the reference itself."""
    visit = (summary.get("probe") or {}).get(f"probe/{name}")
    return None if visit is None else visit["last"]
