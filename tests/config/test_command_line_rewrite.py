"""`safeguard=true|false` is mapped to on|off, sources of a mixture are named, and nothing else."""

from __future__ import annotations

import pytest

from sdpo_exp.config.command_line import name_sources, rewrite_booleans


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


TARGET = "._target_=sdpo_exp.data.mixed_source.MixedSource"


def test_sources_of_a_mixture_are_named() -> None:
    argv = [
        "sdpo_exp",
        "-m",
        "data=mixture",
        "data.train.sources.a.path=A",
        "+data.train.sources.a.weight=1,2",
        "data.validation.sources.b={path: B}",
        "data.train.source.c.path=C",
        "~data.train.sources.d",
        "name=data.train.sources.e.path=E",
    ]
    same = argv
    name_sources(argv)
    expected = [
        *("sdpo_exp", "-m", "data=mixture"),
        *("++data.train.sources.a.path=A", "++data.train.sources.a.weight=1,2"),
        f"++data.train.sources.a{TARGET}",
        *("++data.validation.sources.b={path: B}", f"++data.validation.sources.b{TARGET}"),
        *argv[-3:],
    ]
    assert argv == expected
    assert argv is same
    name_sources(argv)  # a distributed launcher starts the same words again
    assert argv == expected
    own = ["sdpo_exp", "data.train.sources.a._target_=mine.Source"]
    name_sources(own)
    assert own == ["sdpo_exp", "++data.train.sources.a._target_=mine.Source"]


def test_all_sources_may_be_one_mapping() -> None:
    argv = ["sdpo_exp", "data.train.sources={a: {path: A}, b: {path: 'B, C'}}", "data=mixture"]
    name_sources(argv)
    assert argv[1:] == [
        "++data.train.sources={a: {path: A}, b: {path: 'B, C'}}",
        f"++data.train.sources.a{TARGET}",
        f"++data.train.sources.b{TARGET}",
        "data=mixture",
    ]
    broken = ["sdpo_exp", "data.train.sources={a: "]
    name_sources(broken)
    assert broken == ["sdpo_exp", "++data.train.sources={a: "]
