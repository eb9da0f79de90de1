"""Winner and loser are cut alike, from their own random numbers, and the geometry says how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from sdpo_exp.data.transform import PairCrop, aspect_gap
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.types import Geometry, ImagePair, PairKey, PairRow
from tests.data.pictures import cut, photo

KEY = PairKey(0, 0, 0)


def ramp(width: int, height: int, along: int = 1) -> Image.Image:
    """Every pixel is twice its column (along 1) or its row (along 0)."""
    values = 2 * np.indices((height, width))[1 if along else 0]
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def cropped(pair: ImagePair, key: PairKey = KEY, seed: int = 0, **options: Any) -> PairRow:
    return PairCrop(**{"resolution": 16, **options})(pair, seed, key)


def stored_values(row: torch.Tensor) -> torch.Tensor:
    return ((row + 1) * 127.5).round()


def first_column(pixels: torch.Tensor) -> int:
    return int(stored_values(pixels)[0, 0, 0]) // 2


def test_resize_and_centre_crop_are_those_of_the_public_code() -> None:
    public = transforms.Compose(
        [
            transforms.Resize(20, interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.CenterCrop(20),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    for image in (photo("coffee"), cut(3, 24, 41), cut(5, 17, 17)):
        row = cropped(ImagePair(image, image, "p"), resolution=20)
        assert row.winner.dtype == torch.float32
        assert torch.allclose(row.winner, public(image), atol=1e-6)
        assert torch.equal(row.winner, row.loser)


def test_pixels_lie_in_minus_one_to_one() -> None:
    black_and_white = ImagePair(Image.new("RGB", (9, 9)), Image.new("RGB", (9, 9), "white"), "p")
    row = cropped(black_and_white)
    assert (row.winner == -1).all()
    assert (row.loser == 1).all()
    assert row.prompt == "p"


def test_the_geometry_is_the_winners() -> None:
    pair = ImagePair(ramp(64, 32), ramp(16, 40, 0), "p")
    row = cropped(pair)  # the winner becomes 32 x 16, its centre begins at column 8
    assert row.geometry == Geometry(32, 64, 0, 8, 16, 16)
    tall = cropped(ImagePair(ramp(16, 40, 0), ramp(16, 16), "p"))
    assert tall.geometry == Geometry(40, 16, 12, 0, 16, 16)
    assert int(stored_values(tall.winner)[0, 0, 0]) == 2 * 12


def test_a_random_crop_takes_the_same_fraction_of_images_of_different_size() -> None:
    pair = ImagePair(ramp(116, 16), ramp(66, 16), "p")  # 100 and 50 columns of room
    lefts = []
    for position in range(60):
        row = cropped(pair, PairKey(0, position, 0), crop="random")
        left = first_column(row.winner)
        assert row.geometry is not None
        assert row.geometry.left == left
        assert abs(first_column(row.loser) / 50 - left / 100) < 0.03
        lefts.append(left)
    assert min(lefts) < 10
    assert max(lefts) > 90


def test_every_place_of_the_crop_comes_up() -> None:
    pair = ImagePair(ramp(19, 16), ramp(16, 16), "p")
    rows = [cropped(pair, PairKey(1, i, 0), crop="random") for i in range(80)]
    assert {first_column(row.winner) for row in rows} == {0, 1, 2, 3}
    assert {first_column(row.loser) for row in rows} == {0}


def is_mirrored(pixels: torch.Tensor) -> bool:
    return first_column(pixels) > int(stored_values(pixels)[0, 0, -1]) // 2


def flips(flip: str) -> list[tuple[bool, bool]]:
    pair = ImagePair(ramp(16, 16), ramp(16, 16), "p")
    rows = [cropped(pair, PairKey(0, i, 0), flip=flip) for i in range(64)]
    return [(is_mirrored(row.winner), is_mirrored(row.loser)) for row in rows]


def test_no_pair_is_mirrored_by_default() -> None:
    assert set(flips("off")) == {(False, False)}


def test_a_shared_flip_mirrors_both_or_none() -> None:
    assert set(flips("shared")) == {(False, False), (True, True)}
    assert 16 < sum(winner for winner, _ in flips("shared")) < 48


def test_an_independent_flip_mirrors_half_of_the_pairs_against_each_other() -> None:
    assert [w for w, _ in flips("independent")] == [w for w, _ in flips("shared")]
    assert 16 < sum(winner != loser for winner, loser in flips("independent")) < 48


def test_the_crop_of_a_mirrored_image_is_counted_in_the_mirrored_image() -> None:
    pair = ImagePair(ramp(116, 16), ramp(116, 16), "p")
    for position in range(20):
        row = cropped(pair, PairKey(0, position, 0), crop="random", flip="shared")
        assert row.geometry is not None
        shown = first_column(row.winner)
        assert shown in (row.geometry.left, 115 - row.geometry.left)
        assert (shown == 115 - row.geometry.left) == is_mirrored(row.winner)


def test_draws_follow_from_seed_epoch_and_position_alone() -> None:
    pair = ImagePair(ramp(116, 16), ramp(116, 16), "p")

    def left(seed: int, *key: int) -> int:
        return first_column(cropped(pair, PairKey(*key), seed, crop="random").winner)

    assert left(0, 1, 2, 3) == left(0, 1, 2, 99)
    drawn = {left(0, 1, 2, 3), left(1, 1, 2, 3), left(0, 2, 2, 3), left(0, 1, 3, 3)}
    assert len(drawn) == 4


def test_the_aspect_gap_is_the_ratio_of_the_ratios_minus_one() -> None:
    pair = ImagePair(ramp(32, 24), ramp(24, 24), "p")  # 4:3 against a square
    for both in (pair, ImagePair(pair.loser, pair.winner, "p")):
        assert aspect_gap(both) == pytest.approx(1 / 3)
    assert aspect_gap(ImagePair(ramp(16, 16), ramp(32, 32), "p")) == 0


def test_a_thin_strip_is_refused_before_it_is_blown_up() -> None:
    strip = Image.new("RGB", (1, 5000))
    with pytest.raises(BadRow, match="thin strip"):
        cropped(ImagePair(strip, strip, "p"), resolution=512)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resolution": None}, "give resolution=512"),
        ({"resolution": 0}, "resolution=0"),
        ({"crop": "left"}, "data.transform.crop: center or random"),
        ({"flip": True}, "data.transform.flip: off, shared or independent"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        PairCrop(**{"resolution": 16, **options})
