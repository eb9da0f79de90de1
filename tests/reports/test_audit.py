"""What an audited run's summary, tables and page say of it; others say nothing of an audit."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from sdpo_exp.loggers.panels import sections
from sdpo_exp.reports.html.curves import panels_of
from sdpo_exp.reports.html.gather import Options, gather
from sdpo_exp.reports.html.page import page_of
from sdpo_exp.reports.html.tables import latex_of, markdown_of
from sdpo_exp.reports.run_records import find_runs, metrics_of
from sdpo_exp.reports.summary import format_summary, write_summary
from tests.reports.run_folders import Made, make_run

NAMES = ("step_rose", "step_rose_so_far", "winner_change", "predicted_winner_change")
NAMES += ("loser_change", "predicted_loser_change", "winner_rose", "winner_rise", "pairs")
ROWS = [
    (10, 0, 0, -2e-3, -3e-3, 4e-3, 5e-3, 0.25, 1e-4, 8),
    (20, 1, 0.5, 1e-3, -1e-3, 2e-3, 1e-3, 0.75, 2e-4, 8),
    (30, 1, 2 / 3, 4e-3, 1e-3, 0.0, 3e-3, 0.5, 3e-4, 8),
    (40, 0, 0.5, -7e-3, -5e-3, 6e-3, 7e-3, 0.5, 4e-4, 8),
]


def write_rows(folder: Path) -> None:
    lines = [",".join(["step", *(f"audit/{name}" for name in NAMES)])]
    lines += [",".join(map(str, row)) for row in ROWS]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_the_summary_counts_all_audited_steps(tmp_path: Path) -> None:
    write_rows(tmp_path)
    summary = write_summary(tmp_path, status="finished", seconds=1.0)
    audit = summary["audit"]
    assert (audit["steps"], audit["rose"], audit["predicted"]) == (4, 2, 1)
    assert audit["means"]["audit/winner_change"] == pytest.approx(-1e-3)
    assert audit["means"]["audit/predicted_winner_change"] == pytest.approx(-2e-3)
    assert not any(name.startswith("audit/") for name in summary["train"])
    for told in (format_summary(summary), (tmp_path / "summary.md").read_text()):
        assert (
            "rose in 50% of the audited steps (2 of 4); to first order it should have in 1" in told
        )
        assert "winners -1.0e-03 (predicted -2.0e-03), losers +3.0e-03 (predicted +4.0e-03)" in told
    assert metrics_of(summary)["audit/step_rose"] == 0.5


def test_a_run_without_audit_says_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("train/loss,step\n0.7,1\n")
    summary = write_summary(tmp_path, status="finished", seconds=1.0)
    assert summary["audit"] is None
    assert "audit" not in format_summary(summary)
    old = {name: value for name, value in summary.items() if name != "audit"}
    assert format_summary(old) == format_summary(summary)


@pytest.mark.parametrize("summarised", [True, False])
def test_the_report_has_columns_and_curves_of_audited_runs(
    tmp_path: Path, summarised: bool
) -> None:
    plain = make_run(tmp_path, Made(steps=8, images=2, samples=0))
    audited = make_run(tmp_path, Made(safeguard="off", steps=8, images=2, samples=0))
    with (audited / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    extra = [dict(zip(("step", *(f"audit/{n}" for n in NAMES)), row, strict=True)) for row in ROWS]
    names = list(dict.fromkeys([*rows[0], *rows[1], *extra[0]]))
    with (audited / "metrics.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows([*rows, *extra])
    if summarised:
        told = json.loads((audited / "summary.json").read_text())
        told["audit"] = write_summary(audited, status="finished", seconds=1.0)["audit"]
        (audited / "summary.json").write_text(json.dumps(told))
    else:
        (audited / "summary.json").unlink()
    report = gather(find_runs([tmp_path]), Options(resamples=50))
    columns = [quantity.key for quantity in report.quantities]
    assert columns[-3:] == [f"audit/{name}" for name in (NAMES[0], NAMES[2], NAMES[3])]
    found = {run.safeguard: [run.numbers.get(name) for name in columns[-3:]] for run in report.runs}
    assert found["on"] == [None] * 3
    assert found["off"] == pytest.approx([0.5, -1e-3, -2e-3])
    drawn = {panel["key"]: panel for panel in panels_of(report.shown)}
    assert drawn["audit/step_rose_so_far"]["cells"][0]["runs"][0]["y"] == [0, 0.5, 0.6667, 0.5]
    assert "Audit: share of steps" in page_of(report, plain)
    assert "winner rose" in markdown_of(report)
    assert "winner rose" in latex_of(report)


def test_columns_are_left_out_where_nothing_was_audited(tmp_path: Path) -> None:
    make_run(tmp_path, Made(steps=8, images=2, samples=0))
    report = gather(find_runs([tmp_path]), Options(resamples=50))
    assert not [q.key for q in report.quantities if q.key.startswith("audit/")]
    assert "winner rose" not in markdown_of(report)


def test_the_dashboard_asks_no_run_for_an_audit() -> None:
    (section,) = [section for section in sections() if section.name == "Audit"]
    assert all(panel.optional for panel in section.panels)
    logged = {f"audit/{name}" for name in (*NAMES, "t0.25-0.5/winner_change")}
    assert not any(panel.missing(logged) for panel in section.panels)
