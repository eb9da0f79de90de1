"""Spans of time as people write them: `2h`, `30min`, `1h30min`, `00:12:00:00`."""

from __future__ import annotations

import re

_SECONDS = {"d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[dhms])\s*")
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d):(\d\d)")


def seconds_of(text: str) -> float:
    """The seconds of `DD:HH:MM:SS`, or of numbers with units: d, h, min (or m), s.

    Raises:
        ValueError: it is neither, or no time at all.
    """
    if clock := _CLOCK.fullmatch(text.strip()):
        days, hours, minutes, rest = map(int, clock.groups())
        seconds: float = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    else:
        parts = _PART.findall(text.strip())
        if not parts or _PART.sub("", text.strip()):
            raise ValueError("must be a time: 2h, 30min, 1h30min, or 00:12:00:00 with days first")
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds <= 0:
        raise ValueError("must be more than no time")
    return seconds
