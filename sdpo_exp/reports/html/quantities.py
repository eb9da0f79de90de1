"""What is told of every cell: means over its seeds, and whether they are good news."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sdpo_exp.evaluation.statistics import Estimate, estimate
from sdpo_exp.reports.html.cells import Cell
from sdpo_exp.reports.html.runs import Run

Verdict = Literal["good", "bad", "open", "lone", "plain", "none"]


@dataclass(frozen=True)
class Quantity:
    """A column of the table of cells.

    Attributes:
        key: of the run's numbers.
        title: its heading.
        better: 1 where more is better, -1 where less is, 0 where neither is good or bad in itself.
        neutral: the value that says "as before".
        form: how a value is written.
        told: what it is, in a sentence.
    """

    key: str
    title: str
    better: int
    neutral: float
    form: str
    told: str


@dataclass(frozen=True)
class Figure:
    """A quantity of a cell: mean over its n seeds; the interval is nan where n is 1.

    `verdict` is `good` or `bad` where the interval leaves out the neutral value (of a score's
    change, the interval over prompts must do so, too: `gather`), `open` where it does not, `lone`
    for a single seed, `plain` where there is no good or bad, `none` for no value.
    """

    quantity: Quantity
    n: int
    estimate: Estimate
    verdict: Verdict

    @property
    def text(self) -> str:
        """The mean."""
        return format(self.estimate.mean, self.quantity.form) if self.n else ""

    @property
    def interval(self) -> str:
        """`low to high`, or empty."""
        if not math.isfinite(self.estimate.low):
            return ""
        form = self.quantity.form
        return f"{self.estimate.low:{form}} to {self.estimate.high:{form}}"


_BASIC = (
    Quantity(
        "probe/winner_minus_ref", "winner drift", -1, 0.0, "+.4f",
        "The policy's denoising error on preferred images minus the reference's, held-out probe, "
        "last visit. Above 0: the preferred image got worse.",
    ),
    Quantity(
        "probe/margin", "margin", 0, 0.0, "+.4f",
        "Loser drift minus winner drift: how far the pairs were "
        "separated, whichever way. Held-out probe, last visit.",
    ),
    Quantity(
        "safeguard/lambda_mean", "lambda", 0, 1.0, ".3f",
        "The weight left to the loser's gradient, mean over the last fifth of the steps. "
        "1: nothing is scaled.",
    ),
    Quantity(
        "probe/implicit_accuracy", "implicit accuracy", 1, 0.5, ".3f",
        "Share of held-out pairs that the policy orders as labelled, last visit. "
        "0.5: no better than before.",
    ),
    Quantity(
        "perf/pairs_per_second", "pairs/s", 0, 0.0, ".2f",
        "Pairs trained per second, last fifth of the steps.",
    ),
)  # fmt: skip

# Of runs with `callbacks.audit`.
_AUDITED = (
    Quantity(
        "audit/step_rose", "winner rose", 0, 0.0, ".3f",
        "Share of the audited steps after which the winners of the step itself had a larger mean "
        "error than before it.",
    ),
    Quantity(
        "audit/winner_change", "winner change", 0, 0.0, "+.1e",
        "What a step changed of the mean error of its own winners, mean over the audited steps.",
    ),
    Quantity(
        "audit/predicted_winner_change", "winner change, predicted", 0, 0.0, "+.1e",
        "The same as the gradient of that error has it, times what the step added to the weights.",
    ),
)  # fmt: skip


def main_metric(runs: Sequence[Run], asked: str | None) -> str | None:
    """The score that stands for an image: the one asked for, or the first of most runs."""
    if asked is not None:
        return asked
    firsts = Counter(run.scores.metrics[0] for run in runs if run.scores.metrics)
    return firsts.most_common(1)[0][0] if firsts else None


def quantities_of(metric: str | None, there: Collection[str] = ()) -> list[Quantity]:
    """The columns; the first is the change of the main score, where there is one.

    Args:
        metric: the main score.
        there: numbers that any run has; what an option adds is shown where it is among them.
    """
    columns = [*_BASIC, *(quantity for quantity in _AUDITED if quantity.key in there)]
    if metric is None:
        return columns
    told = (
        f"Mean {metric} of the tuned model's images minus the base's, same prompts and noises. "
        "Above 0: better images."
    )
    change = Quantity(f"eval/{metric}_change", f"{metric} change", 1, 0.0, "+.4f", told)
    return [change, *columns]


def figure(cell: Cell, quantity: Quantity) -> Figure:
    """Mean and 95 % t interval over the runs of a cell that count."""
    values = [r.numbers[quantity.key] for r in cell.counted if quantity.key in r.numbers]
    if not values:
        nan = math.nan
        return Figure(quantity, 0, Estimate(nan, nan, nan, nan), "none")
    found = estimate(values)
    return Figure(quantity, len(values), found, _verdict(quantity, found, len(values)))


def figures(cells: Sequence[Cell], quantities: Sequence[Quantity]) -> Mapping[str, list[Figure]]:
    """Of every cell, by its key, in the quantities' order."""
    return {cell.key: [figure(cell, quantity) for quantity in quantities] for cell in cells}


def _verdict(quantity: Quantity, found: Estimate, n: int) -> Verdict:
    if not quantity.better:
        return "plain"
    if n == 1:
        return "lone"
    if found.low <= quantity.neutral <= found.high:
        return "open"
    return "good" if (found.mean - quantity.neutral) * quantity.better > 0 else "bad"
