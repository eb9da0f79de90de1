"""The page in a real browser, network off: no errors, every plot drawn, something to see."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from sdpo_exp.reports.html.gather import Options, gather
from sdpo_exp.reports.html.write import write_report
from sdpo_exp.reports.run_records import find_runs
from tests.reports.run_folders import Made, make_run, make_sweep

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
ASK = """<script>
(() => {
  const look = () => {
    if (document.documentElement.dataset.plots !== "all") { setTimeout(look, 50); return; }
    const told = (() => { QUESTION })();
    console.log("TOLD" + encodeURIComponent(JSON.stringify(told)));
  };
  addEventListener("load", look);
})();
</script></body>"""
EVIL = "<script>alert(1)</script>"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="chromium not found: the page was not looked at"),
]


def command(page: Path, profile: Path, *flags: str) -> list[str]:
    """Every name is sent where nobody listens."""
    assert BROWSER is not None
    common = (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--enable-logging=stderr", "--proxy-server=127.0.0.1:9", f"--user-data-dir={profile}",
    )  # fmt: skip
    return [BROWSER, *common, *flags, page.as_uri()]


def browse(page: Path, profile: Path, *flags: str) -> None:
    """Open the page for a picture or a print."""
    done = subprocess.run(
        command(page, profile, *flags), capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    # What the page says or breaks; the browser's own complaints are about its surroundings.
    assert not re.findall(r".*CONSOLE.*", done.stderr), done.stderr


def ask(page: Path, profile: Path, question: str, width: int | None = None) -> dict[str, Any]:
    """What a function body returns in the page, in real time, once all plots are drawn.

    A window has at least 500 px, so the page is in a frame where it is to have a width.
    """
    asking = page.with_name(f"{profile.name}.html")
    asking.write_text(page.read_text().replace("</body>", ASK.replace("QUESTION", question)))
    if width is not None:
        style = f"border: 0; width: {width}px; height: 800px"
        frame = f'<body style="margin: 0"><iframe style="{style}" src="{asking.name}"></iframe>'
        asking = asking.with_name(f"{profile.name}-frame.html")
        asking.write_text(frame)
    process = subprocess.Popen(
        command(asking, profile, "--remote-debugging-port=0"), stderr=subprocess.PIPE, text=True
    )
    timer = threading.Timer(150, process.kill)
    timer.start()
    said = []
    try:
        for line in process.stderr or ():
            if "CONSOLE" in line:
                said.append(line)
            if told := re.search(r"TOLD(\S+?)\"", line):
                assert len(said) == 1, said
                found: dict[str, Any] = json.loads(unquote(told[1]))
                return found
    finally:
        timer.cancel()
        process.terminate()
        process.wait()
    raise AssertionError(f"the page never answered: {said}")


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


COUNT = """
  const count = (selector) => document.querySelectorAll(selector).length;
  return {
    wanted: count(".plot"), drawn: count(".plot.js-plotly-plot"), svg: count("svg.main-svg"),
    lines: [...document.querySelectorAll(".plot[data-kind=curve]")].map((el) => el.data.length),
    scripts: count("script"), columns: count(".legend button[aria-pressed=true]"),
    loaded: performance.getEntriesByType("resource").length,
  };
"""


def test_every_plot_is_drawn_and_the_console_is_silent(page: Path, tmp_path: Path) -> None:
    told = ask(page, tmp_path, COUNT)
    assert told["wanted"] == 7 * 2 + 2 + 1
    assert told["drawn"] == told["wanted"]
    assert told["svg"] >= told["wanted"]
    assert min(told["lines"]) >= 3
    assert told["columns"] == 3
    assert told["scripts"] == 5  # the page's four and the question: none of a user's words
    assert told["loaded"] == 0


@pytest.mark.parametrize("dark", [False, True])
def test_there_is_something_to_see_in_light_and_dark(
    page: Path, tmp_path: Path, dark: bool
) -> None:
    picture = tmp_path / "page.png"
    flags = ["--window-size=1300,2600", "--timeout=12000", f"--screenshot={picture}"]
    flags += ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(page, tmp_path / "profile", *flags)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert (pixels[5, 5].mean() < 60) == dark
    assert pixels.std() > 10
    coloured = (pixels.max(2) - pixels.min(2)) > 60
    assert coloured.mean() > 0.002  # lines, tiles and badges


def test_the_plots_are_on_paper_too(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    flags = ("--no-pdf-header-footer", f"--print-to-pdf={paper}", "--timeout=8000")
    browse(page, tmp_path / "profile", *flags, "--blink-settings=preferredColorScheme=0")
    assert paper.read_bytes().startswith(b"%PDF")
    assert paper.stat().st_size > 100_000


TOUCH = """
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
  const folded = document.querySelector("#runs .folded");
  told.found = [rows("table-runs"), [...folded.querySelectorAll("tbody tr")]]
    .map((part) => part.filter((row) => !row.hidden).length);
  told.open = folded.open;
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
  return told;
"""


def test_tables_sort_and_filter_and_plots_follow_switches(page: Path, tmp_path: Path) -> None:
    told = ask(page, tmp_path, TOUCH)
    values = [float(value) for value in told["up"]]
    assert values == sorted(values)
    assert told["down"] == told["up"][::-1]
    assert told["sorted"] == "descending"
    assert told["found"] == [0, 1]
    assert told["open"]
    first, without_a_column, without_seeds = told["lines"]
    assert first > without_a_column > without_seeds > 0
    assert told["theme"] == ["light", "dark"]
    assert told["followed"]
    assert told["paper"] == [True, 216]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A day of unnamed trials: two models, three sets of pairs, many values, some that failed."""
    root = tmp_path_factory.mktemp("day")
    quick = Made(steps=8, images=4, samples=1)
    hard = ("data.train._target_", "sdpo_exp.testbed.hard.HardPairs")
    own = (
        ("data.train._target_", "sdpo_exp.data.folder.FolderPairs"),
        ("data.train.path", "/a/own"),
    )
    trials = [(), (hard,), own, *(((key, 3 + i),) for i in range(4) for key in KEYS)]
    for number, settings in enumerate(trials):
        started = f"2026-01-01T{number:02d}:00:00"
        make_run(root, replace(quick, settings=settings, started=started))
    for objective in ("dpo", "dspo", "dmpo", "ipo"):
        for guard in ("off", "on"):
            made = replace(quick, objective=objective, safeguard=guard)
            make_run(root, replace(made, seed=1))
            make_run(root, replace(made, model="sd15", images=0, samples=0))
    for seed, status in enumerate(("failed", "died", "interrupted")):
        make_run(root, replace(quick, status=status, seed=seed, settings=(("lr", 7.0),)))
    return write_report(gather(find_runs([root]), Options(resamples=50)), root / "report")


KEYS = ("objective.beta", "lr", "safeguard.mu", "max_steps", "timesteps.min")
SIZE = """
  const inside = (el) => el.closest(".scroll, .links, .many, .js-plotly-plot, .hidden, .skip");
  const wide = [...document.querySelectorAll("main *")].filter((el) => !inside(el)
    && el.getBoundingClientRect().right > innerWidth + 1).map((el) => el.outerHTML.slice(0, 80));
  const root = document.documentElement;
  const folded = [...document.querySelectorAll("details.panel:not([open])")];
  const told = { wide, window: innerWidth, width: root.scrollWidth, height: root.scrollHeight };
  folded[0].open = true;
  folded[0].dispatchEvent(new Event("toggle"));
  const late = [...folded[0].querySelectorAll(".plot")];
  return { ...told, late: late.length, drawn: late.filter((el) => el.data?.length).length };
"""


@pytest.mark.parametrize("width", [1400, 400])
def test_a_day_of_trials_is_no_long_page_and_never_wider_than_the_window(
    day: Path, tmp_path: Path, width: int
) -> None:
    told = ask(day, tmp_path, SIZE, width)
    assert told["window"] == told["width"] == width
    assert told["wide"] == []
    assert told["height"] < 18_000
    assert told["drawn"] == told["late"] > 6
