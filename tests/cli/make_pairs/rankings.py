"""Tables of ranked images whose every pixel says which image it is."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sdpo_exp.cli.make_pairs.make_pairs import main
from sdpo_exp.data.table import TablePairs
from tests.cli.command import here


def run(folder: Path, *arguments: str) -> Any:
    return here(folder, main, *arguments)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def scored(prompts: int, scores: Sequence[float]) -> list[dict[str, Any]]:
    """Image k of prompt p has shade 10 p + k and score `scores[k]`."""
    return [
        {"prompt": f"prompt {p}, please", "image": png(10 * p + k), "score": score}
        for p in range(prompts)
        for k, score in enumerate(scores)
    ]


def parquet(path: Path, rows: list[dict[str, Any]], row_group: int = 5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group)
    return path


def image_files(folder: Path, prompts: int, k: int) -> None:
    folder.mkdir(parents=True)
    for p in range(prompts):
        for i in range(k):
            (folder / f"{p}_{i}.png").write_bytes(png(10 * p + i))


def json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


def pairs_of(path: Path) -> list[tuple[str, int, int]]:
    """What a training run reads with no key but the path: caption, and shades of both images."""
    from sdpo_exp.config.composition import compose_cell
    from sdpo_exp.config.hydra_versions import instantiate

    words = ["data=hf_pairs", f"data.train.path={path}", "data.train.holdout=0"]
    words += ["data.train.part=all", f"data.train.cache_dir={path.parent / 'cache'}"]
    found = compose_cell("train", words)
    assert found.config is not None, found.problems
    source: TablePairs = instantiate(found.config.data.train)
    pairs = [source[i] for i in range(len(source))]
    return [
        (pair.prompt, pair.winner.getpixel((0, 0))[0], pair.loser.getpixel((0, 0))[0])
        for pair in pairs
    ]
