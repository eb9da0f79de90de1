"""A line in as many columns as there are: what matters least goes first."""

from __future__ import annotations

import pytest

from sdpo_exp.terminal.fitting import Piece, fit

PIECES = [
    Piece("step 12/240  5%", "12/240 5%", 9),
    Piece("loss 0.6931", "", 1),
    Piece("winner drift +0.0012", "winner drift +0.0012", 8),
    Piece("3 min left", "3m left", 5),
]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (62, "step 12/240  5%  loss 0.6931  winner drift +0.0012  3 min left"),
        (61, "step 12/240  5%  winner drift +0.0012  3 min left"),
        (46, "step 12/240  5%  winner drift +0.0012  3m left"),
        (40, "12/240 5%  winner drift +0.0012  3m left"),
        (39, "12/240 5% winner drift +0.0012 3m left"),
        (37, "12/240 5% winner drift +0.0012"),
        (29, "12/240 5%"),
    ],
)
def test_a_line_fits(width: int, line: str) -> None:
    assert fit(PIECES, width) == line
    assert len(line) <= width
