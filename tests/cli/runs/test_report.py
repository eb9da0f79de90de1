"""`python -m sdpo_exp.report`: from paths to a page, without torch, and its mistakes in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import ROOT, here, looking
from tests.reports.run_folders import make_sweep

FILES = ["cells.csv", "index.html", "report.md", "runs.csv", "table.tex"]


def call(folder: Path, *arguments: str) -> tuple[int, str, str]:
    from sdpo_exp.cli.runs.report import main

    done = here(folder, main, *arguments)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    make_sweep(folder / "outputs", seeds=2, steps=8, images=4, samples=1)
    return folder


def test_it_writes_beside_the_runs_and_imports_no_torch(work: Path) -> None:
    done = looking(work, "runs.report", "outputs", "resamples=50")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("LOADED []")
    assert "4 cells, 8 runs: 8 finished" in done.stdout
    assert "report: outputs/report/index.html" in done.stdout
    assert sorted(p.name for p in (work / "outputs" / "report").iterdir()) == FILES


def test_it_takes_several_paths_and_values(work: Path) -> None:
    runs = sorted(str(p.relative_to(work)) for p in work.glob("outputs/run/tiny-dpo-*"))
    values = ("folder=mine", "title='A & B'", "images=0", "test=wilcoxon", "score=accuracy")
    code, out, err = call(work, *runs, *values, "resamples=50")
    assert code == 0, err
    assert "2 cells, 4 runs" in out
    page = (work / "mine" / "index.html").read_text()
    assert "<h1>A &amp; B</h1>" in page
    assert "Wilcoxon" in page
    assert "accuracy change" in page
    assert 'class="gallery"' not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "paths: nowhere: no such folder"),
        (["file"], "paths: file: not a folder; give run folders"),
        (["empty"], "paths: no runs in empty; a run is a folder with config.yaml"),
        ([], "paths: which runs?"),
        (["empty", "tittle=x"], "tittle=x: unknown key; did you mean 'title'?"),
        (["empty", "test=t"], "test: "),
        (["empty", "images=-1"], "images: "),
    ],
)
def test_mistakes_are_told_in_words(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    code, out, err = call(tmp_path, *arguments)
    assert code == 1
    assert words in err
    assert "Traceback" not in out + err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file"]


def test_a_folder_that_cannot_be_written_is_told(work: Path) -> None:
    (work / "taken").touch()
    code, out, err = call(work, "outputs", "folder=taken", "resamples=50")
    assert code == 1
    assert "folder=taken: cannot be written" in out + err
    assert "Traceback" not in out + err


def test_the_package_holds_the_pages_assets() -> None:
    assets = {p.name for p in (ROOT / "sdpo_exp" / "reports" / "html" / "assets").iterdir()}
    assert assets == {"page.css", "page.html", "page.js", "plots.js"}
