"""What docs/gpu.md says was measured is what the json has."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.command import ROOT

PAGE = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")
FOUND = json.loads((ROOT / "benchmarks" / "results" / "gpu_h100.json").read_text())
CELLS: list[dict[str, Any]] = [cell for cell in FOUND["cells"] if "failed" not in cell]


def rows(columns: int) -> list[list[str]]:
    lines = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
    return [[c.strip() for c in line] for line in lines if len(line) == columns]


def test_the_table_is_the_measurement() -> None:
    ceiling = FOUND["ceiling"]["bf16_tflops"]
    assert f"{ceiling:.0f} TFLOP/s" in PAGE
    expected = [
        [
            *(cell["group"], str(cell["pairs"]), cell["way"], f"{cell['seconds']:.3f}"),
            *(f"{cell['pairs_per_second']:.2f}", f"{cell['tflops']:.0f}"),
            *(f"{100 * cell['tflops'] / ceiling:.1f} %", f"{cell['peak_gib']:.1f}"),
        ]
        for cell in CELLS
    ]
    assert rows(8)[1:] == expected


def test_the_ratios_are_of_the_table() -> None:
    ways = {
        "eager, float32 VAE": "eager",
        "`model.vae_dtype=bfloat16`": "eager, bf16 vae",
        "`tuning.compile=true model.vae_dtype=bfloat16`": "compiled, bf16 vae",
        "compiled, latents and text from memory": "compiled, cached",
        "latents and text from memory": "eager, cached",
    }
    groups = {"naive, SD 1.5": "sd15-full", "naive, SDXL LoRA": "sdxl-lora"}
    largest = {g: max(c["pairs"] for c in CELLS if c["group"] == g) for g in groups.values()}
    rate = {
        (c["group"], c["way"]): c["pairs_per_second"]
        for c in CELLS
        if c["pairs"] == largest[c["group"]]
    }
    found = rows(3)[1:]
    assert len(found) == 7
    for against, way, ratio in found:
        group = groups[against]
        assert f"{rate[group, ways[way]] / rate[group, 'naive']:.2f}" == ratio
