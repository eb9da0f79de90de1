"""A parquet file in Pick-a-Pic v2's layout, with real JPEG bytes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from skimage import data as photographs


def photo(index: int, height: int, width: int) -> Image.Image:
    """A crop of a real photograph; `index` picks photograph and place."""
    sources = (photographs.astronaut, photographs.chelsea, photographs.coffee, photographs.rocket)
    pixels = sources[index % len(sources)]()
    rng = np.random.default_rng(index)
    top = int(rng.integers(0, pixels.shape[0] - height))
    left = int(rng.integers(0, pixels.shape[1] - width))
    return Image.fromarray(pixels[top : top + height, left : left + width])


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def rows(count: int, first: int = 0) -> dict[str, list[Any]]:
    """`count` rows; every fifth is a tie, the preferred image changes sides."""
    images = range(first, first + count)
    labels = [0.5 if i % 5 == 4 else float(i % 2) for i in images]
    return {
        "jpg_0": [jpeg(photo(i, 96, 80)) for i in images],
        "jpg_1": [jpeg(photo(i, 90, 75), quality=8) for i in images],
        "label_0": labels,
        "label_1": [1 - label for label in labels],
        "caption": [f"photograph number {i}" for i in images],
        "has_label": [True] * count,
        "image_0_uid": [f"a{i}" for i in images],
        "image_1_uid": [f"b{i}" for i in images],
    }


def write_split(snapshot: Path, split: str, count: int, first: int = 0) -> None:
    """`data/<split>-00000-of-00001-<hash>.parquet`, as the hub names it."""
    file = snapshot / "data" / f"{split}-00000-of-00001-0123456789abcdef.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows(count, first)), file)
