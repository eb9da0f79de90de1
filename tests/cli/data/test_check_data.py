"""`sdpo_exp.check_data` finds every bad row; what docs/data.md shows is a configuration."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from sdpo_exp.data.survey import problems
from sdpo_exp.data.table import TablePairs
from sdpo_exp.data.transform import PairCrop
from sdpo_exp.errors import UserError
from tests.cli.command import python
from tests.data.pictures import FLAWS, PICKAPIC, pickapic_rows, write_pickapic
from tests.harness import RandomPairs


@pytest.mark.parametrize("workers", [0, 2])
def test_every_bad_row_is_found_in_order(tmp_path: Path, workers: int) -> None:
    write_pickapic(tmp_path / "pairs", pickapic_rows()[:120])
    source = TablePairs(str(tmp_path / "pairs"), PICKAPIC, cache_dir=str(tmp_path / "cache"))
    found = list(problems(source, PairCrop(8), workers, max_aspect_gap=0.2))
    assert len(found) == len(source) == 96
    names = [problem.row for problem in found if problem is not None]
    assert names == [f"{source.path} row {row}" for row in FLAWS if row < 120]
    with pytest.raises(UserError, match=r"data.transform is missing"):
        list(problems(source, None, workers))


def test_pixels_are_looked_through_as_well() -> None:
    assert list(problems(RandomPairs(5), None, 0)) == [None] * 5


@pytest.mark.slow
def test_the_command_prints_counts_and_writes_the_rows(tmp_path: Path) -> None:
    write_pickapic(tmp_path / "pairs", pickapic_rows()[:120])
    limits = (
        "data.num_workers=0",
        "data.max_aspect_gap=0.2",
        "data.train.cache_dir=cache",
    )
    arguments = ("data=pickapic_v2", "data.train.path=pairs", *limits)
    done = python(tmp_path, "-m", "sdpo_exp.check_data", *arguments)
    assert done.returncode == 0, done.stderr
    assert "96 pairs looked at, 13 bad" in done.stdout
    assert "2  damaged image: pairs row 10, pairs row 100" in done.stdout
    (path,) = tmp_path.glob("outputs/check_data/*/bad_rows.csv")
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["row"] for row in rows] == [f"pairs row {row}" for row in FLAWS if row < 120]
    assert rows[1]["reason"] == "empty image (jpg_1: zero bytes)"


def test_mistakes_are_told_before_anything_is_read(tmp_path: Path) -> None:
    done = python(tmp_path, "-m", "sdpo_exp.check_data", "parts=x", "data.train.pth=3")
    assert done.returncode != 0
    assert "parts=x: unknown key; did you mean 'part'?" in done.stderr
    assert "data.train.pth=3: unknown key; did you mean 'data.train.path'?" in done.stderr
    assert "Traceback" not in done.stderr
