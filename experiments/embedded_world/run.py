"""Run the study: every cell that is not finished yet, several at a time, one core each.

    python experiments/embedded_world/run.py                       # all pair sets, seeds 0 to 2
    python experiments/embedded_world/run.py --data tiny --workers 1

Stop it whenever you like; the next call does what is missing. Then: table.py.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sdpo_exp.reports.before_after import write_evaluation
from sdpo_exp.types import ModelScores

PAIR_SETS = ("tiny", "tiny_sampled", "tiny_hard", "tiny_flawed")
# Images are judged here and not by each run, which would generate the base's again and again.
SPLIT = "test"
IMAGES = 256
# A matched control gets the constant weight that the safeguard had on average, so it waits for it.
MATCHED = {"dpo-constant-mean": "dpo-on", "dpo-constant-half": "dpo-on-half"}
CELLS: dict[str, tuple[str, ...]] = {
    "dpo-on": ("objective=dpo", "safeguard=on"),
    "dpo-off": ("objective=dpo", "safeguard=off"),
    "sft": ("objective=sft", "safeguard=off"),
    "dmpo-on": ("objective=dmpo", "safeguard=on"),
    "dmpo-off": ("objective=dmpo", "safeguard=off"),
    "dspo-on": ("objective=dspo", "safeguard=on"),
    "dspo-off": ("objective=dspo", "safeguard=off"),
    "dpo-constant-0": ("objective=dpo", "safeguard=constant", "safeguard.weight=0.0"),
    "dpo-constant-mean": ("objective=dpo", "safeguard=constant"),
    "dpo-on-half": ("objective=dpo", "safeguard=on", "safeguard.mu=0.5"),
    "dpo-constant-half": ("objective=dpo", "safeguard=constant"),
}
# Found on validation captions (search.py), where imperfect winners made a looser safeguard better.
ONLY_ON = {"dpo-on-half": "tiny_flawed", "dpo-constant-half": "tiny_flawed"}


class Job(NamedTuple):
    """One run of the study."""

    root: Path
    data: str
    cell: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where the run goes, the same in every call."""
        return self.root / self.data / self.cell / f"seed{self.seed}"

    @property
    def trained(self) -> bool:
        """Whether an earlier call completed the training."""
        summary = self.folder / "summary.json"
        return summary.is_file() and json.loads(summary.read_text())["status"] == "finished"

    def judged(self, guidance: float) -> bool:
        """Whether an earlier call judged its images."""
        return (scores_folder(self.folder, guidance) / "evaluation.json").is_file()


def jobs(root: Path, pair_sets: list[str], cells: list[str], seeds: list[int]) -> Iterator[Job]:
    """All runs; a matched control stands far behind the run that it takes its weight from."""
    for data in pair_sets:
        for cell in (c for c in CELLS if c in cells and ONLY_ON.get(c, data) == data):
            for seed in seeds:
                yield Job(root, data, cell, seed)


def mean_lambda(folder: Path) -> float:
    """Mean over all steps of a finished run."""
    with (folder / "metrics.csv").open(newline="") as stream:
        values = [row["safeguard/lambda_mean"] for row in csv.DictReader(stream)]
    return float(np.mean([float(value) for value in values if value]))


def command(job: Job, extra: list[str]) -> list[str]:
    """The command line of a job."""
    arguments = [f"data={job.data}", *CELLS[job.cell], f"seed={job.seed}", f"run_dir={job.folder}"]
    if job.cell in MATCHED:
        weight = mean_lambda(job._replace(cell=MATCHED[job.cell]).folder)
        arguments.append(f"safeguard.weight={weight:.4f}")
    return [sys.executable, "-m", "sdpo_exp", "evaluation=off", *arguments, *extra]


def scores_folder(folder: Path, guidance: float) -> Path:
    """Where a run's images are judged."""
    return folder / f"guidance{guidance:g}"


@lru_cache
def judge(model: str | None, guidance: float, images: int) -> ModelScores:
    """Scores of an exported model, or of the base (None), which each worker judges once."""
    import torch

    from sdpo_exp.models.tiny import TinyBackbone
    from sdpo_exp.testbed.evaluation import ExactReward

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    return ExactReward(SPLIT, images, guidance)(TinyBackbone(model))


def evaluate(job: Job, guidances: list[float], images: int) -> None:
    """Write scores and comparison with the base, for each guidance that is missing."""
    for guidance in guidances:
        if job.judged(guidance):
            continue
        base = judge(None, guidance, images)
        tuned = judge.__wrapped__(str(job.folder / "model"), guidance, images)
        folder = scores_folder(job.folder, guidance)
        folder.mkdir(exist_ok=True)
        what = f"{images} images of {SPLIT} captions, guidance {guidance:g}"
        write_evaluation(folder, what, base.prompts, base.scores, tuned.scores)


def run(job: Job, guidances: list[float], images: int, extra: list[str]) -> str:
    """Run one job unless it is finished; an unfinished folder of an earlier call is made anew."""
    name = f"{job.data} {job.cell} seed {job.seed}"
    if job.trained and all(map(job.judged, guidances)):
        return f"{name}: finished before"
    if not job.trained:
        if job.cell in MATCHED and not job._replace(cell=MATCHED[job.cell]).trained:
            return f"{name}: skipped, its {MATCHED[job.cell]} run is not finished"
        shutil.rmtree(job.folder, ignore_errors=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        line = command(job, extra)
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{name}: FAILED\n{done.stderr[-2000:]}"
    evaluate(job, guidances, images)
    return f"{name}: done"


def main() -> None:
    """Run what is missing and say what became of each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=PAIR_SETS, default=list(PAIR_SETS))
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--root", type=Path, default=Path("outputs/embedded_world"))
    parser.add_argument("--guidances", nargs="+", type=float, default=[2.0])
    parser.add_argument("--images", type=int, default=IMAGES, help="images per model")
    parser.add_argument("--extra", nargs="*", default=[], help="overrides for all runs")
    options = parser.parse_args()
    todo = list(jobs(options.root, options.data, options.cells, options.seeds))
    one = partial(run, guidances=options.guidances, images=options.images, extra=options.extra)
    with ProcessPoolExecutor(options.workers) as pool:
        for line in pool.map(one, todo):
            print(line, flush=True)
    if not all(job.trained and all(map(job.judged, options.guidances)) for job in todo):
        sys.exit("some runs are missing; call again, or look at the messages above")


if __name__ == "__main__":
    main()
