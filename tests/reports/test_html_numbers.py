"""The report's numbers are those of the files, by hand."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sdpo_exp.evaluation.statistics import holm, sign_test
from sdpo_exp.reports.html.curves import panels_of, thin
from sdpo_exp.reports.html.gather import Options, Report, gather
from sdpo_exp.reports.html.tables import cells_csv, runs_csv
from sdpo_exp.reports.metrics_file import Series
from sdpo_exp.reports.run_records import find_runs
from tests.reports.run_folders import Made, make_run, make_sweep


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    make_sweep(folder, seeds=3, steps=16, images=20, samples=0)
    return folder


@pytest.fixture(scope="module")
def report(root: Path) -> Report:
    return gather(find_runs([root]), Options(resamples=200))


def folders(root: Path, objective: str, safeguard: str) -> list[Path]:
    return sorted(p.parent for p in root.glob(f"run/tiny-{objective}-{safeguard}-*/*/run.json"))


def rewards(folder: Path, model: str) -> dict[int, float]:
    rows = csv.DictReader((folder / "scores.csv").open())
    return {int(row["index"]): float(row["reward"]) for row in rows if row["model"] == model}


@pytest.mark.parametrize("key", ["probe/winner_minus_ref", "probe/margin", "safeguard/lambda_mean"])
def test_means_and_intervals_are_those_of_the_summaries(
    root: Path, report: Report, key: str
) -> None:
    (cell,) = [cell for cell in report.cells if cell.label == "dmpo / on"]
    (figure,) = [f for f in report.figures[cell.key] if f.quantity.key == key]
    values = []
    for folder in folders(root, "dmpo", "on"):
        summary = json.loads((folder / "summary.json").read_text())
        part = summary["probe" if key.startswith("probe/") else "train"][key]
        values.append(part["last"] if key.startswith("probe/") else part)
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
    assert figure.n == 3
    assert figure.estimate.mean == pytest.approx(np.mean(values))
    assert figure.estimate.low == pytest.approx(np.mean(values) - half)
    assert figure.estimate.high == pytest.approx(np.mean(values) + half)


def test_verdicts_follow_the_interval_and_the_good_direction(report: Report) -> None:
    by_label = {cell.label: report.figures[cell.key] for cell in report.cells}
    change, drift, margin = by_label["dpo / off"][:3]
    assert (change.verdict, drift.verdict, margin.verdict) == ("bad", "bad", "plain")
    assert by_label["dpo / on"][0].verdict == "good"


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    make_run(tmp_path, Made(steps=8, images=2, samples=0))
    report = gather(find_runs([tmp_path]), Options(resamples=50))
    for figure in report.figures["c0"]:
        assert figure.n == 1
        assert figure.interval == ""
        assert figure.verdict in ("lone", "plain")


def test_a_cell_is_held_against_the_base_image_by_image(root: Path, report: Report) -> None:
    runs = folders(root, "dpo", "on")
    change = [
        np.mean([rewards(f, "tuned")[i] for f in runs])
        - np.mean([rewards(f, "base")[i] for f in runs])
        for i in range(20)
    ]
    (found,) = [t for t in report.tests if t.family == "base" and t.b == "dpo / on"]
    assert found.difference.value == pytest.approx(np.mean(change))
    assert found.comparison.p_sign == pytest.approx(sign_test(change))
    assert found.comparison.prompts == 20
    assert found.seeds == ("0", "1", "2")


def test_on_is_held_against_off_of_the_same_objective(root: Path, report: Report) -> None:
    on, off = (
        {
            i: np.mean([rewards(f, "tuned")[i] for f in folders(root, "dmpo", guard)])
            for i in range(20)
        }
        for guard in ("on", "off")
    )
    (found,) = [t for t in report.tests if t.family == "off" and t.b == "dmpo / on"]
    assert found.a == "dmpo / off"
    assert found.difference.value == pytest.approx(np.mean([on[i] - off[i] for i in range(20)]))
    assert found.comparison.wins == sum(on[i] > off[i] for i in range(20))


def test_holm_is_over_all_comparisons_of_the_page(report: Report) -> None:
    assert [t.family for t in report.tests] == ["base"] * 4 + ["off"] * 2
    expected = holm([t.comparison.p_sign for t in report.tests])
    assert [t.p_holm for t in report.tests] == pytest.approx(expected.tolist())


def test_prompts_of_equal_text_are_one_cluster(tmp_path: Path) -> None:
    make_run(tmp_path, Made(steps=8, images=8, samples=0, prompt="always the same"))
    (found,) = gather(find_runs([tmp_path]), Options(resamples=50)).tests
    assert (found.comparison.prompts, found.comparison.images) == (1, 8)
    assert found.comparison.p_sign == 1.0


def test_only_seeds_that_both_have_are_held_against_each_other(tmp_path: Path) -> None:
    for guard, seeds in (("off", (0, 1)), ("on", (1, 2))):
        for seed in seeds:
            make_run(tmp_path, Made(safeguard=guard, seed=seed, steps=8, images=6, samples=0))
    report = gather(find_runs([tmp_path]), Options(resamples=50))
    (found,) = [t for t in report.tests if t.family == "off"]
    assert found.seeds == ("1",)


def test_images_that_show_other_prompts_are_not_paired(tmp_path: Path) -> None:
    make_run(tmp_path, Made(safeguard="off", steps=8, images=6, samples=0))
    make_run(tmp_path, Made(steps=8, images=6, samples=0, prompt="another {index}"))
    report = gather(find_runs([tmp_path]), Options(resamples=50))
    assert [t.family for t in report.tests] == ["base", "base"]


def test_another_score_may_be_asked_for(root: Path) -> None:
    report = gather(find_runs([root]), Options(metric="accuracy", resamples=50))
    assert report.quantities[0].key == "eval/accuracy_change"
    assert all(figure[0].n == 3 for figure in report.figures.values())
    assert len(report.tests) == 6
    nothing = gather(find_runs([root]), Options(metric="beauty", resamples=50))
    assert nothing.tests == ()


def test_the_tables_hold_the_same_numbers(report: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(cells_csv(report))))
    assert [row["cell"] for row in rows] == [cell.label for cell in report.cells]
    for row, cell in zip(rows, report.cells, strict=True):
        for figure in report.figures[cell.key]:
            key = figure.quantity.key
            assert float(row[key]) == figure.estimate.mean
            assert float(row[f"{key}_low"]) == figure.estimate.low
    assert float(rows[1]["against_off_difference"]) == report.tests[4].difference.value
    assert rows[0]["against_off_difference"] == ""
    assert len(list(csv.DictReader(io.StringIO(runs_csv(report))))) == 12


def test_the_mean_curve_ends_where_the_first_run_does(tmp_path: Path) -> None:
    for seed, status in ((0, "died"), (1, "running")):
        make_run(tmp_path, Made(seed=seed, steps=16 + 8 * seed, status=status))
    report = gather(find_runs([tmp_path]), Options(resamples=50))
    (loss,) = [panel for panel in panels_of(report.cells) if panel["key"] == "train/loss"]
    (curves,) = loss["cells"]
    assert [len(run["y"]) for run in curves["runs"]] == [8, 12]
    assert curves["mean"] == {"even": True, "x": [1, 1], "y": curves["mean"]["y"]}
    assert len(curves["mean"]["y"]) == 8
    first = np.mean([run["y"][0] for run in curves["runs"]])
    assert curves["mean"]["y"][0] == pytest.approx(first, rel=1e-3)


def test_thinning_keeps_the_mean_and_the_bounds() -> None:
    series = Series(np.arange(1, 1001), np.sin(np.arange(1000.0)))
    thinned = thin(series, 300)
    assert len(thinned.steps) == 250
    assert thinned.values.mean() == pytest.approx(series.values.mean())
    assert thin(thinned, 300) is thinned
    assert 1 <= thinned.steps[0] < thinned.steps[-1] <= 1000


def test_seeds_that_agree_by_chance_make_no_good_news(tmp_path: Path) -> None:
    """Two seeds of equal change have a narrow interval; over prompts the change is unclear."""
    for seed in (0, 1):
        folder = make_run(tmp_path, Made(seed=seed, steps=8, images=6, samples=0))
        change = [0.3, -0.3, 0.2, -0.2, 0.1, -0.04 - 0.001 * seed]
        rows = [f"base,{i},p{i},0.5" for i in range(6)]
        rows += [f"tuned,{i},p{i},{0.5 + change[i]}" for i in range(6)]
        (folder / "scores.csv").write_text("\n".join(["model,index,prompt,reward", *rows]) + "\n")
        summary = json.loads((folder / "summary.json").read_text())
        summary["evaluation"]["scores"]["reward"]["change"]["mean"] = float(np.mean(change))
        (folder / "summary.json").write_text(json.dumps(summary))
    report = gather(find_runs([tmp_path]), Options(resamples=500))
    figure = report.figures["c0"][0]
    assert figure.estimate.low > 0
    assert figure.verdict == "open"
