"""Train what is missing, evaluate what is missing, compare all with the base and each other.

    python experiments/comparison/run.py                    # nine runs, 40 minutes on one idle core
    python experiments/comparison/run.py --seeds 0 --extra max_steps=4 --images 8

Stop it whenever you like; the next call does what is missing. The tables and plots of the two
comparisons are copied beside this file with --publish.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CELLS = {
    "dpo": ("objective=dpo", "safeguard=off"),
    "dpo_safeguard": ("objective=dpo", "safeguard=on"),
    "sft": ("objective=sft", "safeguard=off"),
}
METRICS = "metric=[tiny_reward,tiny_accuracy]"


def call(*arguments: str) -> None:
    """One command of the package; its last words if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", *arguments]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stderr[-2000:]}")


def trained(folder: Path) -> bool:
    """Whether an earlier call completed the training."""
    summary = folder / "summary.json"
    return summary.is_file() and json.loads(summary.read_text())["status"] == "finished"


def evaluated(root: Path, name: str, images: int, *model: str) -> str:
    """The folder of a model's evaluation; what is drawn is not drawn again."""
    folder = root / "evaluate" / name
    if not (folder / "scores.parquet").is_file():
        prompts = (f"prompts.n={images}", METRICS, f"label={name}", f"folder={folder}")
        call("sdpo_exp.evaluate", *model, *prompts)
    return str(folder)


def compare(root: Path, name: str, folders: Sequence[str], publish: bool) -> None:
    """The first against each of the others, once."""
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    call("sdpo_exp.compare", *folders, f"folder={folder}")
    print((folder / "comparison.md").read_text(), flush=True)
    if publish:
        for kind in ("md", "json", "png"):
            target = Path(__file__).parent / f"{name}.{kind}"
            shutil.copyfile(folder / f"comparison.{kind}", target)


def main() -> None:
    """Everything, step by step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=256, help="test captions, one image each")
    parser.add_argument("--root", type=Path, default=Path("outputs/comparison"))
    parser.add_argument("--publish", action="store_true", help="copy the results beside this file")
    parser.add_argument("--extra", nargs="*", default=[], help="overrides for all trainings")
    options = parser.parse_args()
    models = [evaluated(options.root, "base", options.images)]
    for seed in options.seeds:
        for cell, axes in CELLS.items():
            run = options.root / "runs" / cell / f"seed{seed}"
            if not trained(run):
                fixed = (f"seed={seed}", f"run_dir={run}", "evaluation=off")
                call("sdpo_exp", *axes, *fixed, *options.extra)
            name = f"{cell}_seed{seed}"
            models.append(evaluated(options.root, name, options.images, f"checkpoint={run}"))
            print(f"{name}: there", flush=True)
    compare(options.root, "against_base", models, options.publish)
    for seed in options.seeds:
        pair = [str(options.root / "evaluate" / f"{cell}_seed{seed}") for cell in CELLS]
        compare(options.root, f"against_dpo_seed{seed}", pair, options.publish and seed == 0)


if __name__ == "__main__":
    main()
