"""Small stored images of every kind, and a Pick-a-Pic table whose flaws are known by row."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage
from PIL import Image

from sdpo_exp.data.columns import Columns

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "motorcycle_left")
PICKAPIC = Columns(image_0="jpg_0", image_1="jpg_1", label_0="label_0")
ROWS = 1000


@cache
def photo(name: str) -> Image.Image:
    (path,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
    return Image.open(path).convert("RGB").resize((96, 64))


def stored(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cut(index: int, width: int = 32, height: int = 24) -> Image.Image:
    """A piece of a photograph, another one for every index."""
    image = photo(PHOTOS[index % len(PHOTOS)])
    left, top = index * 7 % (96 - width), index * 5 % (64 - height)
    return image.crop((left, top, left + width, top + height))


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


JPEG = stored(cut(0))
# Row of the table -> what is changed in it, and the reason that must be given.
FLAWS: dict[int, tuple[dict[str, Any], str]] = {
    10: ({"jpg_0": JPEG[: len(JPEG) // 2]}, "damaged image (jpg_0: "),
    20: ({"jpg_1": b""}, "empty image (jpg_1: zero bytes)"),
    30: ({"jpg_0": b"<html>404</html>"}, "not an image of a known format (jpg_0)"),
    40: ({"jpg_1": None}, "no image (jpg_1: null)"),
    50: ({"caption": ""}, "empty caption"),
    60: ({"caption": None}, "no caption (null)"),
    61: ({"caption": " \n"}, "empty caption"),
    70: ({"jpg_0": png_header(60_000, 60_000)}, "image too large (jpg_0: "),
    71: ({"jpg_1": png_header(10_000, 9_000)}, "image too large (jpg_1: 10000 x 9000"),
    80: ({"jpg_1": stored(cut(3, 24, 40))}, "aspect ratios differ by more than max_aspect_gap"),
    90: ({"label_0": 0.3}, "label is none of 1, 0 and 0.5 (0.3)"),
    100: ({"jpg_0": stored(cut(1), "PNG")[:-40]}, "damaged image (jpg_0: "),
    110: ({"jpg_0": b"GIF89a" + bytes(40)}, "not an image of a known format (jpg_0)"),
    ROWS - 2: ({"jpg_0": JPEG[:20]}, "not an image of a known format (jpg_0)"),
}


def label(row: int) -> float | None:
    """Ties at the rows that end in 5, by number, and in 7, by null."""
    return {5: 0.5, 7: None}.get(row % 10, float(row % 3 == 0))


def pickapic_rows() -> list[dict[str, Any]]:
    rows = []
    for i in range(ROWS):
        side = 24 + i % 9
        row = {
            "jpg_0": stored(cut(2 * i, side + 8, side)),
            "jpg_1": stored(cut(2 * i + 1, side + 8, side)),
            "label_0": label(i),
            "caption": f"caption {i // 4}",
            "model_0": "not looked at",
        }
        rows.append(row | FLAWS.get(i, ({}, ""))[0])
    return rows


def write_pickapic(folder: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """Two files of one split, by the hub's naming."""
    table = pa.Table.from_pylist(pickapic_rows() if rows is None else rows)
    (folder / "data").mkdir(parents=True)
    half = len(table) // 2
    for i, part in enumerate((table[:half], table[half:])):
        name = f"train-{i:05d}-of-00002-0123456789abcdef.parquet"
        pq.write_table(part, folder / "data" / name, row_group_size=100)
    return folder


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)
