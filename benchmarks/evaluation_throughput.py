"""Drawing and scoring prompts of the embedded world in batches, against one by one.

    python benchmarks/evaluation_throughput.py                 # 256 prompts, four minutes
    python benchmarks/evaluation_throughput.py --prompts 32

One by one is how the public evaluation scripts go: a pipeline call, a file and a scorer's call for
each image. Batched is what `evaluate` does, in one process and in two (`devices=2`). All draw the
same images with the same model, noises and scorers, one torch thread per process, and are timed
one after the other in one run, without the start of processes. Their images are compared. Prints a
table and writes json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sdpo_exp.cli.checkpoints.model_choice import ModelChoice, open_model
from sdpo_exp.cli.environment import describe_environment
from sdpo_exp.cli.evaluate.pictures import Pictures
from sdpo_exp.cli.workers import Rank, run_on_devices
from sdpo_exp.generation.drawing import DrawSettings, draw_in_batches
from sdpo_exp.generation.folder import ImageFolder
from sdpo_exp.generation.noise import Draw
from sdpo_exp.terminal.progress import chunks
from sdpo_exp.testbed.prompts import WorldCaptions
from sdpo_exp.testbed.scorer import ExactScorer

SETTINGS = DrawSettings(guidance=2.0, steps=8)


def all_draws(prompts: int) -> list[Draw]:
    """One image per caption."""
    return [Draw(p.text, p.index, 0) for p in WorldCaptions("test", prompts).prompts()]


def go(pipeline: Any, draws: Sequence[Draw], batch: int, store: ImageFolder) -> list[float]:
    """Seconds of drawing and writing, and of scoring, `batch` at a time; scores go to a file."""
    (store.folder / "images").mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    drawn = draw_in_batches(pipeline, draws, SETTINGS, batch)
    for draw, picture in chain.from_iterable(drawn):
        store.save(draw, picture)
    drawn = time.perf_counter()
    files = Pictures([store.file_of(draw) for draw in draws])
    for scorer in (ExactScorer("reward"), ExactScorer("accuracy")):
        for part in chunks(range(len(draws)), batch):
            scorer.score(files.batch(part, None), [draws[i].prompt for i in part])
    return [drawn - started, time.perf_counter() - drawn]


def share(rank: Rank, folder: str, prompts: int, batch: int) -> None:
    """What one process does; the first writes how long the slowest took."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    pipeline = open_model(ModelChoice(), rank.device).pipeline
    draws = all_draws(prompts)
    go(pipeline, draws[:2], min(batch, 2), ImageFolder(Path(folder) / "warm" / str(rank.rank)))
    rank.barrier()
    seconds = go(pipeline, draws[rank.rank :: rank.world], batch, ImageFolder(Path(folder)))
    (Path(folder) / f"{rank.rank}.json").write_text(json.dumps(seconds))


def timed(root: Path, processes: int, prompts: int, batch: int) -> dict[str, float]:
    """Seconds of the slowest process."""
    folder = root / f"{processes}-{batch}"
    run_on_devices(share, "cpu", processes, str(folder), prompts, batch)
    rows = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]
    drawing, scoring = max(rows, key=sum)
    return {"drawing": drawing, "scoring": scoring, "both": drawing + scoring}


def levels(root: Path, processes: int, prompts: int, batch: int) -> np.ndarray:
    """All images, as written."""
    store = ImageFolder(root / f"{processes}-{batch}")
    files = Pictures([store.file_of(draw) for draw in all_draws(prompts)])
    return np.stack([np.asarray(p) for p in files.batch(range(len(files)), None)]).astype(int)


def measure(prompts: int, batch: int) -> dict[str, Any]:
    """Each way once."""
    ways = {
        "one by one": (1, 1),
        "batched": (1, batch),
        "batched, two processes": (2, batch),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seconds = {name: timed(root, n, prompts, size) for name, (n, size) in ways.items()}
        reference, *others = (levels(root, n, prompts, size) for n, size in ways.values())
    gaps = [np.abs(reference - other) for other in others]
    assert max(gap.max() for gap in gaps) <= 1
    slow = seconds["one by one"]["both"]
    return {
        "prompts": prompts,
        "batch": batch,
        "seconds": seconds,
        "ratio": {name: slow / way["both"] for name, way in seconds.items()},
        "pixels_one_level_off": max(float((gap > 0).mean()) for gap in gaps),
        **describe_environment(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/evaluation_throughput.json"))
    options = parser.parse_args()
    found = measure(options.prompts, options.batch)
    print(f"{'seconds':24}{'drawing':>10}{'scoring':>10}{'both':>10}{'ratio':>10}")
    for name, seconds in found["seconds"].items():
        cells = [*seconds.values(), found["ratio"][name]]
        print(f"{name:24}" + "".join(f"{value:10.2f}" for value in cells))
    print(f"pixels off by one level, at most: {100 * found['pixels_one_level_off']:.4f} %")
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
