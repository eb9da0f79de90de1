"""What a dashboard of runs shows, as data: who draws it, and what has to be logged, follows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "bars", "histogram", "images", "table"]


@dataclass(frozen=True)
class Panel:
    """One picture.

    Args:
        title: above it.
        kind: `lines` over optimiser steps, `bars` of last values, or what the key itself is.
        keys: what it shows.
        by: the key of the config whose values become lines of their own; None: as the dashboard's
            runs are grouped.
        pattern: whether `keys` are regular expressions.
        optional: whether only some runs log it.
    """

    title: str
    kind: Kind
    keys: tuple[str, ...]
    by: str | None = None
    pattern: bool = False
    optional: bool = False

    def missing(self, there: Collection[str]) -> list[str]:
        """Its keys that are not among those that a run has logged."""
        return [key for key in self.keys if not any(self._is(key, name) for name in there)]

    def _is(self, key: str, name: str) -> bool:
        return re.fullmatch(key, name) is not None if self.pattern else key == name


@dataclass(frozen=True)
class Section:
    """Panels of one theme."""

    name: str
    panels: tuple[Panel, ...]


GROUP_BY = ("cell.objective", "cell.safeguard")
_SAFEGUARD = "cell.safeguard"


def sections(metrics: Sequence[str] = ("reward",)) -> tuple[Section, ...]:
    """The dashboard.

    Args:
        metrics: whose `eval/<metric>` are shown.
    """
    return (
        Section(
            "Winner drift and margin",
            (
                Panel("Winner drift", "lines", ("pair/winner_minus_ref",), _SAFEGUARD),
                Panel("Winner drift, probe", "lines", ("probe/winner_minus_ref",), _SAFEGUARD),
                Panel("Loser drift, probe", "lines", ("probe/loser_minus_ref",)),
                Panel("Margin", "lines", ("pair/margin",)),
                Panel("Margin, probe", "lines", ("probe/margin",)),
                Panel("Implicit accuracy, probe", "lines", ("probe/implicit_accuracy",)),
            ),
        ),
        Section(
            "Safeguard",
            (
                Panel("Lambda", "lines", ("safeguard/lambda_mean",)),
                Panel("Would-be lambda", "lines", ("safeguard/lambda_would_be",)),
                Panel("Share of pairs held back", "lines", ("safeguard/lambda_active",)),
                Panel("Cosine of the residuals", "lines", ("safeguard/cosine",)),
                Panel("Lambda, one run", "histogram", ("safeguard/lambda_histogram",)),
                Panel("Would-be lambda, one run", "histogram", ("safeguard/would_be_histogram",)),
            ),
        ),
        Section(
            "Probe by timestep",
            (
                Panel("Winner drift", "lines", ("probe/t[^/]+/winner_minus_ref",), pattern=True),
                Panel("Margin", "lines", ("probe/t[^/]+/margin",), pattern=True),
                Panel("All visits", "table", ("probe/by_time",)),
            ),
        ),
        Section("Audit", tuple(_audit())),
        Section("Images and scores", tuple(_evaluation(metrics))),
        Section(
            "Run",
            (
                Panel("Training loss", "lines", ("train/loss",)),
                Panel("Learning rate", "lines", ("train/lr",)),
                Panel("Pairs per second", "lines", ("perf/pairs_per_second",)),
                Panel("Seconds per step", "lines", ("perf/step_seconds",)),
            ),
        ),
    )


def _audit() -> Iterable[Panel]:
    """Of runs with `callbacks.audit`."""
    shown = (
        ("Share of steps at which the winner rose", "step_rose_so_far"),
        ("Share of winners that rose", "winner_rose"),
        ("Change of the winner's error", "winner_change"),
        ("Change of the winner's error, predicted", "predicted_winner_change"),
        ("Change of the loser's error", "loser_change"),
        ("Change of the loser's error, predicted", "predicted_loser_change"),
    )
    for title, name in shown:
        yield Panel(title, "lines", (f"audit/{name}",), optional=True)
    by_time = ("audit/t[^/]+/winner_change",)
    yield Panel("By noise level", "lines", by_time, pattern=True, optional=True)


def _evaluation(metrics: Sequence[str]) -> Iterable[Panel]:
    for metric in metrics:
        yield Panel(f"{metric}, tuned", "bars", (f"eval/{metric}",))
        yield Panel(f"{metric}, change from the base", "bars", (f"eval/{metric}_change",))
        yield Panel(f"{metric} along the training", "lines", (f"eval/{metric}",))
    yield Panel("Base and tuned", "images", ("eval/before_after",))
    yield Panel("Along the training", "images", ("eval/images",), optional=True)
    yield Panel("Prompt by prompt", "table", ("eval/table",))


def missing_keys(runs: Sequence[Collection[str]], shown: Iterable[Section]) -> list[str]:
    """What the panels would lack, in words; optional panels lack nothing.

    Args:
        runs: the keys that each run has logged.
        shown: the dashboard.
    """
    told = []
    for section in shown:
        for panel in section.panels:
            lacks = [panel.missing(keys) for keys in runs]
            for key in panel.keys if not panel.optional else ():
                count = sum(key in lack for lack in lacks)
                if count:
                    told.append(
                        f"{section.name}: {panel.title}: {count} of {len(runs)} runs lack {key}"
                    )
    return told
