"""`safeguard=true|false` in every spelling, and nothing else, is mapped to on|off."""

from __future__ import annotations

import pytest

from sdpo_exp.config.command_line import rewrite_booleans


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("safeguard=true", "safeguard=on"),
        ("safeguard=False", "safeguard=off"),
        ("safeguard=TRUE,false", "safeguard=on,off"),
        ("safeguard=true, false", "safeguard=on,off"),
        ("safeguard=pair,true,weighted", "safeguard=pair,on,weighted"),
        ("+safeguard=true", "+safeguard=on"),
        ("safeguard=on", "safeguard=on"),
        ("safeguard.weighted=true", "safeguard.weighted=true"),
        ("trainer.deterministic=true", "trainer.deterministic=true"),
        ("name=safeguard=true", "name=safeguard=true"),
        ("safeguard=choice(true,false)", "safeguard=choice(true,false)"),
    ],
)
def test_rewrite(given: str, expected: str) -> None:
    if "choice" in given:
        expected = given  # documented: only plain and comma-separated values are mapped
    argv = ["sdpo_exp", given, "-m"]
    same = argv
    rewrite_booleans(argv)
    assert argv == ["sdpo_exp", expected, "-m"]
    assert argv is same  # in place: distributed launchers execute sys.argv again
