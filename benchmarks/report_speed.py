"""How long a report of many runs takes, and how large its page is.

    python -m benchmarks.report_speed              # 200 runs of 240 steps
    python -m benchmarks.report_speed --runs 20

The runs are made up: 8 settings of 5 objectives, safeguard on and off, 5 seeds each, 256 scored
images and a dozen samples. Prints a table and writes json; the page's loading is timed in a
headless Chromium where there is one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from sdpo_exp.reports.html.gather import Options, gather
from sdpo_exp.reports.html.write import write_report
from sdpo_exp.reports.run_records import find_runs
from tests.reports.run_folders import Made, make_run

OBJECTIVES = ("dpo", "dspo", "dmpo", "ipo", "hinge")
# Fires when the page is usable, and when the last plot is drawn.
WATCH = """
addEventListener("load", () => {
  const loaded = performance.now();
  const look = () => document.documentElement.dataset.plots === "all"
    ? console.log("TIMES " + JSON.stringify([loaded, performance.now()])) : setTimeout(look, 20);
  look();
});
"""


def make(root: Path, runs: int, steps: int) -> None:
    cells = [(objective, mu, guard) for mu in (0.9, 0.5, 0.3, 0.1) for objective in OBJECTIVES
             for guard in ("off", "on")]  # fmt: skip
    for number in range(runs):
        objective, mu, guard = cells[number // 5 % len(cells)]
        settings = (("lr", mu * 1e-4),)
        made = Made(objective, guard, number % 5, steps=steps, images=256, samples=12,
                    settings=settings, name=f"run{number // (5 * len(cells))}")  # fmt: skip
        make_run(root, made)


def load_seconds(page: Path) -> dict[str, float] | None:
    """Until the page is loaded and until all is drawn, in real time; None without a browser."""
    browser = shutil.which("chromium")
    if browser is None:
        return None
    watched = page.with_name("watched.html")
    text = page.read_text(encoding="utf-8")
    watched.write_text(text.replace("<style>", f"<script>{WATCH}</script><style>", 1))
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu",
                   "--enable-logging=stderr", f"--user-data-dir={profile}",
                   "--remote-debugging-port=0", watched.as_uri()]  # fmt: skip
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            for line in process.stderr or ():
                if "TIMES [" in line:
                    loaded, drawn = json.loads(line.partition("TIMES ")[2].partition('"')[0])
                    return {"loaded": loaded / 1000, "all_drawn": drawn / 1000}
        finally:
            process.terminate()
            process.wait()
    return None


def measure(folder: Path, runs: int, steps: int) -> dict[str, Any]:
    make(folder / "outputs", runs, steps)
    started = time.perf_counter()
    records = find_runs([folder / "outputs"])
    found = gather(records, Options())
    read = time.perf_counter()
    page = write_report(found, folder / "report")
    done = time.perf_counter()
    size, library = page.stat().st_size, len(get_plotlyjs().encode())
    return {
        "runs": len(records),
        "cells": len(found.cells),
        "steps": steps,
        "seconds": {"gather": read - started, "write": done - read, "all": done - started},
        "megabytes": {"page": size / 1e6, "without_plotly": (size - library) / 1e6},
        "browser_seconds": load_seconds(page),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.runs, arguments.steps)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    seconds, size = found["seconds"], found["megabytes"]
    print(f"{found['runs']} runs of {found['steps']} steps, {found['cells']} cells")
    print(f"reading and comparing {seconds['gather']:.1f} s, writing {seconds['write']:.1f} s")
    print(f"page {size['page']:.1f} MB, {size['without_plotly']:.1f} MB without plotly.js")
    if found["browser_seconds"] is None:
        print("chromium not found: loading was not timed")
    else:
        times = found["browser_seconds"]
        print(f"loaded in {times['loaded']:.1f} s, all drawn in {times['all_drawn']:.1f} s")


if __name__ == "__main__":
    main()
