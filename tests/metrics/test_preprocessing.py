"""The one image pipeline, against PIL itself and the packages that the scores come from."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from sdpo_exp.metrics import preprocessing
from tests.metrics.small import images


@pytest.mark.parametrize("size", [224, 28])
def test_pixels_are_open_clips_bit_for_bit(size: int) -> None:
    reference = open_clip.image_transform(size, is_train=False)
    expected = torch.stack([reference(image) for image in images()])
    assert torch.equal(preprocessing.pixels(images(), ["p"] * 4, size), expected)


def test_a_crop_is_pils_bicubic_on_bytes() -> None:
    image = images(2)[1]
    width = int(28 * image.width / image.height)
    left = round((width - 28) / 2)
    expected = image.resize((width, 28), Image.Resampling.BICUBIC).crop((left, 0, left + 28, 28))
    assert np.array_equal(preprocessing.crop(image, 28), expected)


def test_square_crops_are_those_of_transformers_pil_processor() -> None:
    image = images(1)[0]
    processor = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=28)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(preprocessing.pixels([image], ["p"], 28), expected)


def test_resizing_a_tensor_would_be_seen() -> None:
    image = images(2)[1]
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    width = int(28 * image.width / image.height)
    other = torch.nn.functional.interpolate(values, (28, width), mode="bicubic", antialias=True)
    own = preprocessing.tv.resize(image, [28], preprocessing.InterpolationMode.BICUBIC)
    exact = torch.from_numpy(np.array(own)).permute(2, 0, 1)[None].float()
    assert (other - exact).abs().max() > 4


def test_every_mode_becomes_rgb_before_it_is_resized() -> None:
    image = images(1)[0]
    palette = image.quantize(16)
    transparent = image.convert("RGBA")
    grey = image.convert("L")
    assert np.array_equal(preprocessing.crop(transparent, 28), preprocessing.crop(image, 28))
    for other in (palette, grey):
        expected = preprocessing.crop(other.convert("RGB"), 28)
        assert np.array_equal(preprocessing.crop(other, 28), expected)


def test_one_prompt_per_image_is_asked_for() -> None:
    with pytest.raises(ValueError, match="2 images and 1 prompts"):
        preprocessing.pixels(images(2), ["p"], 28)
