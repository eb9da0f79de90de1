"""Pictures to rows, against loops that do it pixel by pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from sdpo_exp.models.ovis_text.image_rows import (
    CLIP_MEAN,
    CLIP_STD,
    RowFormat,
    blank,
    image_rows,
    normalised,
    patch_rows,
    stretched_for_edit,
)
from sdpo_exp.models.ovis_text.resizing import ViewBounds

TINY = RowFormat(bounds=ViewBounds(56 * 56, 112 * 112))


def noise(height: int, width: int) -> Image.Image:
    bytes_ = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(bytes_)


def naive_rows(pixels: torch.Tensor, patch: int, stride: int) -> list[list[float]]:
    channels, height, width = pixels.shape
    rows = []
    for top in range(0, height, patch * stride):
        for left in range(0, width, patch * stride):
            for y in range(top, top + patch * stride, patch):
                for x in range(left, left + patch * stride, patch):
                    rows.append(
                        [
                            float(pixels[channel, y + line, x + column])
                            for channel in range(channels)
                            for line in range(patch)
                            for column in range(patch)
                        ]
                    )
    return rows


@pytest.mark.parametrize(("height", "width", "patch"), [(8, 12, 2), (12, 6, 3), (28, 28, 14)])
def test_rows_are_those_of_a_plain_loop(height, width, patch):
    pixels = torch.randn(3, height, width, generator=torch.Generator().manual_seed(1))
    rows = patch_rows(pixels, patch, 2)
    assert torch.equal(rows, torch.tensor(naive_rows(pixels, patch, 2)))


def test_the_first_rows_lie_two_by_two():
    places = torch.arange(64 * 48).reshape(1, 64, 48)
    corners = patch_rows(places, 8, 2)[:6, 0].tolist()
    assert [(place // 48 // 8, place % 48 // 8) for place in corners] == [
        (0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3),
    ]  # fmt: skip


def test_a_row_has_588_values_and_the_grid_counts_patches():
    found = image_rows(noise(720, 1280))
    assert found.rows.shape == (26 * 44, 588)
    assert found.rows.dtype == torch.float32
    assert found.grid == (1, 26, 44)


def test_pixels_are_normalised_as_for_clip():
    pixels = normalised(noise(4, 6))
    expected = np.asarray(noise(4, 6)).transpose(2, 0, 1) / 255
    for channel, (mean, std) in enumerate(zip(CLIP_MEAN, CLIP_STD, strict=True)):
        exact = torch.from_numpy((expected[channel] - mean) / std)
        torch.testing.assert_close(pixels[channel].double(), exact, atol=1e-6, rtol=0)


def test_a_picture_of_the_right_size_is_not_resampled():
    picture = noise(448, 448)
    assert torch.equal(image_rows(picture).rows, patch_rows(normalised(picture), 14, 2))


def test_both_resizes_happen():
    picture = noise(1080, 1920)
    # 1080x1920 -> 336x588 -> 364x616, bicubic both times
    first = picture.resize((588, 336), Image.Resampling.BICUBIC)
    second = first.resize((616, 364), Image.Resampling.BICUBIC)
    assert torch.equal(image_rows(picture).rows, patch_rows(normalised(second), 14, 2))
    once = picture.resize((616, 364), Image.Resampling.BICUBIC)
    assert not torch.equal(image_rows(picture).rows, patch_rows(normalised(once), 14, 2))


def test_a_blank_is_white_at_every_size():
    rows = image_rows(blank(200, 90), TINY).rows
    white = [(1 - mean) / std for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    for part, value in zip(rows.split(196, dim=1), white, strict=True):
        torch.testing.assert_close(part, torch.full_like(part, value))


def test_a_small_blank_has_four_tokens():
    assert image_rows(blank(64, 64), TINY).grid == (1, 4, 4)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_pictures_of_other_kinds_are_read_as_rgb(mode):
    picture = noise(60, 60).convert(mode)
    plain = picture.convert("RGB")
    assert torch.equal(image_rows(picture, TINY).rows, image_rows(plain, TINY).rows)
    assert stretched_for_edit(picture).mode == "RGB"


def test_a_picture_to_be_edited_is_stretched():
    assert stretched_for_edit(noise(1080, 1920)).size == (1312, 736)
    assert stretched_for_edit(noise(64, 96)).tobytes() == noise(64, 96).tobytes()
