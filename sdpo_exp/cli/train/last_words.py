"""What a finished run says on the terminal: its tables, and the verdict in colour."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from sdpo_exp.reports.summary import format_summary
from sdpo_exp.reports.verdict import Finding, Outcome, verdict
from sdpo_exp.terminal.screen import Colour, columns, has_colours, painted

_log = logging.getLogger(__name__)
_COLOURS: Mapping[Outcome, Colour] = {"good": "green", "bad": "red", "open": "yellow"}


def tell_end(summary: dict[str, Any]) -> None:
    """Log the tables and the verdict of a `summary.json`'s content."""
    _log.info("\n%s", format_summary(summary, columns()))
    findings = verdict(summary)
    if not findings:
        return
    # Colours are for the terminal alone, not for the log's file.
    say = print if has_colours() else _log.info
    say("\n" + laid_out(findings, columns()))


def laid_out(findings: Sequence[Finding], width: int | None) -> str:
    """One line where it fits, else the findings below each other; painted where there are colours.

    Args:
        findings: at least one.
        width: of the terminal in columns; None: any number.
    """
    plain = f"verdict: {'; '.join(map(str, findings))}"
    if width is None or len(plain) <= width:
        return f"verdict: {'; '.join(_painted(str(f), f) for f in findings)}"
    lines = [_painted(line, f) for f in findings for line in wrap(str(f), width)]
    return "\n".join(["verdict", *lines])


def _painted(text: str, finding: Finding) -> str:
    return painted(text, _COLOURS[finding.outcome])
