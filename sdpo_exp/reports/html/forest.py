"""A line of a forest plot, as SVG that needs no script."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sdpo_exp.evaluation.statistics import Interval

_WIDTH, _HEIGHT, _EDGE = 180, 22, 8
_ALPHA = 0.05


def forest_of(found: Interval, p_holm: float, ends: Sequence[float]) -> str:
    """The value and its interval on the scale of all `ends`; filled where Holm's p is small."""
    low, high = min(0.0, *ends), max(0.0, *ends)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return _EDGE + (value - low) / span * (_WIDTH - 2 * _EDGE)

    middle = _HEIGHT / 2
    kind = ("up" if found.value > 0 else "down") if p_holm < _ALPHA else "open"
    parts = [f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{_HEIGHT}"/>']
    if math.isfinite(found.low) and math.isfinite(found.high):
        ends_of_line = f'x1="{x(found.low):.1f}" x2="{x(found.high):.1f}"'
        parts.append(f'<line class="span" {ends_of_line} y1="{middle}" y2="{middle}"/>')
    parts.append(f'<circle cx="{x(found.value):.1f}" cy="{middle}" r="3.5"/>')
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg class="forest {kind}" {size} aria-hidden="true">{"".join(parts)}</svg>'
