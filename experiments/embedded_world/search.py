"""Look for a setting in which the losers teach something, on validation captions, one seed.

    python experiments/embedded_world/search.py            # runs what is missing, prints the table

search.md has all that was tried before the study's settings were fixed, by this script or not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

JUDGED = ("evaluation.split=validation", "evaluation.n=250", "callbacks.probe.every_n_steps=120")
SFT = ("objective=sft", "safeguard=off")
FLAWS = ("data.train.flaws=1",)
TRIED: dict[str, tuple[str, ...]] = {
    "sft, lr 5e-5": (*SFT, "lr=5e-5"),
    "sft, lr 1e-4": (*SFT, "lr=1e-4"),
    "sft, lr 2e-4": (*SFT, "lr=2e-4"),
    "dpo on, lr 2e-4": (),
    "dpo on, lr 3e-4": ("lr=3e-4",),
    "dpo off, lr 1e-4": ("safeguard=off", "lr=1e-4"),
    "dpo off, lr 2e-4": ("safeguard=off",),
    "dpo on, mu 0.5": ("safeguard.mu=0.5",),
    "dpo on, beta 2000": ("objective.beta=2000",),
    "flaws, sft, lr 1e-4": (*FLAWS, *SFT),
    "flaws, dpo on": FLAWS,
    "flaws, dpo on, mu 0.5": (*FLAWS, "safeguard.mu=0.5"),
    "flaws, dpo on, mu 0.3": (*FLAWS, "safeguard.mu=0.3"),
    "flaws, dpo on, mu 0.5, lr 1e-4": (*FLAWS, "safeguard.mu=0.5", "lr=1e-4"),
    "flaws, dpo off": (*FLAWS, "safeguard=off"),
    "flaws, dpo off, lr 1e-4": (*FLAWS, "safeguard=off", "lr=1e-4"),
    "flaws, dpo constant 0.65": (*FLAWS, "safeguard=constant", "safeguard.weight=0.65"),
}


def folder(root: Path, name: str) -> Path:
    """Where a setting's run goes."""
    return root / name.replace(", ", "-").replace(" ", "_")


def summary(run: Path) -> dict[str, Any] | None:
    """summary.json of a finished run."""
    path = run / "summary.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return content if content.get("status") == "finished" and content.get("evaluation") else None


def train(root: Path, name: str, extra: list[str]) -> None:
    """Run one setting unless it is finished."""
    run = folder(root, name)
    if summary(run) is not None:
        return
    line = [sys.executable, "-m", "sdpo_exp", *JUDGED, *TRIED[name], f"run_dir={run}", *extra]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: FAILED\n{done.stderr[-2000:]}", file=sys.stderr)


def row(root: Path, name: str) -> str:
    """The table's line of a setting."""
    found = summary(folder(root, name))
    if found is None:
        return f"| {name} | not run | | | | | |"
    scores, probe, train = found["evaluation"]["scores"], found["probe"], found["train"]
    change = {key: scores[key]["change"] for key in ("reward", "accuracy", "cleanliness")}
    cells = [f"{change['reward']['mean']:+.3f} ({change['reward']['standard_error']:.3f})"]
    cells += [f"{change[key]['mean']:+.3f}" for key in ("accuracy", "cleanliness")]
    cells += [f"{probe['probe/' + key]['last']:+.4f}" for key in ("winner_minus_ref", "margin")]
    cells.append(f"{train['safeguard/lambda_mean']:.2f}")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("outputs/embedded_world_search"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=TRIED, default=list(TRIED))
    parser.add_argument("--extra", nargs="*", default=[], help="overrides for all runs")
    options = parser.parse_args()
    with ThreadPoolExecutor(options.workers) as pool:
        list(pool.map(lambda name: train(options.root, name, options.extra), options.only))
    print("| setting | reward (s.e.) | accuracy | cleanliness | winner drift | margin | lambda |")
    print("|---|---|---|---|---|---|---|")
    for name in options.only:
        print(row(options.root, name))


if __name__ == "__main__":
    main()
