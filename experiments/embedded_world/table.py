"""Tables of the study: what every cell did to winners and images, and which cells differ.

    python experiments/embedded_world/table.py                # runs in outputs/embedded_world

Writes results.csv, one row per run, and table.md, two tables per pair set, next to this script.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from omegaconf import OmegaConf
from run import ONLY_ON, PAIR_SETS, Job, mean_lambda, scores_folder
from scipy import stats

from sdpo_exp.evaluation.statistics import Estimate, estimate, paired_change
from sdpo_exp.testbed.attributes import ATTRIBUTES

# In the order of the tables; all of run.py's.
CELLS = (
    *("sft", "dpo-off", "dpo-on", "dmpo-off", "dmpo-on", "dspo-off", "dspo-on"),
    *("dpo-constant-0", "dpo-constant-mean", "dpo-on-half", "dpo-constant-half"),
)
CONTRASTS = (
    *(("dpo-on", other) for other in ("dpo-off", "sft", "dpo-constant-mean", "dpo-constant-0")),
    *(("dpo-on-half", other) for other in ("dpo-off", "sft", "dpo-constant-half", "dpo-on")),
    *(("dmpo-on", "dmpo-off"), ("dmpo-on", "sft")),
)
PROBE = ("winner_minus_ref", "loser_minus_ref", "margin", "implicit_accuracy")
CHANGES = ("reward", "accuracy", "cleanliness", "exact")
SCORES = (*CHANGES, *ATTRIBUTES)
CELL_HEADER = (
    *("cell", "runs", "winner drift", "margin", "implicit accuracy", "lambda"),
    *("reward change", "accuracy change", "cleanliness change"),
)
CONTRAST_HEADER = (
    *("contrast", "seeds", "reward difference", "per seed", "interval over seeds"),
    *("p", "p (Holm)"),
)
CAPTION = """# Tables of the embedded-world study

Written by `table.py` from {runs} finished runs; one row each in `results.csv`.

Means over the runs of a cell, one per training seed; `(a to b)` and `per seed` are the lowest and
highest seed's mean. Winner error, margin and implicit accuracy: held-out probe after the last step.
Lambda: mean over all steps; `sft` has no loser to weigh. Changes: tuned minus base (reward
{reward_base:.3f}) on the same {prompts} prompts and noises, guidance {guidance:g}.

`[a, b]` and `±` are 95 % t intervals over prompts, after each prompt was averaged over the seeds.
They cover which prompts were drawn and **not** which seeds were trained: for those see the range,
and for contrasts the 95 % t interval over the seeds' means, which with three seeds is wide.
Contrasts are paired by prompt and seed; p is a paired t test over prompts, in `p (Holm)` corrected
for all contrasts of its pair set."""
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished run: `row` for results.csv, and `base` and `tuned` scores (n,) by name."""

    job: Job
    row: Row
    prompts: tuple[str, ...]
    base: dict[str, np.ndarray]
    tuned: dict[str, np.ndarray]


def label(cell: str) -> str:
    """A cell's name for readers."""
    return cell.replace("-", " ")


def finished_jobs(root: Path, guidance: float) -> Iterator[Job]:
    """Trained and judged runs below `root`, in the order of the tables."""
    for data in PAIR_SETS:
        for cell in CELLS:
            seeds = sorted(int(path.name[4:]) for path in (root / data / cell).glob("seed*"))
            jobs = [Job(root, data, cell, seed) for seed in seeds]
            yield from (job for job in jobs if job.trained and job.judged(guidance))


def read_runs(root: Path, guidance: float) -> list[Run]:
    """All finished runs; exits with a message where there is nothing to compare."""
    runs = [read_run(job, guidance) for job in finished_jobs(root, guidance)]
    if not runs:
        sys.exit(f"no finished run judged at guidance {guidance:g} below {root}; see run.py")
    for run in runs:
        # Runs are compared row by row, so a different --images would compare other prompts.
        if run.prompts != runs[0].prompts:
            sys.exit(f"{run.job.folder} and {runs[0].job.folder} were judged on other prompts")
    return runs


def read_run(job: Job, guidance: float) -> Run:
    """One run with its scores."""
    with (scores_folder(job.folder, guidance) / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    base, tuned = (
        {n: np.array([float(r[n]) for r in rows if r["model"] == model]) for n in SCORES}
        for model in ("base", "tuned")
    )
    row = {"data": job.data, "cell": job.cell, "seed": job.seed, "guidance": guidance}
    row |= _training(job.folder) | _evaluation(base, tuned)
    return Run(job, row, tuple(r["prompt"] for r in rows if r["model"] == "tuned"), base, tuned)


def _training(folder: Path) -> Row:
    """Columns about lambda and the last probe visit."""
    weight = OmegaConf.load(folder / "config.yaml").safeguard.get("weight")
    probe = json.loads((folder / "summary.json").read_text())["probe"]
    row: Row = {"lambda_mean": mean_lambda(folder), "constant_weight": weight}
    for name in PROBE:
        row[name] = probe[f"probe/{name}"]["last"]
        if (error := probe.get(f"probe/{name}_se")) is not None:
            row[f"{name}_se"] = error["last"]
    return row


def _evaluation(base: dict[str, np.ndarray], tuned: dict[str, np.ndarray]) -> Row:
    """Columns about the images."""
    change = {name: paired_change(base[name], tuned[name]) for name in CHANGES}
    row: Row = {"prompts": len(base["reward"])}
    row |= {"reward_base": base["reward"].mean(), "reward_tuned": tuned["reward"].mean()}
    row |= {"reward_change_se": change["reward"].standard_error}
    row |= {f"{name}_change": change[name].mean for name in CHANGES}
    return row | {f"{name}_tuned": tuned[name].mean() for name in ATTRIBUTES}


def write_results(path: Path, runs: list[Run]) -> None:
    """results.csv."""
    rows = [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.row.items()} for r in runs]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def change_over_seeds(runs: Sequence[Run], name: str) -> np.ndarray:
    """Tuned minus base per prompt (n,), averaged over the runs of one cell."""
    return np.mean([run.tuned[name] - run.base[name] for run in runs], axis=0)


def contrasts(cells: dict[str, list[Run]]) -> dict[str, np.ndarray]:
    """First cell's reward minus the second's, (shared seeds, n); left out without such seeds."""
    found = {}
    for first, second in CONTRASTS:
        ours, theirs = ({r.job.seed: r for r in cells[cell]} for cell in (first, second))
        if seeds := sorted(ours.keys() & theirs.keys()):
            pairs = [ours[s].tuned["reward"] - theirs[s].tuned["reward"] for s in seeds]
            found[f"{label(first)} - {label(second)}"] = np.stack(pairs)
    return found


def paired_p(differences: np.ndarray) -> float:
    """Two-sided p of Student's paired t test on differences (n,); 1 where it says nothing."""
    silent = len(differences) < 2 or np.ptp(differences) < 1e-12
    return 1.0 if silent else float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjustment of m p values (m,), in their order."""
    raw = np.asarray(p_values, dtype=float)
    order = np.argsort(raw)
    scaled = raw[order] * np.arange(len(raw), 0, -1)
    adjusted = np.empty_like(raw)
    # Monotone: a hypothesis is rejected only after all with smaller p values.
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def cell_row(cell: str, runs: list[Run]) -> list[str]:
    """A cell's line of the first table."""
    if not runs:
        return [label(cell), "0", *["-"] * (len(CELL_HEADER) - 2)]
    mean = {name: np.mean([run.row[name] for run in runs]) for name in (*PROBE, "lambda_mean")}
    reward, accuracy, clean = (estimate(change_over_seeds(runs, name)) for name in CHANGES[:3])
    return [
        *(label(cell), str(len(runs))),
        f"{mean['winner_minus_ref']:+.4f} ({_range([r.row['winner_minus_ref'] for r in runs], 4)})",
        *(f"{mean['margin']:+.4f}", f"{mean['implicit_accuracy']:.2f}"),
        "-" if cell == "sft" else f"{mean['lambda_mean']:.2f}",
        f"{_interval(reward)} ({_range([run.row['reward_change'] for run in runs])})",
        *(f"{e.mean:+.3f} ± {e.high - e.mean:.3f}" for e in (accuracy, clean)),
    ]


def contrast_rows(cells: dict[str, list[Run]]) -> list[list[str]]:
    """Lines of the second table."""
    found = contrasts(cells)
    means = [pairs.mean(axis=0) for pairs in found.values()]
    p_values = [paired_p(mean) for mean in means]
    return [
        [
            *(name, str(len(found[name])), _interval(estimate(mean))),
            *(_range(found[name].mean(axis=1)), _over_seeds(found[name].mean(axis=1))),
            *(_p(p), _p(adjusted)),
        ]
        for name, mean, p, adjusted in zip(found, means, p_values, holm(p_values), strict=True)
    ]


def _interval(e: Estimate) -> str:
    return f"{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def _over_seeds(means: np.ndarray) -> str:
    e = estimate(means)
    return "-" if len(means) < 2 else f"[{e.low:+.3f}, {e.high:+.3f}]"


def _range(values: Sequence[float] | np.ndarray, digits: int = 3) -> str:
    return f"{min(values):+.{digits}f} to {max(values):+.{digits}f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def markdown(header: Sequence[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    ruler = "|" + "---|" * len(header)
    return ["| " + " | ".join(header) + " |", ruler, *("| " + " | ".join(r) + " |" for r in rows)]


def section(data: str, runs: list[Run]) -> list[str]:
    """Both tables of a pair set."""
    cells = {cell: [run for run in runs if run.job.cell == cell] for cell in CELLS}
    here = [cell for cell in CELLS if ONLY_ON.get(cell, data) == data]
    rows = [cell_row(cell, cells[cell]) for cell in here]
    lines = ["", f"## {data}", "", *markdown(CELL_HEADER, rows)]
    if rows := contrast_rows(cells):
        lines += ["", *markdown(CONTRAST_HEADER, rows)]
    return lines


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path("outputs/embedded_world"))
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    runs = read_runs(options.root, options.guidance)
    lines = [CAPTION.format(runs=len(runs), **runs[0].row)]
    for data, found in groupby(runs, key=lambda run: run.job.data):
        lines += section(data, list(found))
    options.out.mkdir(parents=True, exist_ok=True)
    write_results(options.out / "results.csv", runs)
    (options.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(runs)} runs: {options.out / 'results.csv'}, {options.out / 'table.md'}")


if __name__ == "__main__":
    main()
