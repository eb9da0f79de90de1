"""Step time with and without a cache of frozen work, side by side in one process, on a CPU.

    python -m benchmarks.cache_step_time

A tiny checkpoint in SD 1.5's format, all of its widths an eighth of SD 1.5's and all of its depths
SD 1.5's own, with random weights, at 128 px, on a folder of images. The cache is made by
`sdpo_exp.prepare` itself. A step is a whole one, reading its pairs included: images or cached rows,
VAE and text encoder or cached tensors, reference, policy, backward, optimiser. Steps of the two
alternate, so that what else the machine does falls on both; their losses are compared as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from sdpo_exp.cli.build import build_datamodule, build_module
from sdpo_exp.cli.prepare.run import prepare_into
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.composition import compose_cell
from sdpo_exp.data.keyed import KeyedRow, collate
from sdpo_exp.types import PairKey
from tests.checkpoints import BETAS, clip_tokenizer

RESULT = Path(__file__).parent / "results" / "cache_step_time.json"
PAIRS = (4, 16)  # of a step
TUNINGS = ("full", "lora")


def make_checkpoint(folder: Path) -> None:
    """SD 1.5 at an eighth of its widths."""
    torch.manual_seed(0)
    down = "DownEncoderBlock2D"
    vae = AutoencoderKL(
        latent_channels=4,
        block_out_channels=(16, 32, 64, 64),
        down_block_types=(down,) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(40, 80, 160, 160),
        cross_attention_dim=96,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=96, intermediate_size=384, num_hidden_layers=12,
        num_attention_heads=12, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def make_pairs(folder: Path, count: int, side: int) -> None:
    """A folder of noise images, a quarter larger than they are trained at."""
    numbers = np.random.default_rng(0)
    for half in ("winner", "loser"):
        (folder / half).mkdir(parents=True)
        for i in range(count):
            pixels = numbers.integers(0, 256, (side * 5 // 4, side * 5 // 4, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / half / f"{i:04d}.jpg")
    lines = [f"{i:04d}.jpg,a photograph of thing number {i}" for i in range(count)]
    (folder / "captions.csv").write_text("\n".join(["file,caption", *lines]))


def composed(name: str, folder: Path, side: int, pairs: int, *more: str) -> Any:
    """The configuration of the training, or of the command that makes its cache."""
    words = ["model=sd15", f"model.pretrained={folder / 'sd15'}", "data=folder",
             f"data.train.path={folder / 'pairs'}", f"resolution={side}", "data.num_workers=0",
             f"data.micro_batch={pairs}", f"effective_batch={pairs}",
             "torch_threads=1", "trainer.precision=32-true"]  # fmt: skip
    found = compose_cell(name, [*words, *more])
    assert found.config is not None, found.problems
    return found.config


def stepper(config: Any) -> Callable[[int], tuple[float, float]]:
    """From a step's number to its seconds and its loss."""
    torch.manual_seed(0)
    data = build_datamodule(config)
    module = build_module(config, data.cache)
    rows = data._keyed(data.train, 0, 0.0)
    optimizer = module.make_optimizer([p for p in module.policy.parameters() if p.requires_grad])
    size, pairs = len(data.train), config.effective_batch

    def step(number: int) -> tuple[float, float]:
        began = time.perf_counter()
        places = range(number * pairs, (number + 1) * pairs)
        read = [rows[PairKey(0, place, place % size)] for place in places]
        batch = collate([row for row in read if isinstance(row, KeyedRow)])
        loss = module.training_step(batch, number)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began, float(loss.detach())

    return step


def measure(folder: Path, side: int, steps: int, warm_up: int) -> dict[str, Any]:
    """Both ways of tuning, at few and more pairs a step, by one cache."""
    make_checkpoint(folder / "sd15")
    make_pairs(folder / "pairs", 64, side)
    cache = folder / "cache"
    prepare_into(composed("prepare", folder, side, PAIRS[0], f"out={cache}"), cache)
    return {
        "model": "SD 1.5's format at an eighth of its widths",
        "resolution": side,
        "steps": steps,
        "cells": [
            side_by_side(folder, side, steps, warm_up, tuning, pairs)
            for tuning in TUNINGS
            for pairs in PAIRS
        ],
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                    "threads": torch.get_num_threads(), "torch": torch.__version__,
                    "python": platform.python_version()},
    }  # fmt: skip


def side_by_side(
    folder: Path, side: int, steps: int, warm_up: int, tuning: str, pairs: int
) -> dict[str, Any]:
    """Seconds of a step of either kind, medians over alternating steps."""
    words = ("train", folder, side, pairs, f"tuning={tuning}")
    kinds = {
        "live": stepper(composed(*words)),
        "cached": stepper(composed(*words, f"data.cache={folder / 'cache'}")),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    equal = True
    for number in range(warm_up + steps):
        found = {name: step(number) for name, step in kinds.items()}
        equal = equal and found["live"][1] == found["cached"][1]
        if number >= warm_up:
            for name, (took, _) in found.items():
                seconds[name].append(took)
    medians = {name: statistics.median(took) for name, took in seconds.items()}
    ratios = [a / b for a, b in zip(seconds["live"], seconds["cached"], strict=True)]
    return {
        "tuning": tuning,
        "pairs": pairs,
        "seconds": medians,
        "ratio": medians["live"] / medians["cached"],
        "ratio_quartiles": statistics.quantiles(ratios, n=4),
        "losses_equal": equal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    register_resolvers()
    with tempfile.TemporaryDirectory() as folder:
        sizes = arguments.resolution, arguments.steps, arguments.warm_up
        found = measure(Path(folder), *sizes)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    for cell in found["cells"]:
        seconds = cell["seconds"]
        print(
            f"{cell['tuning']}, {cell['pairs']} pairs: {seconds['live']:.3f} s a step without "
            f"the cache, {seconds['cached']:.3f} s with it; ratio {cell['ratio']:.2f}"
        )
    if not all(cell["losses_equal"] for cell in found["cells"]):
        sys.exit("the losses differ")


if __name__ == "__main__":
    main()
