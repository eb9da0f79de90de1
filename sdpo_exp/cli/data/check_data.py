"""`python -m sdpo_exp.check_data`: which rows of a data set are bad, and why."""

from __future__ import annotations

import csv
import logging
import os
import warnings
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.bounds import NonNegativeInt, PositiveInt
from sdpo_exp.cli.command import run_command
from sdpo_exp.config.check import check_keys, check_node

_log = logging.getLogger(__name__)
_EVERY = 10_000
KEYS: dict[str, Any] = {
    "part": Literal["train", "validation"],
    "folder": str,
    "resolution": PositiveInt,
    "seed": NonNegativeInt,
    "effective_batch": PositiveInt,
    "max_steps": PositiveInt,
}


def main() -> None:
    """Entry point of `python -m sdpo_exp.check_data`."""
    run_command("check_data", check_data, check_check_data, lambda _: [])


def check_check_data(config: DictConfig) -> list[str]:
    """Unknown keys, types and ranges, of the command and of the data."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "data"])
    return check_keys(own, KEYS) + list(check_node(config.data, "data"))


def check_data(config: DictConfig) -> None:
    """Decode every row, print counts and first names by reason, write `bad_rows.csv`."""
    from hydra.core.hydra_config import HydraConfig

    from sdpo_exp.cli.build import build
    from sdpo_exp.data.skipped import SkippedRows
    from sdpo_exp.data.survey import problems

    warnings.filterwarnings("ignore", message=".*DataLoader will create .* worker processes.*")
    data, bad, looked_at = config.data, SkippedRows(), 0
    source = build(data[config.part], f"data.{config.part}")
    transform = build(data.transform, "data.transform") if data.get("transform") else None
    workers, gap = data.get("num_workers", 0), data.get("max_aspect_gap")
    for problem in problems(source, transform, workers, gap):
        bad.add([problem] if problem is not None else [])
        looked_at += 1
        if looked_at % _EVERY == 0:
            _log.info("%d pairs, %d bad", looked_at, len(bad.rows()))
    path = Path(HydraConfig.get().runtime.output_dir) / "bad_rows.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("row", "reason"), *bad.rows()])
    _log.info("%s", table(looked_at, bad.by_kind()))
    _log.info("rows and reasons: %s", os.path.relpath(path))


def table(looked_at: int, kinds: dict[str, list[str]]) -> str:
    """Counts and first names by kind of reason, the most frequent first."""
    count = sum(len(names) for names in kinds.values())
    lines = [f"{looked_at:,} pairs looked at, {count:,} bad"]
    for kind, names in sorted(kinds.items(), key=lambda item: -len(item[1])):
        more = ", ..." if len(names) > 3 else ""
        lines.append(f"{len(names):>7,}  {kind}: {', '.join(names[:3])}{more}")
    return "\n".join(lines)
