"""Spans of time as people write them."""

from __future__ import annotations

import pytest

from sdpo_exp.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:12:00:00", 43200),
        ("1:00:00:01", 86401),
        ("2h", 7200),
        ("30min", 1800),
        ("30m", 1800),
        ("1h30min", 5400),
        ("1d 12h", 129600),
        ("0.5s", 0.5),
        (" 90 s ", 90),
    ],
)
def test_a_time_is_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["30", "2x", "", "h", "-1h", "12:00:00", "1h-30min", "2 hours"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time"):
        seconds_of(text)


@pytest.mark.parametrize("text", ["0s", "00:00:00:00"])
def test_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than no time"):
        seconds_of(text)
