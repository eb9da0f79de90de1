"""Full-size training steps on one GPU: pairs/s, TFLOP/s, their share of the card's own ceiling.

    python benchmarks/gpu.py                       # all groups, about eight minutes on an H100
    python benchmarks/gpu.py --group sd15-full
    python benchmarks/gpu.py --small               # a few-layer network on the CPU: tries it

Random weights and images; what they are does not change a step's cost. A step is a whole one: VAE,
text encoders, reference, policy, backward, clipping, optimiser. `cached` feeds latents and text
states from memory instead. `naive` is the public scripts' structure (benchmarks/naive.py) on the
same networks. Floating-point operations are counted by torch on one eager step of that kind, a
multiplication and an addition as two; what activation checkpointing computes again counts too. The
ceiling is a bf16 product of square matrices, measured in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.naive import NaiveLoop
from benchmarks.step_time import RESOLUTION, build, random_batch
from sdpo_exp.cli.environment import code_revision
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import PairBatch

# By name: model, tuning, checkpointing, pairs per step; the last size is the one compiled.
GROUPS: dict[str, tuple[str, str, bool, tuple[int, ...]]] = {
    "sd15-full": ("sd15", "full", False, (4, 16)),
    "sdxl-lora": ("sdxl", "lora", False, (1, 4)),
    "sdxl-full": ("sdxl", "full", True, (1, 4)),
    # Not measured yet. Without the text side (benchmarks/ovis_u1.py); no public script trains it.
    "ovis-u1-lora": ("ovis_u1", "lora", True, (1, 4)),
    "ovis-u1-full": ("ovis_u1", "full", True, (1, 4)),
}
Step = Callable[[], Any]


def ceiling(device: str, size: int) -> dict[str, float]:
    """TFLOP/s of a bf16 matrix product, and GB/s of a copy (bytes read and written)."""
    a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    product = _median(lambda: a @ b, device, warm_up=3, steps=10)
    source = torch.empty(size * size * 4, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = _median(lambda: target.copy_(source), device, warm_up=3, steps=10)
    return {"bf16_tflops": 2 * size**3 / product / 1e12, "copy_gb_s": 2 * len(source) / copy / 1e9}


def cells(name: str, small: bool, steps: int) -> Iterator[dict[str, Any]]:
    """The measurements of one group, each as soon as it is there; a failure is one, too."""
    model, tuning, checkpointing, sizes = GROUPS[name]
    device = "cpu" if small else "cuda"
    cell = {"tuning": tuning, "checkpointing": checkpointing, "compile": False}
    module = build(model, cell, small, device)
    optimizer = module.configure_optimizers()["optimizer"]
    resolution = 64 if small else RESOLUTION[model]
    counts: dict[tuple[str, int], float] = {}
    for way, pairs in _ways(sizes, unet=model != "ovis_u1"):
        result: dict[str, Any] = {"group": name, "way": way, "pairs": pairs}
        try:
            optimizer.state.clear()  # its averages have the layout of the weights before
            _set_up(module, way, device, "aot_eager" if small else "inductor")
            step = _step_of(way, module, random_batch(pairs, resolution, device), optimizer, device)
            inputs = "cached" if "cached" in way else "naive" if way == "naive" else "live"
            if (inputs, pairs) not in counts:
                counts[inputs, pairs] = _count(step)
            yield result | _measured(step, device, steps, pairs, counts[inputs, pairs])
        except Exception as error:
            yield {**result, "failed": f"{type(error).__name__}: {error}"[:300]}
            optimizer.zero_grad(set_to_none=True)


def _ways(sizes: tuple[int, ...], *, unet: bool) -> Iterator[tuple[str, int]]:
    """Ways and sizes; what is compiled stays so, hence these come last."""
    of_unets = ("naive", "eager, cached, channels last")
    yield from (("eager", pairs) for pairs in sizes)
    for way in (
        *("naive", "eager, bf16 vae", "eager, cached", "eager, cached, channels last"),
        *("compiled, cached", "compiled", "compiled, bf16 vae"),
    ):
        if unet or way not in of_unets:
            yield way, sizes[-1]


def _set_up(module: PreferenceModule, way: str, device: str, backend: str) -> None:
    backbone: Any = module.backbone
    backbone._vae_dtype = "bfloat16" if "bf16 vae" in way else "auto"
    backbone.to(torch.device(device))  # after the naive loop too, which casts the VAE
    layout = torch.channels_last if "channels last" in way else torch.contiguous_format
    for network in (module.policy, *module.reference.networks()):
        torch.nn.Module.to(network, memory_format=layout)
        if "compiled" in way and network._compiled_call_impl is None:
            network.compile(backend=backend)


def _step_of(
    way: str,
    module: PreferenceModule,
    batch: PairBatch,
    optimizer: torch.optim.Optimizer,
    device: str,
) -> Step:
    if way == "naive":
        loop = NaiveLoop(module)
        return lambda: loop.step(batch, optimizer)
    if "cached" in way:
        inputs = module.draw(batch)
        return lambda: _step(module, batch, optimizer, device, lambda _: inputs)
    return lambda: _step(module, batch, optimizer, device, type(module).draw.__get__(module))


def _step(
    module: PreferenceModule,
    batch: PairBatch,
    optimizer: torch.optim.Optimizer,
    device: str,
    draw: Any,
) -> None:
    module.draw = draw  # type: ignore[method-assign]
    with torch.autocast(device, torch.bfloat16):
        loss = module.training_step(batch, 0)["loss"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(module.policy.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _count(step: Step) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def _measured(step: Step, device: str, steps: int, pairs: int, flops: float) -> dict[str, Any]:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    step()
    first = time.perf_counter() - began
    seconds = _median(step, device, warm_up=2, steps=steps)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    return {
        "seconds": seconds,
        "pairs_per_second": pairs / seconds,
        "tflop": flops / 1e12,
        "tflops": flops / seconds / 1e12,
        "peak_gib": peak,
        "first_step_seconds": first,
    }


def _median(step: Step, device: str, warm_up: int, steps: int) -> float:
    for _ in range(warm_up):
        step()
    times = []
    for _ in range(steps):
        _wait(device)
        began = time.perf_counter()
        step()
        _wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def run_group(name: str, arguments: argparse.Namespace, seconds: float) -> list[dict[str, Any]]:
    """A group in a process of its own, cut off after `seconds`; what it told till then counts."""
    command = [sys.executable, __file__, "--child", name, "--steps", str(arguments.steps)]
    command += ["--small"] if arguments.small else []
    found: list[dict[str, Any]] = []
    with subprocess.Popen(
        ["timeout", f"{max(seconds, 1):.0f}", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
                print(_row(found[-1], arguments.tflops), flush=True)
    if process.returncode:
        reason = "out of time" if process.returncode == 124 else f"exit {process.returncode}"
        found.append({"group": name, "way": "the rest", "failed": reason})
        print(_row(found[-1], arguments.tflops), flush=True)
    return found


def _row(cell: dict[str, Any], ceiling_tflops: float) -> str:
    name = f"{cell['group']:<10} {cell.get('pairs', ''):>3}  {cell['way']:<29}"
    if "failed" in cell:
        return f"{name}failed: {cell['failed']}"[:79]
    share = cell["tflops"] / ceiling_tflops
    peak = f"{cell['peak_gib']:.1f}" if cell["peak_gib"] is not None else "-"
    return (
        f"{name}{cell['seconds']:>8.3f} {cell['pairs_per_second']:>8.2f} "
        f"{cell['tflops']:>8.1f} {share:>6.1%} {peak:>8}"
    )


def main() -> None:
    """All groups, a table on the terminal, and json where `--out` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--group", choices=GROUPS, action="append", help="default: all")
    parser.add_argument("--steps", type=int, default=8, help="timed; the median counts")
    parser.add_argument("--budget", type=float, default=460.0, help="seconds for everything")
    parser.add_argument("--small", action="store_true", help="a few-layer network on the CPU")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        for cell in cells(arguments.child, arguments.small, arguments.steps):
            print(json.dumps(cell), flush=True)
        return
    if not arguments.small and not torch.cuda.is_available():
        sys.exit("no GPU here: full-size steps are measured on one; --small tries the script")
    began = time.perf_counter()
    limits = ceiling("cpu" if arguments.small else "cuda", 256 if arguments.small else 8192)
    arguments.tflops = limits["bf16_tflops"]
    print(f"bf16 product {arguments.tflops:.1f} TFLOP/s, copy {limits['copy_gb_s']:.0f} GB/s\n")
    print(
        f"{'group':<10} pairs way {'s':>20} {'pairs/s':>8} {'TFLOP/s':>8} {'share':>6} {'GiB':>8}"
    )
    results: list[dict[str, Any]] = []
    for name in arguments.group or GROUPS:
        left = arguments.budget - (time.perf_counter() - began)
        results += run_group(name, arguments, left)
    write(arguments, limits, results, time.perf_counter() - began)


def write(
    arguments: argparse.Namespace,
    limits: dict[str, float],
    results: list[dict[str, Any]],
    seconds: float,
) -> None:
    """The json, with what a reader needs to judge it."""
    gpu = torch.cuda.is_available() and not arguments.small
    content = {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "size": "small" if arguments.small else "full",
        "revision": code_revision(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "steps_timed": arguments.steps,
        "seconds_in_all": round(seconds, 1),
        "ceiling": limits,
        "cells": results,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
