"""Speeds and times left, by a clock that the test turns."""

from __future__ import annotations

import pytest

from sdpo_exp.terminal.pace import Pace, cell_title, cells_left, span


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (0.4, "0 s", "0s"),
        (119, "119 s", "119s"),
        (120, "2 min", "2m"),
        (754, "13 min", "13m"),
        (7200, "2.0 h", "2.0h"),
        (12 * 3600, "12 h", "12h"),
        (5 * 86400, "5.0 days", "5.0d"),
    ],
)
def test_lengths_of_time(seconds: float, long: str, short: str) -> None:
    assert span(seconds) == long
    assert span(seconds, short=True) == short


def test_speed_is_of_the_last_half_minute_and_time_left_of_the_whole() -> None:
    now = 0.0
    pace = Pace(100, done=20, clock=lambda: now)
    assert (pace.speed, pace.left) == (None, None)
    for second in range(1, 41):  # one a second, after ten seconds of nothing
        now = 10.0 + second
        pace.advance(1)
    assert pace.done == 60
    assert pace.speed == pytest.approx(1.0, rel=0.05)
    assert pace.left == pytest.approx(40 * 50 / 40)  # the slow start counts


def test_a_sweep_knows_its_time_only_by_cells_that_ended() -> None:
    assert cell_title(2, 18, cells_left([], 16)) == "cell 3/18"
    assert cell_title(2, 18, cells_left([40.0, 50.0], 16)) == "cell 3/18, 12 min left"
