"""What a run was trained on, in words, whether its command line chose it or its model did."""

from __future__ import annotations

from typing import Any

import pytest

from sdpo_exp.reports.data_words import data_words


@pytest.mark.parametrize(
    ("train", "overrides", "words"),
    [
        ({"_target_": "sdpo_exp.testbed.pairs.SyntheticPairs", "flaws": 0}, [], "tiny"),
        ({"_target_": "sdpo_exp.testbed.pairs.SyntheticPairs", "flaws": 1}, [], "tiny_flawed"),
        ({"_target_": "sdpo_exp.testbed.hard.HardPairs", "folder": None}, [], "tiny_hard"),
        ({"_target_": "x.FolderPairs", "path": "/home/me/own/"}, ["data=folder"], "folder own"),
        ({"_target_": "x.TablePairs", "path": "you/pickapic_v2"}, [], "pickapic_v2"),
        ({"_target_": "x.TablePairs", "path": "C:\\a\\b.csv"}, ["data=hf_pairs"], "hf_pairs b.csv"),
        ({"path": "you/pickapic_v2"}, ["data=pickapic_v2"], "pickapic_v2"),
        ({"_target_": "x.MixedPairs", "sources": {"a": {}, "b": {}}}, [], "mixture a+b"),
        ({"_target_": "mine.Pairs"}, [], "Pairs"),
        (None, [], ""),
    ],
)
def test_data_in_words(train: Any, overrides: list[str], words: str) -> None:
    assert data_words({"data": {"train": train}}, overrides) == words
    assert data_words({"data": None}, []) == ""
