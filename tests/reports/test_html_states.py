"""Runs in any state: shown as far as they go, said what is missing, and never an error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sdpo_exp.reports.html.gather import Options, gather
from sdpo_exp.reports.html.notices import badges_of
from sdpo_exp.reports.html.write import write_report
from sdpo_exp.reports.run_records import find_runs
from tests.reports.run_folders import Made, break_file, make_run

QUICK = Made(steps=8, images=4, samples=2)
FAST = Options(resamples=50)


def page_of_runs(root: Path) -> str:
    return write_report(gather(find_runs([root]), FAST), root / "report").read_text()


def notices(root: Path) -> str:
    found = gather(find_runs([root]), FAST).notices
    return "\n".join(f"{notice.title}: {notice.detail}" for notice in found)


def test_every_way_to_end_is_told(tmp_path: Path) -> None:
    statuses = ("finished", "interrupted", "failed", "stopped", "died", "running")
    for seed, status in enumerate(statuses):
        make_run(tmp_path, replace(QUICK, seed=seed, status=status))
    report = gather(find_runs([tmp_path]), FAST)
    assert report.statuses == {
        "failed": 2, "finished": 1, "interrupted": 1, "died": 1, "running": 1,
    }  # fmt: skip
    told = notices(tmp_path)
    assert "1 run failed: the winner's error rose tenfold; lower lr" in told
    for words in ("1 run ended without a word", "1 run interrupted", "1 run still running"):
        assert words in told
    assert "5 runs without evaluated images" in told
    (cell,) = report.cells
    assert cell.seeds == ["0"]  # nothing unfinished counts beside a finished run


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", b""),
        ("metrics.csv", b"\x00\xff\xfe,step\n1"),
        ("metrics.csv", b"step,train/loss\n1,0.5\nx,y\n2,nan\n3,inf\n4,0."),
        ("metrics.csv", None),
        ("scores.csv", b"model,index,prompt,reward\nbase,0,a,0.5\ntuned,0,a\n"),
        ("scores.csv", b"what,is\n1,2\n"),
        ("scores.csv", None),
        ("summary.json", b'{"status": "finis'),
        ("summary.json", b'{"status": "finished", "probe": [1], "evaluation": 3}'),
        ("summary.json", b'{"status": 7, "warnings": 3}'),
        ("run.json", b"[]"),
        ("run.json", b'{"seed": "many", "started": "yesterday", "pid": "x", "host": 3}'),
        ("environment.json", b"null"),
        ("environment.json", b'{"versions": [1], "git_revision": 5}'),
        ("config.yaml", b"\x80: ["),
        ("config.yaml", b"just words"),
        ("samples/tuned/0000.png", b"no picture"),
        ("samples", None),
    ],
)
def test_a_broken_or_missing_file_is_no_error(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    make_run(tmp_path, QUICK)
    broken = make_run(tmp_path, replace(QUICK, seed=1))
    break_file(broken, name, content)
    assert "<h1>" in page_of_runs(tmp_path)


def test_a_run_that_has_only_begun_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "tiny-dpo-on-0123abcd" / "now"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "run.json").write_text("{}")
    page = page_of_runs(tmp_path)
    assert "1 run without trajectories" in page
    assert "not recorded" in page  # its command


def test_a_run_without_probe_and_evaluation_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path, replace(QUICK, images=0))
    (folder / "metrics.csv").write_text("step,train/loss\n1,0.7\n2,0.6\n")
    (folder / "summary.json").write_text('{"status": "finished", "steps": 2}')
    (run,) = gather(find_runs([tmp_path]), FAST).runs
    assert run.missing == ("held-out probe", "evaluated images (scores.csv)")
    assert ("info", "no held-out probe") in badges_of(run)
    assert run.numbers["train/loss"] == 0.6  # the last fifth


def test_unlike_circumstances_are_told(tmp_path: Path) -> None:
    make_run(tmp_path, replace(QUICK, warnings=("3 bad rows skipped",)))
    other = (
        ("data_fingerprint", "beef"), ("git_dirty", True), ("git_revision", "fedcba"),
        ("versions", {"torch": "2.7.0", "numpy": "2.0.0"}),
    )  # fmt: skip
    resumed = (("resume", "outputs/run/a/b"),)
    make_run(tmp_path, replace(QUICK, seed=1, environment=other, settings=resumed))
    told = notices(tmp_path)
    assert "runs differ in their data fingerprint: f9d6cc28 (1 run); beef (1 run)" in told
    assert "runs differ in their version of torch: 2.6.0 (1 run); 2.7.0 (1 run)" in told
    assert "version of numpy" not in told
    for words in ("git revision", "uncommitted changes", "resumed", "warning of 1 run: 3 bad rows"):
        assert words in told
    first, second = gather(find_runs([tmp_path]), FAST).runs
    assert {text for _, text in badges_of(first)} == {"skipped", "1 warning"}
    assert {text for _, text in badges_of(second)} == {"resumed", "uncommitted changes"}
    assert len(gather(find_runs([tmp_path]), FAST).cells) == 1  # resuming makes no other cell


def test_an_older_run_without_samples_shows_its_picture(tmp_path: Path) -> None:
    folder = make_run(tmp_path, QUICK)
    (folder / "plots").mkdir()
    (folder / "samples" / "tuned" / "0000.png").rename(folder / "plots" / "before_after.png")
    break_file(folder, "samples")
    report = gather(find_runs([tmp_path]), FAST)
    assert report.galleries == ()
    assert [strip.cell for strip in report.strips] == ["dpo / on"]


def test_samples_stand_beside_those_of_the_same_prompts_only(tmp_path: Path) -> None:
    make_run(tmp_path, QUICK)
    make_run(tmp_path, replace(QUICK, safeguard="off"))
    make_run(tmp_path, replace(QUICK, objective="dmpo", prompt="another {index}"))
    make_run(tmp_path, replace(QUICK, objective="sft", side=400, prompt="large {index}"))
    report = gather(find_runs([tmp_path]), FAST)
    columns = [gallery.columns for gallery in report.galleries]
    assert columns == [
        ("base", "dpo / off", "dpo / on"),
        ("base", "dmpo / on"),
        ("base", "sft / on"),
    ]
    small, _, large = (gallery.rows[0].pictures[1] for gallery in report.galleries)
    assert small is not None
    assert large is not None
    assert small.pixel_art
    assert small.url.startswith("data:image/png;base64,")
    assert large.url.startswith("data:image/jpeg;base64,")
    assert not large.pixel_art
    first = report.cells[0].counted[0].scores
    assert small.score == pytest.approx(first.tuned["reward"][0])


def test_an_earlier_report_is_replaced_and_the_rest_left_alone(tmp_path: Path) -> None:
    make_run(tmp_path, QUICK)
    page_of_runs(tmp_path)
    (tmp_path / "report" / "notes.txt").write_text("mine")
    make_run(tmp_path, replace(QUICK, seed=1))
    assert "2 runs" in page_of_runs(tmp_path)
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["cells.csv", "index.html", "notes.txt", "report.md", "runs.csv", "table.tex"]


def test_a_summary_of_null_numbers_is_read(tmp_path: Path) -> None:
    folder = make_run(tmp_path, QUICK)
    summary = json.loads((folder / "summary.json").read_text())
    summary["probe"]["probe/margin"]["last"] = None
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "<h1>" in page_of_runs(tmp_path)
