"""Run the study: what is missing of it, one core for each process; then print its table.

    python experiments/safeguard_promise/run.py                    # everything
    python experiments/safeguard_promise/run.py --worlds flow --objectives dpo --workers 1

Every rule gets the same eight tries on validation captions (seed 0); the best by reward is run
with five seeds on test captions. `results.csv` beside this file has a row for each finished run,
and what has one is not run again: stop it whenever you like.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from plan import OBJECTIVES, RULES, SEEDS, WORLDS, Cell, Words, base_of, cells, pairs_of

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
IMAGES = {"validation": 250, "test": 400}
SCORES = ("reward", "accuracy", "exact", "cleanliness")
AUDIT = ("step_rose", "winner_rose", "winner_change", "predicted_winner_change")


class Job(NamedTuple):
    """One run: a cell at one setting and seed, judged on one split."""

    split: str
    cell: Cell
    setting: Words
    seed: int

    @property
    def key(self) -> tuple[str, ...]:
        """Its columns in results.csv."""
        return (self.split, *self.cell, " ".join(self.setting), str(self.seed))


KEYS = ("split", "world", "objective", "rule", "setting", "seed")


def rows(file: Path) -> list[dict[str, str]]:
    """What has been measured so far."""
    if not file.is_file():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def searching(wanted: list[Cell]) -> Iterator[Job]:
    """Eight tries for each cell."""
    for cell in wanted:
        for setting in RULES[cell.rule].tries:
            yield Job("validation", cell, setting, 0)


def deciding(wanted: list[Cell], measured: list[dict[str, str]]) -> Iterator[Job]:
    """The best try of each cell, at all seeds; none before all of its tries are there."""
    for cell in wanted:
        tried = [
            row
            for row in measured
            if row["split"] == "validation"
            and (row["world"], row["objective"], row["rule"]) == tuple(cell)
        ]
        if len(tried) < len(RULES[cell.rule].tries):
            continue
        best = max(tried, key=lambda row: float(row["reward"]))
        for seed in SEEDS:
            yield Job("test", cell, tuple(best["setting"].split()), seed)


def run(job: Job, root: Path, extra: Words) -> dict[str, Any]:
    """Train, judge, and return the row."""
    import sdpo_exp

    folder = root / "-".join(job.key).replace(" ", ",").replace("/", "_")
    seed = (f"seed={job.seed}", f"run_dir='{folder}'")
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was stopped
    with (root / "log.txt").open("a") as log, redirect_stdout(log):
        result = sdpo_exp.train([*job.cell.words, *job.setting, *seed, *extra])
    return {**dict(zip(KEYS, job.key, strict=True)), **measured_of(result.folder, job)}


def measured_of(folder: Path, job: Job) -> dict[str, Any]:
    """The numbers of a finished run's row."""
    base, tuned = (
        judge(job.cell.world, None, job.split),
        judge.__wrapped__(job.cell.world, str(folder / "model"), job.split),
    )
    found: dict[str, Any] = {}
    for name in SCORES:
        change = tuned[name] - base[name]
        found[name] = change.mean()
        found[f"{name}_se"] = change.std(ddof=1) / len(change) ** 0.5
    table = rows(folder / "metrics.csv")
    found |= {name: _mean(table, f"audit/{name}") for name in AUDIT}
    found["lambda"] = _mean(table, "safeguard/lambda_mean")
    found["step_seconds"] = _mean(table, "perf/step_seconds")
    probe = json.loads((folder / "summary.json").read_text())["probe"]
    for name in ("winner_minus_ref", "margin", "implicit_accuracy"):
        found[name] = probe[f"probe/{name}"]["last"]
    for name in probe:
        if name.startswith("probe/t") and name.endswith("/winner_minus_ref"):
            found[f"drift_{name.split('/')[1]}"] = probe[name]["last"]
    return {name: f"{float(value):.6g}" for name, value in found.items()}


@lru_cache
def judge(world: str, model: str | None, split: str) -> dict[str, np.ndarray]:
    """Scores of an exported model, or of the base (None), which each process judges once."""
    import torch

    from sdpo_exp.testbed.evaluation import ExactReward
    from sdpo_exp.testbed.recipes import FAMILIES

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    drawn = WORLDS[world]
    backbone = FAMILIES[drawn.model](model or str(base_of(world)))
    return dict(ExactReward(split, IMAGES[split], drawn.guidance, drawn.steps)(backbone).scores)


def _mean(table: list[dict[str, str]], name: str) -> float:
    values = [float(row[name]) for row in table if row.get(name)]
    return float(np.mean(values)) if values else float("nan")


def add(row: dict[str, Any], file: Path) -> None:
    """Write a row at the end of results.csv."""
    new = not file.is_file()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def work(jobs: list[Job], options: argparse.Namespace) -> int:
    """Run what has no row yet; the number of runs that failed."""
    done = {tuple(row[name] for name in KEYS) for row in rows(options.results)}
    missing = [job for job in jobs if job.key not in done]
    failed = 0
    with ProcessPoolExecutor(options.workers) as pool:
        running = {
            pool.submit(run, job, options.root, tuple(options.extra)): job for job in missing
        }
        for number, future in enumerate(as_completed(running), start=1):
            job = running[future]
            try:
                row = future.result()
            except Exception as error:
                failed += 1
                print(f"{' '.join(job.key)}: FAILED: {error}", file=sys.stderr, flush=True)
                continue
            add(row, options.results)
            print(f"{number}/{len(missing)} {' '.join(job.key)}: {row['reward']}", flush=True)
    return failed


def main() -> None:
    """Tries, then decisive runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--root", type=Path, default=Path("outputs/safeguard_promise"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--extra", nargs="*", default=[], help="overrides for all runs")
    options = parser.parse_args()
    missing = [w for w in options.worlds if not (base_of(w).is_dir() and pairs_of(w).is_dir())]
    if missing:
        base, pairs = base_of(missing[0]), pairs_of(missing[0])
        sys.exit(f"no {base} or no {pairs}: the first commands of README.md make them")
    options.root.mkdir(parents=True, exist_ok=True)
    found = cells(tuple(options.worlds), tuple(options.objectives))
    wanted = [cell for cell in found if cell.rule in options.rules]
    failed = work(list(searching(wanted)), options)
    failed += work(list(deciding(wanted, rows(options.results))), options)
    if failed:
        sys.exit(f"{failed} runs failed; call again, or look at the messages above")


if __name__ == "__main__":
    main()
