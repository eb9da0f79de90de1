"""The page as text: nothing of a user's words is markup, and nothing comes from elsewhere."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from sdpo_exp.evaluation.statistics import Interval
from sdpo_exp.reports.html.forest import forest_of
from sdpo_exp.reports.html.gather import Options, Report, gather
from sdpo_exp.reports.html.page import page_of, script_json
from sdpo_exp.reports.html.tables import cells_csv, latex, latex_of, markdown_of
from sdpo_exp.reports.run_records import find_runs
from tests.reports.run_folders import Made, make_run, make_sweep

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Every start tag, and the text of script elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page.replace(get_plotlyjs(), ""))
    return tags


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    make_sweep(folder, seeds=2, steps=8, images=6, samples=2)
    return folder


@pytest.fixture(scope="module")
def report(root: Path) -> Report:
    return gather(find_runs([root]), Options(title="A sweep", resamples=50))


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("evil")
    made = Made(
        objective=EVIL.replace("/", ""),
        steps=8,
        images=4,
        samples=2,
        prompt=EVIL + ' {index} " onerror="x',
        warnings=(EVIL + " & _more_ | $x$",),
        settings=(("lr", EVIL),),
        environment=(("git_revision", EVIL),),
        model="</style><img src=x>".replace("/", ""),
    )
    make_run(folder, made)
    make_run(folder, replace(made, seed=1, settings=(("lr", "'\"</td>"),), status="stopped"))
    return gather(find_runs([folder]), Options(title=f"</title>{EVIL}", resamples=50))


def test_the_users_words_are_escaped_everywhere(evil: Report, tmp_path: Path) -> None:
    page = page_of(evil, tmp_path)
    tags = parsed(page)
    assert "<script>alert" not in page
    names = [tag for tag, _ in tags.tags]
    assert names.count("script") == 4  # the data, two of the page, plotly.js
    assert names.count("title") == 1
    sources = [attributes.get("src") or "" for _, attributes in tags.tags if "src" in attributes]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not [a for _, attributes in tags.tags for a in attributes if a.startswith("on")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_data_in_the_page_cannot_end_its_element() -> None:
    text = script_json({"a": ["</script><!--", "\u2028&"]})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": ["</script><!--", "\u2028&"]}


def test_markdown_and_latex_are_escaped(evil: Report) -> None:
    assert "<script>" not in markdown_of(evil).replace("\\<script\\>", "")
    assert latex("50% of $x_1$ & #2 {a}~^\\") == (
        r"50\% of \$x\_1\$ \& \#2 \{a\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    body = latex_of(evil)
    assert r"\textless{}script\textgreater{}" in body
    assert "<" not in body


def test_the_csv_keeps_words_as_they_are(evil: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(cells_csv(evil))))
    assert {row["objective"] for row in rows} == {EVIL.replace("/", "")}


def test_the_page_asks_for_nothing_from_elsewhere(report: Report, tmp_path: Path) -> None:
    page = page_of(report, tmp_path)
    tags = parsed(page)
    assert page.count(get_plotlyjs()) == 1
    for tag, attributes in tags.tags:
        assert tag != "link"
        assert (attributes.get("src") or "data:").startswith("data:")
        target = attributes.get("href") or "#"
        assert not re.match(r"[a-z]+:", target), target
    assert "default-src 'none'" in page
    assert len(page) - len(get_plotlyjs()) < 150_000


def test_the_page_shows_what_the_report_knows(report: Report, tmp_path: Path) -> None:
    page = page_of(report, tmp_path)
    for section in ("overview", "cells", "trajectories", "levels", "samples", "significance",
                    "settings", "runs"):  # fmt: skip
        assert f'<section id="{section}"' in page
    assert page.count('class="copy ghost"') == len(report.runs)
    assert "python -m sdpo_exp objective=dmpo safeguard=off seed=1" in page
    figure = report.figures["c0"][1]
    minus = f"{figure.estimate.mean:+.4f}".replace("-", "\N{MINUS SIGN}")
    assert f'<span class="value">{minus}' in page
    assert len(re.findall('data-kind="curve"', page)) == 7 * 2
    assert (
        page.count('class="pixels" src="data:image/png') == 2 * 5
    )  # two prompts, base and four cells


def test_many_cells_are_grouped_and_folded_not_listed_again(tmp_path: Path) -> None:
    quick = Made(steps=8, images=2, samples=0)
    for value in range(9):
        make_run(tmp_path, replace(quick, settings=(("objective.beta", 100.0 + value),)))
    make_run(tmp_path, replace(quick, model="sd15", settings=(("lr", 1.0),)))
    page = page_of(gather(find_runs([tmp_path]), Options(resamples=20)), tmp_path)
    assert re.findall(r'<tr class="group"><th[^>]*>(\w+)</th>', page) == ["sd15", "tiny"]
    assert page.count('<details class="panel card" open>') == 1  # of eight
    assert "the other 9 cells" in page  # of lr, in place of their names
    assert "_target_" not in page.replace(get_plotlyjs(), "").replace("_target_=", "")
    assert "seed 0" in page
    assert "seeds 0" not in page


def test_links_to_run_folders_hold(root: Path, report: Report) -> None:
    folder = root / "report"
    folder.mkdir()
    links = [a["href"] for tag, a in parsed(page_of(report, folder)).tags if tag == "a"]
    found = [link for link in links if link and link.startswith("../run/")]
    assert len(found) == len(report.runs)
    assert all((folder / str(link)).is_dir() for link in found)


def test_latex_has_a_line_per_cell_and_half_widths(report: Report) -> None:
    lines = latex_of(report).splitlines()
    assert [line for line in lines if line.startswith("\\")] == [
        r"\begin{tabular}{llrrrrrr}", r"\toprule", r"\midrule", r"\addlinespace", r"\bottomrule",
        r"\end{tabular}",
    ]  # fmt: skip
    change = report.figures["c0"][0].estimate
    assert f"${change.mean:+.4f} \\pm {change.high - change.mean:.4f}$" in lines[5]
    assert lines[5].startswith("dpo & off & ")
    assert lines[6].startswith(" & on & ")


def test_markdown_has_the_cells_and_the_tests(report: Report) -> None:
    text = markdown_of(report)
    assert text.startswith("# A sweep\n")
    assert "4 cells, 8 runs (8 finished)" in text
    change = report.figures["c0"][0]
    assert f"| dpo / off | 2 | {change.text} [{change.interval}] |" in text
    assert "| dmpo / on | dmpo / off | 6 |" in text


def test_a_forest_line_lies_on_the_scale_and_fills_what_is_sure() -> None:
    ends = [-0.1, 0.3]
    sure = forest_of(Interval(0.2, 0.1, 0.3), 0.01, ends)
    assert 'class="forest up"' in sure
    assert 'x1="49.0" x2="49.0"' in sure  # zero, a quarter along the scale
    assert 'cx="131.0"' in sure
    assert 'class="forest open"' in forest_of(Interval(-0.1, -0.1, 0.3), 0.2, ends)
    assert "span" not in forest_of(Interval(0.2, float("nan"), float("nan")), 0.01, ends)
