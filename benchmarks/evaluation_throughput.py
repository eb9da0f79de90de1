"""Drawing and scoring prompts of the embedded world in batches, against one by one.

    python benchmarks/evaluation_throughput.py                 # 256 prompts; three minutes on a core
    python benchmarks/evaluation_throughput.py --prompts 32 --rounds 1

One by one is how the public evaluation scripts go: a pipeline call, a file and a scorer's call for
each image. Both ways go in turns over the same prompts, in one process, with the same model, noises
and scorers; their images are compared. Prints a table and writes json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sdpo_exp.cli.environment import describe_environment
from sdpo_exp.cli.generate_set import chunks
from sdpo_exp.cli.model_choice import ModelChoice, open_model
from sdpo_exp.cli.pictures import Pictures
from sdpo_exp.generation.drawing import DrawSettings, as_pictures, draw_batch
from sdpo_exp.generation.folder import ImageFolder
from sdpo_exp.generation.noise import Draw
from sdpo_exp.testbed.prompts import WorldCaptions
from sdpo_exp.testbed.scorer import ExactScorer

SETTINGS = DrawSettings(guidance=2.0, steps=8)


class Way(NamedTuple):
    """Seconds of drawing and of scoring, and what came out."""

    drawing: float
    scoring: float
    images: np.ndarray
    scores: np.ndarray


def go(pipeline: Any, draws: Sequence[Draw], batch: int, scorers: Sequence[Any]) -> Way:
    """Draw, write and score `draws`, `batch` at a time."""
    with tempfile.TemporaryDirectory() as folder:
        store = ImageFolder(Path(folder))
        (Path(folder) / "images").mkdir()
        started = time.perf_counter()
        for group in chunks(draws, batch):
            pictures = as_pictures(draw_batch(pipeline, group, SETTINGS))
            for draw, picture in zip(group, pictures, strict=True):
                store.save(draw, picture)
        drawn = time.perf_counter()
        files = Pictures([store.file_of(draw) for draw in draws])
        scores = [
            torch.cat(
                [
                    scorer.score(files.batch(part, None), [draws[i].prompt for i in part])
                    for part in chunks(range(len(draws)), batch)
                ]
            )
            for scorer in scorers
        ]
        scored = time.perf_counter()
        images = [np.asarray(picture) for picture in files.batch(range(len(draws)), None)]
    return Way(
        drawn - started, scored - drawn, np.stack(images).astype(int), torch.stack(scores).numpy()
    )


def measure(prompts: int, rounds: int, batch: int) -> dict[str, Any]:
    """Both ways in turns, over a part of the prompts each round."""
    pipeline = open_model(ModelChoice(), "cpu").pipeline
    scorers = [ExactScorer("reward"), ExactScorer("accuracy")]
    draws = [Draw(p.text, p.index, 0) for p in WorldCaptions("test", prompts).prompts()]
    go(pipeline, draws[:2], 2, scorers)  # templates of the checker, kernels
    totals: dict[str, list[float]] = {"one by one": [0.0, 0.0], "batched": [0.0, 0.0]}
    levels, gap = 0.0, 0.0
    for part in chunks(draws, -(-prompts // rounds)):
        single, together = go(pipeline, part, 1, scorers), go(pipeline, part, batch, scorers)
        for name, way in (("one by one", single), ("batched", together)):
            totals[name][0] += way.drawing
            totals[name][1] += way.scoring
        levels += float((np.abs(single.images - together.images) > 0).sum())
        assert np.abs(single.images - together.images).max() <= 1
        gap = max(gap, float(np.abs(single.scores - together.scores).max()))
    size = prompts * together.images[0].size
    return {
        "prompts": prompts,
        "batch": batch,
        "rounds": rounds,
        "seconds": {
            name: {"drawing": drawing, "scoring": scoring, "both": drawing + scoring}
            for name, (drawing, scoring) in totals.items()
        },
        "ratio": sum(totals["one by one"]) / sum(totals["batched"]),
        "pixels_one_level_off": levels / size,
        "largest_score_difference": gap,
        **describe_environment(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/evaluation_throughput.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    found = measure(options.prompts, options.rounds, options.batch)
    print(f"{'seconds':12}{'drawing':>10}{'scoring':>10}{'both':>10}")
    for name, seconds in found["seconds"].items():
        print(f"{name:12}" + "".join(f"{value:10.2f}" for value in seconds.values()))
    print(f"ratio {found['ratio']:.2f}, over {found['prompts']} prompts")
    print(f"pixels off by one level: {100 * found['pixels_one_level_off']:.4f} %")
    options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
