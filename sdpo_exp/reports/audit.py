"""What `callbacks.audit` found over a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdpo_exp.reports.metrics_file import Series

PREFIX = "audit/"
_MEANS = (
    "step_rose",
    "winner_rose",
    "winner_rise",
    "winner_change",
    "predicted_winner_change",
    "loser_change",
    "predicted_loser_change",
)


def audit_of(metrics: Mapping[str, Series]) -> dict[str, Any] | None:
    """How many steps were audited, in how many the winners' mean error rose, and should have.

    `predicted` counts those where it should have to first order; `means` are over the audited
    steps, by log key. None where no step was audited.
    """
    rose, predicted = (metrics.get(PREFIX + n) for n in ("step_rose", "predicted_winner_change"))
    if rose is None or predicted is None or not len(rose.steps):
        return None
    return {
        "steps": len(rose.steps),
        "rose": int(rose.values.sum()),
        "predicted": int((predicted.values > 0).sum()),
        "means": {
            PREFIX + name: float(metrics[PREFIX + name].values.mean())
            for name in _MEANS
            if PREFIX + name in metrics
        },
    }


def audit_lines(audit: Mapping[str, Any] | None) -> list[str]:
    """In words, after an empty line; nothing where no step was audited."""
    if audit is None:
        return []
    steps, rose, means = audit["steps"], audit["rose"], audit["means"]
    changes = [
        f"{role}s {means[f'audit/{role}_change']:+.1e} "
        f"(predicted {means[f'audit/predicted_{role}_change']:+.1e})"
        for role in ("winner", "loser")
    ]
    return [
        "",
        f"audit: the winners' mean error rose in {rose / steps:.0%} of the audited steps "
        f"({rose} of {steps}); to first order it should have in {audit['predicted']}",
        f"  mean change of the errors by a step: {', '.join(changes)}",
    ]
