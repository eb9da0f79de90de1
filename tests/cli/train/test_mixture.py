"""`data=mixture` on the command line: shares that are said, an exact resume, mistakes by source."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from sdpo_exp.data.columns import is_held_out
from tests.cli.command import SMALL, metric_rows, python, run, run_folders

MIXED = (
    "data=mixture",
    "data.train.sources.mine.path=a",
    "data.train.sources.theirs.path=b",
    "data.train.sources.mine.weight=3",
    "data.train.sources.mine.template='a photo of {caption}'",
    "data.train.holdout=0.3",
    "data.num_workers=0",
)


def folder(path: Path, pairs: int) -> None:
    for shade, side in ((40, "winner"), (90, "loser")):
        (path / side).mkdir(parents=True)
        for i in range(pairs):
            Image.new("RGB", (32, 32), (shade + i, i, 0)).save(path / side / f"{i}.png")
    lines = [f"{i}.png,a circle {path.name} {i}" for i in range(pairs)]
    (path / "captions.csv").write_text("\n".join(["file,caption", *lines]))


@pytest.mark.slow
def test_a_run_says_its_shares_and_goes_on_exactly(tmp_path: Path) -> None:
    folder(tmp_path / "a", 20)
    folder(tmp_path / "b", 40)
    limits = [word for word in SMALL if "evaluation" not in word and "max_steps" not in word]
    words = (*MIXED, *limits, "evaluation=off", "warmup_steps=0", "callbacks=[default,validation]")
    words = (*words, "callbacks.validation.every_n_steps=2", "data.validation_pairs=8")
    whole = run(tmp_path, *words, "max_steps=4", "name=whole")
    assert whole.returncode == 0, whole.stderr
    assert "mixture of 32 draws: mine 75 % (" in whole.stdout
    assert run(tmp_path, *words, "max_steps=2", "name=half").returncode == 0
    (half,) = run_folders(tmp_path, "half")
    changed = run(tmp_path, f"resume={half}", "data.train.sources.mine.weight=1")
    assert "data.train.sources.mine.weight: 3 -> 1" in changed.stderr
    onward = run(tmp_path, f"resume={half}", "max_steps=4", "name=rest")
    assert onward.returncode == 0, onward.stderr
    (all_at_once,), (rest,) = run_folders(tmp_path, "whole"), run_folders(tmp_path, "rest")
    key = "pair/loser_error"
    assert [row[key] for row in metric_rows(rest)][-2:] == [
        row[key] for row in metric_rows(all_at_once)
    ][-2:]
    recorded = json.loads((all_at_once / "environment.json").read_text())
    assert recorded["shares"] == {"mine": 0.75, "theirs": 0.25}
    label = all_at_once.parent.name
    assert "target" not in label.lower()


@pytest.mark.slow
def test_a_share_can_be_swept(tmp_path: Path) -> None:
    folder(tmp_path / "a", 20)
    folder(tmp_path / "b", 40)
    few = ("max_steps=1", "callbacks=[winner_loss]", "evaluation=off")
    done = run(tmp_path, "-m", *MIXED[:-1], *few, "data.train.sources.theirs.weight=1,6")
    assert done.returncode == 0, done.stderr
    assert "theirs 25 % (" in done.stdout
    assert "theirs 66.7 % (" in done.stdout


def test_mistakes_are_told_by_source_without_torch(tmp_path: Path) -> None:
    words = [word for word in MIXED if "template" not in word]
    extra = ("data.train.sources.mine.wieght=2", "data.train.sources.theirs.weight=0")
    template = "data.train.sources.theirs.template='{title}'"
    done = run(tmp_path, *words, *extra, template, watch=True)
    for fragment in (
        "3 mistakes",
        "data.train.sources.mine.wieght: unknown key; did you mean 'weight'?",
        "data.train.sources.theirs.weight: must be greater than 0, got 0",
        "data.train.sources.theirs.template: must hold {caption} once, and no other field in br",
    ):
        assert fragment in done.stderr
    assert "LOADED []" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data=mixture"], "data.train.sources: none; give data.train.sources.<name>.path="),
        (MIXED, "source theirs: dataset b: it is no folder"),
        (
            ["data=folder", "data.train.path=a", "data.train.template=photo"],
            "data.train.template: must hold {caption} once, and no other field in braces",
        ),
    ],
)
def test_what_cannot_be_had_is_told_before_a_run_begins(
    tmp_path: Path, words: list[str], told: str
) -> None:
    folder(tmp_path / "a", 3)
    done = run(tmp_path, *words)
    assert told in done.stderr
    assert "1 mistake" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_columns_of_a_source_are_looked_at_without_torch(tmp_path: Path) -> None:
    folder(tmp_path / "a", 3)
    (tmp_path / "b.csv").write_text("chosen,rejected,prompt\nx,y,z\n")
    words = [word for word in MIXED if "theirs.path" not in word]
    table = (
        "data.train.sources.theirs.path=b.csv",
        "data.train.sources.theirs.columns.caption=txt",
    )
    done = run(tmp_path, *words, *table, watch=True)
    assert "source theirs: b.csv: no column 'txt'" in done.stderr
    assert "LOADED []" in done.stdout


@pytest.mark.slow
def test_a_mixture_is_checked_and_not_relabelled(tmp_path: Path) -> None:
    folder(tmp_path / "a", 20)
    folder(tmp_path / "b", 40)
    bad = next(i for i in range(40) if not is_held_out(f"a circle b {i}", 0.3))
    (tmp_path / "b" / "loser" / f"{bad}.png").write_bytes(b"")
    done = python(tmp_path, "-m", "sdpo_exp.check_data", *MIXED)
    assert f"1  empty image: source theirs: b pair {bad}" in done.stdout
    refused = python(tmp_path, "-m", "sdpo_exp.relabel", *MIXED)
    assert (
        "data.train: the shares of a mixture would be lost; relabel its sources" in refused.stderr
    )


@pytest.mark.slow
def test_the_documented_template_is_quoted_right(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    (word,) = shlex.split(page.partition("for Hydra: `")[2].partition("`")[0])
    folder(tmp_path / "a", 20)
    few = ("data=folder", "data.train.path=a", "data.train.holdout=0.3", "data.num_workers=0")
    limits = ("max_steps=1", "callbacks=[winner_loss]", "evaluation=off")
    done = run(tmp_path, *few, *limits, word)
    assert done.returncode == 0, done.stderr
    (made,) = run_folders(tmp_path)
    assert "template: a photo of {caption}" in (made / "config.yaml").read_text()
