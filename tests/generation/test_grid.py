"""Grids of images to look at."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdpo_exp.generation.grid import make_grid


def test_a_grid_magnifies_small_images_and_labels_several_rows() -> None:
    colours = ["red", "lime", "blue", "white", "cyan", "black", "yellow", "orange", "navy", "grey"]
    images = [Image.new("RGB", (32, 32), colour) for colour in colours]
    one = make_grid({"model": images[:3]})
    assert one.size == (3 * 132 + 4, 136)
    assert [one.getpixel((4 + 132 * i, 131)) for i in range(3)] == [
        (255, 0, 0), (0, 255, 0), (0, 0, 255)
    ]  # fmt: skip
    two = make_grid({"base": images, "tuned": images[::-1]})
    margin = two.width - (8 * 132 + 4)
    assert margin > 20
    assert two.height == 4 * 132 + 4
    labels = np.asarray(two.crop((0, 0, margin, two.height)).convert("L"))
    assert all((labels[132 * row : 132 * (row + 1)] < 128).any() for row in range(4))
    assert two.getpixel((margin + 5, 140)) == (128, 128, 128)
    assert two.getpixel((margin + 5, 272)) == (0, 0, 128)
    images[0].putpixel((0, 0), (0, 0, 255))
    corner = make_grid({"model": images[:1]}).crop((4, 4, 12, 8))
    # Sharp, 4 x 4 pixels each.
    assert sorted(corner.getcolors() or []) == [(16, (0, 0, 255)), (16, (255, 0, 0))]
    large = Image.new("RGB", (512, 256))
    assert make_grid({"model": [large]}).size == (520, 264)
