"""Stored images become the pixels that they mean; what is none is told."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdpo_exp.data.images import MAX_PIXELS, decode
from sdpo_exp.errors import BadRow
from tests.data.pictures import JPEG, cut, pixels, png_header, stored

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
COLOURS = np.array([[RED, GREEN], [BLUE, WHITE], [WHITE, RED]], np.uint8)  # 3 high, 2 wide
IMAGE = Image.fromarray(COLOURS)


def decoded(data: Any) -> np.ndarray:
    image = decode(data, "row 1")
    assert image.mode == "RGB"
    return pixels(image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_colours_come_back_as_stored(kind: str) -> None:
    assert np.array_equal(decoded(stored(IMAGE, kind)), COLOURS)


def test_webp_and_jpeg() -> None:
    assert np.array_equal(decoded(stored(IMAGE, "WEBP", lossless=True)), COLOURS)
    flat = Image.new("RGB", (16, 16), (200, 100, 50))
    difference = decoded(stored(flat, quality=95)).astype(int) - pixels(flat)
    assert np.abs(difference).max() <= 3


def test_a_palette_with_and_without_transparency() -> None:
    palette = IMAGE.quantize(8)
    assert palette.mode == "P"
    assert np.array_equal(decoded(stored(palette, "PNG")), COLOURS)
    red = pixels(palette)[0, 0]
    expected = np.where((COLOURS == RED).all(-1, keepdims=True), 255, COLOURS)
    assert np.array_equal(decoded(stored(palette, "PNG", transparency=int(red))), expected)


def test_transparency_shows_white() -> None:
    rgba = np.array([[[*RED, 255], [*RED, 0], [0, 0, 0, 51]]], np.uint8)
    expected = [[RED, WHITE, (204, 204, 204)]]  # 255 * (1 - 51/255)
    assert np.array_equal(decoded(stored(Image.fromarray(rgba), "PNG")), expected)
    assert np.array_equal(
        decoded(stored(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)), expected
    )
    grey = Image.fromarray(np.array([[[100, 255], [100, 0]]], np.uint8), "LA")
    assert np.array_equal(decoded(stored(grey, "PNG")), [[(100,) * 3, WHITE]])


def test_grey_of_one_eight_and_sixteen_bits() -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    assert np.array_equal(decoded(stored(Image.fromarray(grey), "PNG"))[..., 1], grey)
    wide = np.array([[0, 257, 25_700, 65_535]], np.uint16)
    assert np.array_equal(decoded(stored(Image.fromarray(wide), "PNG"))[..., 0], [[0, 1, 100, 255]])
    bits = Image.fromarray(np.array([[True, False]]))
    assert np.array_equal(decoded(stored(bits, "PNG"))[..., 2], [[255, 0]])


def test_cmyk() -> None:
    ink = Image.fromarray(np.full((8, 8, 4), (0, 255, 255, 0), np.uint8), "CMYK")  # red
    assert np.array_equal(decoded(stored(ink, "TIFF"))[4, 4], RED)
    assert np.abs(decoded(stored(ink, "JPEG"))[4, 4].astype(int) - RED).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, COLOURS),
        (2, COLOURS[:, ::-1]),
        (3, COLOURS[::-1, ::-1]),
        (6, np.rot90(COLOURS, -1)),
        (8, np.rot90(COLOURS, 1)),
    ],
)
def test_exif_orientation_is_applied(orientation: int, expected: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decoded(stored(IMAGE, "PNG", exif=exif)), expected)


def test_bytes_images_paths_and_mappings_are_the_same(tmp_path: Path) -> None:
    data = stored(IMAGE, "PNG")
    (tmp_path / "a.png").write_bytes(data)
    forms = [data, bytearray(data), IMAGE, {"bytes": data, "path": "gone.png"}]
    forms += [str(tmp_path / "a.png"), {"bytes": None, "path": str(tmp_path / "a.png")}]
    for form in forms:
        assert np.array_equal(decoded(form), COLOURS)
    assert np.array_equal(pixels(decode("a.png", "row 1", tmp_path)), COLOURS)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (JPEG[:300], "damaged image"),
        (stored(cut(0), "PNG")[:-30], "damaged image"),
        (stored(cut(0), "WEBP")[:-30], "damaged image"),
        (b"", r"empty image \(zero bytes\)"),
        (b"not an image", "not an image of a known format"),
        (None, r"no image \(null\)"),
        ({"bytes": None, "path": None}, r"no image \(null\)"),
        (3.5, "no image but a float"),
        ("nowhere.png", r"image file cannot be read \(nowhere.png: No such file"),
        (png_header(60_000, 60_000), "image too large"),
        (
            png_header(MAX_PIXELS // 1000 + 1, 1000),
            f"image too large .*limit is {MAX_PIXELS:,} pixels",
        ),
        (stored(Image.new("F", (2, 2)), "TIFF"), "floating-point pixels"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "data",
)
def test_what_is_no_image_is_told_by_row_and_reason(data: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=f"^row 1: {reason}"):
        decode(data, "row 1")


def test_a_truncated_image_is_never_filled_up() -> None:
    whole = stored(cut(0, 40, 40), quality=95)
    for length in range(2, len(whole) - 2, 97):
        with pytest.raises(BadRow):
            decode(whole[:length], "row 1")
    assert decode(io.BytesIO(whole).read(), "row 1").size == (40, 40)
