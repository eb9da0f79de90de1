"""The dashboard's definition is consistent and says what runs lack."""

from __future__ import annotations

from sdpo_exp.loggers.panels import Panel, Section, missing_keys, sections

BY_TIME = Panel("By time", "lines", ("probe/t[^/]+/margin",), pattern=True)
LOSS = Panel("Loss", "lines", ("train/loss",))


def test_titles_are_unique_within_a_section_and_the_asked_metrics_are_shown() -> None:
    shown = sections(["reward", "clip"])
    assert len({section.name for section in shown}) == len(shown)
    for section in shown:
        titles = [panel.title for panel in section.panels]
        assert len(set(titles)) == len(titles)
    keys = {key for section in shown for panel in section.panels for key in panel.keys}
    assert {"eval/reward", "eval/clip_change", "pair/winner_minus_ref", "eval/table"} <= keys


def test_a_pattern_is_there_when_any_key_fits_all_of_it() -> None:
    assert BY_TIME.missing({"probe/t0.1/margin"}) == []
    assert BY_TIME.missing({"probe/t0.1/margin_se", "probe/margin"}) == ["probe/t[^/]+/margin"]


def test_missing_keys_are_told_with_the_number_of_runs_that_lack_them() -> None:
    seldom = Panel("Images", "images", ("eval/images",), optional=True)
    shown = [Section("Run", (LOSS, BY_TIME, seldom))]
    runs = [{"train/loss", "probe/t0.5/margin"}, {"train/loss"}]
    assert missing_keys(runs, shown) == [
        "Run: By time: 1 of 2 runs lack probe/t[^/]+/margin",
    ]
