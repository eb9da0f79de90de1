"""Run folders as training leaves them, made up: any number, in any state, in no time."""

from __future__ import annotations

import csv
import json
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

STATUSES = {
    "finished": "finished",
    "interrupted": "interrupted",
    "failed": "failed",
    "stopped": "stopped: the winner's error rose tenfold; lower lr",
}
TIMES = (0.1, 0.3, 0.5, 0.7)
DRIFT = {"off": 0.17, "on": 0.0, "pair": 0.01, "global": -0.002, "constant": 0.002}


@dataclass(frozen=True)
class Made:
    """What a run is to be; `status` is one of STATUSES, `running` or `died`."""

    objective: str = "dpo"
    safeguard: str = "on"
    seed: int = 0
    status: str = "finished"
    steps: int = 24
    images: int = 12
    samples: int = 3
    name: str = "run"
    model: str = "tiny"
    settings: tuple[tuple[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    environment: tuple[tuple[str, Any], ...] = ()
    started: str = "2026-01-02T03:04:05"
    prompt: str = "a small red circle {index}"
    side: int = 32


def make_run(root: Path, made: Made) -> Path:
    """Write the folder and return it."""
    labels = "-".join(f"{key.rpartition('.')[2]}{value}" for key, value in made.settings)
    cell = f"{made.model}-{made.objective}-{made.safeguard}-seed{made.seed}-{labels}-0123abcd"
    time = made.started.replace("T", "_").replace(":", "-")
    folder = root / made.name / cell / time
    folder.mkdir(parents=True)
    rng = np.random.default_rng([made.seed, len(made.objective), len(made.safeguard)])
    ended = made.status not in ("running", "died")
    rows = _rows(made, rng, made.steps if made.status == "finished" else made.steps // 2)
    _write_csv(folder / "metrics.csv", rows)
    _write_json(folder / "run.json", _told(made))
    (folder / "config.yaml").write_text(yaml.safe_dump(_config(made, folder)))
    _write_json(folder / "environment.json", _environment(made))
    scores = _scores(folder, made, rng) if made.status == "finished" and made.images else None
    if ended:
        _write_json(folder / "summary.json", _summary(made, rows, scores))
    return folder


def _told(made: Made) -> dict[str, Any]:
    overrides = [f"objective={made.objective}", f"safeguard={made.safeguard}"]
    overrides += [f"{key}={value}" for key, value in made.settings] + [f"seed={made.seed}"]
    return {
        "model": made.model, "objective": made.objective, "safeguard": made.safeguard,
        "seed": made.seed, "name": made.name, "hash": f"{made.seed:08x}", "overrides": overrides,
        "command": "python -m sdpo_exp " + " ".join(overrides), "started": made.started,
        # A process that is no more; or another machine's, whose files are young.
        "pid": 0, "host": socket.gethostname() if made.status == "died" else "elsewhere",
    }  # fmt: skip


def _config(made: Made, folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": made.name, "seed": made.seed, "resume": None, "run_dir": str(folder),
        "lr": 1e-4, "recipe": {"beta": 200.0, "mu": 0.9},
        "data": {"seed": made.seed, "micro_batch": 8},
        "objective": {"_target_": f"sdpo_exp.objectives.{made.objective}", "beta": 200.0},
        "safeguard": {"_target_": f"sdpo_exp.safeguard.{made.safeguard}", "mu": 0.9},
        "callbacks": {"probe": {"seed": 0}, "checkpoint": {"dirpath": f"{folder}/checkpoints"}},
        "model": {"_target_": f"sdpo_exp.models.{made.model}"},
    }  # fmt: skip
    if made.safeguard == "off":
        config["safeguard"] = {"_target_": "sdpo_exp.safeguard.Off"}
    for key, value in made.settings:
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return config


def _environment(made: Made) -> dict[str, Any]:
    return {
        "git_revision": "0123456789abcdef", "git_dirty": False, "python": "3.11.7",
        "versions": {"torch": "2.6.0", "numpy": "2.0.0"}, "accelerator": "cpu",
        "data_fingerprint": "f9d6cc28", **dict(made.environment),
    }  # fmt: skip


def _rows(made: Made, rng: np.random.Generator, steps: int) -> list[dict[str, float]]:
    drift = DRIFT.get(made.safeguard, 0.0) * (1.2 if made.objective == "dmpo" else 1.0)
    drift += 0.004 * rng.normal()
    rows = [_probe(drift, 0.0, rng) | {"step": 0}]
    for step in range(1, steps + 1):
        along = step / made.steps
        row = {
            "step": step, "train/loss": 0.69 - 0.3 * along + 0.06 * rng.normal(), "train/lr": 1e-4,
            "pair/winner_minus_ref": drift * along**1.5 + 0.02 * rng.normal(),
            "pair/margin": 0.05 * along + 0.01 * rng.normal(),
            "pair/implicit_accuracy": 0.5 + 0.4 * along + 0.08 * rng.normal(),
            "safeguard/lambda_mean": 1.0 if made.safeguard == "off" else 0.2 + 0.04 * rng.normal(),
            "safeguard/lambda_would_be": 0.2 + 0.04 * rng.normal(),
        }  # fmt: skip
        if step % max(1, made.steps // 4) == 0:
            row |= _probe(drift, along, rng)
        if step % max(1, made.steps // 12) == 0:
            row["perf/pairs_per_second"] = 8.0 + rng.normal()
        rows.append(row)
    return rows


def _probe(drift: float, along: float, rng: np.random.Generator) -> dict[str, float]:
    found = {
        "probe/winner_minus_ref": drift * along**1.5,
        "probe/loser_minus_ref": (0.04 + drift) * along,
        "probe/margin": 0.04 * along + drift * along * 0.1,
        "probe/implicit_accuracy": 0.5 + 0.35 * along,
    }
    for time in TIMES:
        found[f"probe/t{time:g}/winner_minus_ref"] = drift * along * (1.6 - 1.5 * time)
    return {name: value + along * 0.002 * rng.normal() for name, value in found.items()}


def _scores(folder: Path, made: Made, rng: np.random.Generator) -> dict[str, Any]:
    noise = np.random.default_rng(0)
    base = noise.uniform(0.5, 0.9, made.images)
    gain = 0.02 - 0.6 * max(DRIFT.get(made.safeguard, 0.0), 0.0)
    tuned = base + gain + 0.04 * rng.normal(size=made.images)
    prompts = [made.prompt.format(index=i) for i in range(made.images)]
    rows = [
        {"model": model, "index": i, "prompt": prompts[i], "reward": f"{values[i]:.6g}",
         "accuracy": f"{round(float(values[i]), 1):g}"}
        for model, values in (("base", base), ("tuned", tuned))
        for i in range(made.images)
    ]  # fmt: skip
    _write_csv(folder / "scores.csv", rows)
    for model, values in (("base", base), ("tuned", tuned)):
        _pictures(folder / "samples" / model, made, values)
    told = {
        "base": {"mean": float(base.mean())}, "tuned": {"mean": float(tuned.mean())},
        "change": {"mean": float((tuned - base).mean()), "standard_error": 0.01},
    }  # fmt: skip
    return {"description": f"{made.images} images", "n": made.images, "scores": {"reward": told}}


def _pictures(folder: Path, made: Made, values: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for index in range(made.samples):
        pixels = np.full((made.side, made.side, 3), 235, dtype=np.uint8)
        low = made.side // 4 + index % 3
        size = max(1, int(made.side * 0.6 * values[index]))
        pixels[low : low + size, low : low + size] = (
            40 + 60 * (index % 4),
            90,
            200 - 40 * index % 160,
        )
        Image.fromarray(pixels).save(folder / f"{index:04d}.png")


def _summary(made: Made, rows: list[dict[str, float]], scores: Any) -> dict[str, Any]:
    last = rows[-1]["step"]
    tail = [row for row in rows if row["step"] > 0.8 * last]
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    probe = [row for row in rows if "probe/margin" in row]
    return {
        "status": STATUSES[made.status], "steps": last, "seconds": 100.0 + made.seed,
        "warnings": list(made.warnings),
        "train": {
            name: float(np.mean([row[name] for row in tail if name in row]))
            for name in names
            if name.startswith(("train/", "pair/", "safeguard/"))
        },
        "probe": {
            name: {"first": probe[0][name], "last": probe[-1][name]} for name in probe[0]
            if name != "step"
        },
        "images": {}, "evaluation": scores, "pairs_per_second": 8.0 + 0.1 * made.seed,
    }  # fmt: skip


def make_sweep(root: Path, *, seeds: int = 3, **kept: Any) -> list[Path]:
    """Two objectives, safeguard on and off, some seeds each."""
    return [
        make_run(root, Made(objective, safeguard, seed, **kept))
        for objective in ("dpo", "dmpo")
        for safeguard in ("off", "on")
        for seed in range(seeds)
    ]


def break_file(folder: Path, name: str, content: bytes | None = None) -> None:
    """Take a file away, or put something else there."""
    if content is not None:
        (folder / name).write_bytes(content)
    elif (folder / name).is_dir():
        shutil.rmtree(folder / name)
    else:
        (folder / name).unlink()


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
