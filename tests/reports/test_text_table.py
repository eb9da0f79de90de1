"""Tables for terminals of any width."""

from __future__ import annotations

from sdpo_exp.reports.text_table import shortened, text_table

ROWS = [
    {"cell": "objective=dpo,seed=0", "low": "1", "high": "20", "folder": "outputs/run/a"},
    {"cell": "seed=1", "low": "-0.5", "high": "3", "folder": "outputs/run/b"},
]
WORDS = ("cell", "folder")


def test_columns_stand_under_their_names() -> None:
    assert text_table(ROWS, left=WORDS).lines == [
        "cell                   low  high  folder",
        "objective=dpo,seed=0     1    20  outputs/run/a",
        "seed=1                -0.5     3  outputs/run/b",
    ]


def test_a_long_column_goes_below_its_row_first() -> None:
    found = text_table(ROWS, width=40, left=WORDS, spare=("low",), below="folder")
    assert found.left_out == []
    assert found.lines[:3] == [
        "cell                   low  high",
        "objective=dpo,seed=0     1    20",
        "    outputs/run/a",
    ]


def test_columns_of_one_group_go_together_and_then_words_are_cut() -> None:
    found = text_table(
        ROWS, width=18, left=WORDS, spare=(("low", "high"),), below="folder", cut="cell"
    )
    assert found.left_out == ["low", "high"]
    assert found.lines == [
        "cell",
        "objectiv..o,seed=0",
        "    outputs/run/a",
        "seed=1",
        "    outputs/run/b",
    ]


def test_the_middle_is_left_out() -> None:
    assert shortened("outputs/run", 11) == "outputs/run"
    assert shortened("outputs/run", 8) == "out..run"
