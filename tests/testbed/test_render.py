"""The renderer: range, geometry, jitter."""

import numpy as np
import pytest

from sdpo_exp.testbed.attributes import PALETTE, Scene, all_scenes
from sdpo_exp.testbed.render import (
    ANCHORS,
    FIRST_CENTRE,
    draw_offsets,
    position_of,
    render,
    templates,
)

SQUARE = Scene("square", "large", "white", "black", "centre")


def test_images_are_float32_in_range_and_keep_the_border_free():
    offsets = np.tile([1, -1], (len(all_scenes()), 1))
    images = render(all_scenes(), offsets)
    assert images.shape == (2800, 3, 32, 32)
    assert images.dtype == np.float32
    assert np.abs(images).max() <= 1
    assert (images[:, :, 0, :] == images[:, :, :1, 0]).all()


def test_a_square_has_its_area_and_its_colours():
    image = render([SQUARE])[0]
    white, black = (2 * PALETTE[name][0] - 1 for name in ("white", "black"))
    assert image[0, 16, 16] == pytest.approx(white)
    assert image[0, 0, 0] == pytest.approx(black)
    # Half side 0.85 x 7 pixels; the box filter of the anti-aliasing keeps areas but in corners.
    covered = (image[0] - black).sum() / (white - black)
    assert covered == pytest.approx((2 * 0.85 * 7) ** 2, rel=0.01)


def test_jitter_moves_the_image_by_whole_pixels():
    still, moved = render([SQUARE, SQUARE], np.array([[0, 0], [1, -1]]))
    np.testing.assert_array_equal(np.roll(still, (1, -1), axis=(1, 2)), moved)


def test_drawn_offsets_take_all_nine_values():
    drawn = draw_offsets(np.random.default_rng(0), 500)
    assert len(np.unique(drawn, axis=0)) == 9
    assert np.abs(drawn).max() == 1


def test_large_shapes_cover_more_than_twice_the_small_ones():
    area = templates().sum((-1, -2))[:, :, 0, 0]
    assert (area[:, 1] > 2 * area[:, 0]).all()


def test_positions_are_the_bands_around_their_anchors():
    rows, columns = (ANCHORS - FIRST_CENTRE).T
    for shift in (-3, 0, 3):
        assert position_of(rows + shift, columns - shift).tolist() == [0, 1, 2, 3, 4]
    assert position_of(rows[:1], columns[-1:]).tolist() == [-1]


@pytest.mark.parametrize("offsets", [np.zeros((2, 2)), np.array([[4, 0]])])
def test_unusable_offsets_are_refused(offsets):
    with pytest.raises(ValueError, match="offsets must be"):
        render([SQUARE], offsets)


def test_no_scenes_give_no_images():
    assert render([]).shape == (0, 3, 32, 32)
