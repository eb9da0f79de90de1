"""The page in a real browser, network off: no errors, every plot drawn, something to see."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdpo_exp.reports.html.gather import Options, gather
from sdpo_exp.reports.html.write import write_report
from sdpo_exp.reports.run_records import find_runs
from tests.reports.run_folders import Made, make_run, make_sweep

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = "<script>alert(1)</script>"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="chromium not found: the page was not looked at"),
]


def browse(page: Path, *flags: str, profile: Path) -> subprocess.CompletedProcess[str]:
    """Open the page; every name is sent where nobody listens."""
    assert BROWSER is not None
    command = (
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--enable-logging=stderr", "--proxy-server=127.0.0.1:9", f"--user-data-dir={profile}",
    )  # fmt: skip
    done = subprocess.run(
        [*command, *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "HOME": str(profile)},
    )
    assert done.returncode == 0, done.stderr
    # What the page says or breaks; the browser's own complaints are about its surroundings.
    assert not re.findall(r".*CONSOLE.*", done.stderr), done.stderr
    return done


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_sweep(root, seeds=2, steps=16, images=8, samples=2)
    evil = Made(safeguard="pair", steps=16, images=8, samples=2, prompt=EVIL, warnings=(EVIL,))
    make_run(root, replace(evil, settings=(("lr", EVIL),)))
    make_run(root, replace(evil, objective="dmpo", status="running"))
    make_run(root, replace(evil, objective="dmpo", seed=1, status="died"))
    report = gather(find_runs([root]), Options(title=EVIL, resamples=100))
    return write_report(report, root / "report")


def test_every_plot_is_drawn_and_the_console_is_silent(page: Path, tmp_path: Path) -> None:
    dom = browse(page, "--virtual-time-budget=60000", "--dump-dom", profile=tmp_path).stdout
    wanted = len(re.findall(r'data-kind="(?:curve|bins|ends)"', page.read_text()))
    assert wanted == 7 * 2 + 2 + 1
    drawn = re.findall(r'<div class="plot[^"]*js-plotly-plot"', dom)
    assert len(drawn) == wanted
    assert dom.count('class="main-svg"') >= wanted
    assert 'data-plots="all"' in dom
    assert "alert(1)</script>" not in dom
    assert len(re.findall(r'<button type="button" aria-pressed="true">', dom)) == 3


@pytest.mark.parametrize("dark", [False, True])
def test_there_is_something_to_see_in_light_and_dark(
    page: Path, tmp_path: Path, dark: bool
) -> None:
    picture = tmp_path / "page.png"
    flags = ["--window-size=1300,2600", "--timeout=12000", f"--screenshot={picture}"]
    flags += ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(page, *flags, profile=tmp_path / "profile")
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert (pixels[5, 5].mean() < 60) == dark
    assert pixels.std() > 10
    coloured = (pixels.max(2) - pixels.min(2)) > 60
    assert coloured.mean() > 0.002  # lines, tiles and badges


def test_the_plots_are_on_paper_too(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    flags = ("--no-pdf-header-footer", f"--print-to-pdf={paper}", "--timeout=8000")
    browse(page, *flags, "--blink-settings=preferredColorScheme=0", profile=tmp_path / "profile")
    assert paper.read_bytes().startswith(b"%PDF")
    assert paper.stat().st_size > 100_000


TOUCH = """<script>
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement;
  const rows = (id) => [...document.getElementById(id).tBodies[0].rows];
  const told = {};
  const drift = document.querySelectorAll("#table-cells thead button")[3];
  drift.click();
  told.up = rows("table-cells").map((row) => row.cells[3].dataset.value);
  drift.click();
  told.down = rows("table-cells").map((row) => row.cells[3].dataset.value);
  told.sorted = drift.parentElement.getAttribute("aria-sort");
  const filter = document.querySelector('[data-filter="table-runs"]');
  filter.value = "died";
  filter.dispatchEvent(new Event("input"));
  told.found = rows("table-runs").filter((row) => !row.hidden).length;
  const plot = document.querySelector(".plot[data-kind=curve]");
  const lines = () => plot.data.length;
  told.lines = [lines()];
  document.querySelector(".legend button").click();
  told.lines.push(lines());
  document.getElementById("seeds").click();
  told.lines.push(lines());
  told.theme = [root.dataset.theme];
  const ink = plot.layout.font.color;
  document.getElementById("theme").click();
  told.theme.push(root.dataset.theme);
  told.followed = plot.layout.font.color !== ink;
  dispatchEvent(new Event("beforeprint"));
  told.paper = [plot.layout.font.color === ink, plot.layout.width];
  dispatchEvent(new Event("afterprint"));
  root.dataset.told = JSON.stringify(told);
}, 1500));
</script>"""


def test_tables_sort_and_filter_and_plots_follow_switches(page: Path, tmp_path: Path) -> None:
    touched = page.with_name("touched.html")
    touched.write_text(page.read_text().replace("</body>", f"{TOUCH}</body>"))
    dom = browse(touched, "--virtual-time-budget=60000", "--dump-dom", profile=tmp_path).stdout
    (text,) = re.findall(r'data-told="([^"]*)"', dom)
    told = json.loads(html.unescape(text))
    values = [float(value) for value in told["up"]]
    assert values == sorted(values)
    assert told["down"] == told["up"][::-1]
    assert told["sorted"] == "descending"
    assert told["found"] == 1
    first, without_a_column, without_seeds = told["lines"]
    assert first > without_a_column > without_seeds > 0
    assert told["theme"] == ["light", "dark"]
    assert told["followed"]
    assert told["paper"] == [True, 216]
