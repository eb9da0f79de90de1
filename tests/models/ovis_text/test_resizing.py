"""The sizes of Ovis-U1 against numbers of its released code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.errors import UserError
from sdpo_exp.models.ovis_text.resizing import (
    Size,
    ViewBounds,
    edit_size,
    rounded_size,
    view_sizes,
    visual_tokens,
)

sides = st.integers(32, 9000)


@pytest.mark.parametrize(
    ("given_size", "seen", "tokens"),
    [
        ((448, 448), (448, 448), 256),
        ((1024, 1024), (448, 448), 256),
        ((100, 100), (448, 448), 256),
        ((768, 1024), (392, 532), 266),
        ((1024, 768), (532, 392), 266),
        ((1080, 1920), (364, 616), 286),
        ((768, 1344), (364, 616), 286),
        ((512, 1024), (336, 644), 276),
        ((1024, 512), (644, 336), 276),
        ((256, 1024), (224, 896), 256),
    ],
)
def test_view_sizes_and_tokens_of_the_release(given_size, seen, tokens):
    assert view_sizes(*given_size)[1] == seen
    assert visual_tokens(*given_size) == tokens


@pytest.mark.parametrize(
    ("given_size", "edited"),
    [
        ((1024, 1024), (992, 992)),
        ((1080, 1920), (736, 1312)),
        ((768, 1344), (736, 1312)),
        ((512, 512), (512, 512)),
    ],
)
def test_edit_sizes_of_the_release(given_size, edited):
    assert edit_size(*given_size) == edited


@pytest.mark.parametrize("side", [*range(30, 1500, 37), 992, 1024, 2048])
def test_every_square_is_seen_at_448(side):
    assert view_sizes(side, side)[1] == (448, 448)


def test_the_second_resize_raises_what_the_first_left_small():
    first, second = view_sizes(1080, 1920)
    assert first.pixels < 448**2 <= second.pixels


@pytest.mark.parametrize(
    ("given_size", "rounded"),
    [
        ((70, 98), (56, 112)),  # 2.5 and 3.5: ties go to the even multiple
        ((14, 280), (28, 560)),  # the shorter side drawn out to the factor
        ((280, 14), (560, 28)),
        ((28, 28 * 300), (28, 28 * 200)),  # no longer than 200 times the shorter
        ((28 * 300, 28), (28 * 200, 28)),
    ],
)
def test_rounding_of_odd_sizes(given_size, rounded):
    assert rounded_size(*given_size) == rounded


@given(sides, sides)
def test_rounded_sizes_are_multiples_within_the_bounds(height, width):
    size = rounded_size(height, width)
    assert size.height % 28 == size.width % 28 == 0
    assert 3136 <= size.pixels <= 1_003_520


@given(sides, sides)
def test_height_and_width_are_treated_alike(height, width):
    turned = rounded_size(width, height)
    assert rounded_size(height, width) == Size(turned.width, turned.height)


@given(sides, sides)
def test_an_edit_size_stays(height, width):
    assert edit_size(*edit_size(height, width)) == edit_size(height, width)


def test_other_bounds_of_a_folder_count():
    bounds = ViewBounds(56 * 56, 112 * 112)
    assert view_sizes(64, 64, bounds) == (Size(56, 56), Size(56, 56))
    assert visual_tokens(64, 64, bounds) == 4


@pytest.mark.parametrize("size", [(1, 1281), (1281, 1)])
def test_a_line_is_no_picture(size):
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]} pixels is too narrow"):
        rounded_size(*size)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-3, 3)])
def test_no_size_is_an_error(size):
    with pytest.raises(ValueError, match="no size"):
        rounded_size(*size)
