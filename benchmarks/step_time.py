"""Step time and peak memory at full size with random weights, on a GPU.

    python benchmarks/step_time.py --model sd15 --micro-batch 4
    python benchmarks/step_time.py --model sdxl --micro-batch 1

Cells: full and LoRA tuning, gradient checkpointing off and on, torch.compile off and on. Each runs
in a process of its own, so that peaks do not mix and one that is out of memory ends alone. A step
is a whole one: VAE, text encoders, reference, policy, backward, clipping, optimiser. `--small`
takes a few-layer network instead, to try the script on a CPU. Ratios are against the first cell.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from transformers.optimization import Adafactor

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.full_size import build_unet
from benchmarks.ovis_u1 import random_ovis_u1
from sdpo_exp.models.forward_process import VPProcess
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.sdxl import StableDiffusionXL
from sdpo_exp.models.stable_diffusion import StableDiffusion
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.safeguard import PreserveWinner
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Geometry, PairBatch, PairKey

RESOLUTION = {"sd15": 512, "sdxl": 1024, "ovis_u1": 1024}
CELLS = [
    {"tuning": tuning, "checkpointing": checkpointing, "compile": compiled}
    for tuning, checkpointing, compiled in itertools.product(
        ("full", "lora"), (False, True), (False, True)
    )
]
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
          "num_attention_heads": 12, "projection_dim": 768, "vocab_size": 49408}  # fmt: skip
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
          "num_attention_heads": 20, "projection_dim": 1280, "vocab_size": 49408}  # fmt: skip


class RandomIds:
    """A tokenizer's place: 77 random ids per prompt."""

    model_max_length = 77

    def __call__(self, prompts: list[str], **_: Any) -> Any:
        ids = torch.randint(0, 49000, (len(prompts), 77))
        return argparse.Namespace(input_ids=ids)


def random_backbone(model: str, small: bool, device: str) -> Any:
    """The family's own class around networks that were never trained."""
    if model == "ovis_u1":
        return random_ovis_u1(small, device, _vae(small, device, force_upcast=False))
    kind = StableDiffusionXL if model == "sdxl" else StableDiffusion
    backbone: Any = kind.__new__(kind)
    backbone.vae = _vae(small, device, force_upcast=model == "sd15")
    with torch.device(device):
        backbone.denoiser = _small_unet(model) if small else build_unet(model, device)
        backbone.text_encoder = CLIPTextModel(_text(CLIP_L, small)).requires_grad_(False)
        if model == "sdxl":
            second = CLIPTextModelWithProjection(_text(CLIP_G, small)).to(torch.bfloat16)
            backbone.text_encoder_2 = second.requires_grad_(False)
    backbone.tokenizer = backbone.tokenizer_2 = RandomIds()
    backbone._latents, backbone._empty_prompt, backbone._time_ids = "sample", "encoded", "constant"
    backbone._encode_batch, backbone._vae_dtype = 8, "auto"
    noise = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    backbone.process = VPProcess(noise.alphas_cumprod, "epsilon")
    return backbone


def _vae(small: bool, device: str, *, force_upcast: bool) -> AutoencoderKL:
    with torch.device(device):
        vae = AutoencoderKL(
            latent_channels=4,
            block_out_channels=(8, 16, 16, 16) if small else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1 if small else 2,
            norm_num_groups=4 if small else 32,
            force_upcast=force_upcast,
        )
    return vae.requires_grad_(False)


def _text(config: dict[str, int], small: bool) -> CLIPTextConfig:
    shrunk = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 3,
              "num_attention_heads": 4, "projection_dim": 32}  # fmt: skip
    return CLIPTextConfig(**{**config, **(shrunk if small else {})}, eos_token_id=49407)


def _small_unet(model: str) -> UNet2DConditionModel:
    config: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    if model == "sdxl":
        config |= {"cross_attention_dim": 64, "addition_embed_type": "text_time",
                   "addition_time_embed_dim": 8,
                   "projection_class_embeddings_input_dim": 80}  # fmt: skip
    return UNet2DConditionModel(**config)


def build(model: str, cell: dict[str, Any], small: bool, device: str) -> PreferenceModule:
    """The module that the command line would train."""
    options = {
        "gradient_checkpointing": cell["checkpointing"],
        "compile": cell["compile"],
        "compile_backend": "aot_eager" if small else "inductor",
    }
    lora = cell["tuning"] == "lora"
    tuning: Any = (
        LoraTuning(rank=32, alpha=32, base_dtype="bfloat16", **options)
        if lora
        else FullTuning(**options)
    )
    adamw = partial(torch.optim.AdamW, lr=1e-6, fused=device == "cuda")
    adafactor = partial(
        Adafactor, lr=1e-6, relative_step=False, scale_parameter=False, warmup_init=False
    )
    module = PreferenceModule(
        backbone=random_backbone(model, small, device),
        objective=DPO(beta=5000.0),
        safeguard=PreserveWinner(mu=0.6),
        reference=AdapterOff() if lora else FrozenReference(dtype="bfloat16"),
        tuning=tuning,
        optimizer=adafactor if model != "sd15" and not lora else adamw,
    )
    module.backbone.to(torch.device(device))
    module.reference.to(torch.device(device))
    return module.to(device).train()


def random_batch(pairs: int, resolution: int, device: str) -> PairBatch:
    """Noise images; a step's cost does not depend on what is in them."""
    winner, loser = torch.rand(2, pairs, 3, resolution, resolution, device=device) * 2 - 1
    geometry = [Geometry(resolution, resolution, 0, 0, resolution, resolution)] * pairs
    keys = [PairKey(0, i, i) for i in range(pairs)]
    return PairBatch(winner, loser, [f"prompt {i}" for i in range(pairs)], keys, geometry, [])


def measure(arguments: argparse.Namespace, cell: dict[str, Any]) -> dict[str, Any]:
    """Median seconds of a step and peak memory of one cell, in this process."""
    device = "cpu" if arguments.small else "cuda"
    resolution = 64 if arguments.small else RESOLUTION[arguments.model]
    module = build(arguments.model, cell, arguments.small, device)
    batch = random_batch(arguments.micro_batch, resolution, device)
    optimizer = module.configure_optimizers()["optimizer"]
    seconds = []
    for step in range(arguments.warm_up + arguments.steps):
        _wait(device)
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            loss = module.training_step(batch, step)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    timed = sorted(seconds[arguments.warm_up :])
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    return {**cell, "seconds": timed[len(timed) // 2], "peak_gib": peak}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def run_cell(cell: dict[str, Any], argv: list[str]) -> dict[str, Any]:
    """One cell in a process of its own; a failure becomes part of the result."""
    command = [sys.executable, __file__, *argv, "--cell", json.dumps(cell)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {**cell, "failed": done.stderr.strip().splitlines()[-1][:300]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """All cells, a table on the terminal, and json where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=RESOLUTION, required=True)
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a few-layer network on the CPU")
    parser.add_argument("--out", type=Path, help="json file; default benchmarks/results/")
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        sys.exit("no GPU here: full-size steps are measured on one; --small tries the script")
    if arguments.cell:
        print(json.dumps(measure(arguments, arguments.cell)))
        return
    results = []
    for cell in CELLS:
        results.append(run_cell(cell, sys.argv[1:]))
        print(_line(results[-1], results), flush=True)
    report(arguments, results)


def _line(result: dict[str, Any], results: list[dict[str, Any]]) -> str:
    name = f"{result['tuning']:5} checkpointing={result['checkpointing']!s:5} "
    name += f"compile={result['compile']!s:5}"
    if "failed" in result:
        return f"{name}  failed: {result['failed']}"
    first = next(r["seconds"] for r in results if "seconds" in r)
    peak = f"{result['peak_gib']:.1f} GiB" if result["peak_gib"] else "-"
    return f"{name}  {result['seconds']:.3f} s  x{result['seconds'] / first:.2f}  peak {peak}"


def report(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Write the json."""
    gpu = torch.cuda.is_available() and not arguments.small
    content = {
        "model": arguments.model,
        "size": "small" if arguments.small else "full",
        "resolution": 64 if arguments.small else RESOLUTION[arguments.model],
        "micro_batch": arguments.micro_batch,
        "steps": arguments.steps,
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "torch": torch.__version__,
        "cells": results,
    }
    default = Path(__file__).parent / "results" / f"step_time_{arguments.model}.json"
    out = arguments.out or default
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
