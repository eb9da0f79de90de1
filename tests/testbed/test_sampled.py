"""Pairs of the base model's own samples: ranked by the checker, kept apart by split, complete."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sdpo_exp.errors import UserError
from sdpo_exp.testbed import sample_pairs as maker
from sdpo_exp.testbed import sampled
from sdpo_exp.testbed.attributes import split_scenes
from sdpo_exp.testbed.captions import caption, parse_caption
from sdpo_exp.testbed.checker import check
from sdpo_exp.testbed.render import render
from sdpo_exp.testbed.sample_pairs import SamplingPlan, sample_pairs
from sdpo_exp.testbed.sampled import SHIPPED, SampledPairs, SampledRow, write_samples

SPLITS = ("train", "validation")


@pytest.fixture(scope="module", params=SPLITS)
def shipped(request):
    return SampledPairs(request.param)


def test_the_package_carries_at_most_4_megabytes():
    assert sum(file.stat().st_size for file in SHIPPED["unfinished"].iterdir()) <= 4_000_000
    assert [len(SampledPairs(split)) for split in SPLITS] == [660, 80]


def test_the_content_is_pinned(shipped):
    pinned = {
        "train": "a8b92a8415a1d8a029161b68da9385a7913ea13c6ae356ab8b1debfcd84f626f",
        "validation": "779ca2e3aaf80753f08abf1bae22e0f5e15824df8d1140c8fed56190c05bf9ac",
    }
    assert shipped.fingerprint() == pinned[shipped.split]


def test_the_rewards_are_the_checker_s_and_no_pair_is_a_tie(shipped):
    scenes = [parse_caption(row.prompt) for row in shipped.rows]
    for side, name in ((0, "winner_reward"), (1, "loser_reward")):
        measured = check(np.stack([shipped[i][side] for i in range(len(shipped))]), scenes).reward
        recorded = [getattr(row, name) for row in shipped.rows]
        np.testing.assert_allclose(measured, recorded, atol=2e-4)
    assert all(row.winner_reward - row.loser_reward > 0.02 for row in shipped.rows)


def test_captions_stay_in_their_split(shipped):
    known = {caption(scene) for scene in split_scenes(shipped.split)}
    assert {row.prompt for row in shipped.rows} <= known


def test_rows_are_float_images_in_range(shipped):
    row = shipped[len(shipped) - 1]
    assert row.winner.shape == row.loser.shape == (3, 32, 32)
    assert row.winner.dtype == torch.float32
    assert row.winner.abs().max() <= 1
    with pytest.raises(IndexError):
        shipped[len(shipped)]


def noisy_renders(fail: bool = False):
    """In place of a model: clean renders, every other one nearly black."""

    def sample(_pipeline, prompts, *_rest):
        images = torch.from_numpy(render([parse_caption(prompt) for prompt in prompts]))
        if not fail:
            images[1::2] = -0.99
        return images

    return sample


def test_the_better_of_two_wins_and_the_folder_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(maker, "sample", noisy_renders())
    plan = SamplingPlan(train=25, validation=3)
    sample_pairs(tmp_path / "mine", plan, lambda _: None)
    train = SampledPairs("train", str(tmp_path / "mine"))
    assert (len(train), len(SampledPairs("validation", str(tmp_path / "mine")))) == (25, 3)
    for row, scene in zip(train.rows, split_scenes("train"), strict=False):
        assert row.prompt == caption(scene)
        assert row.winner_reward > 0.99 > row.loser_reward
    scene = parse_caption(train[24].prompt)
    np.testing.assert_allclose(train[24].winner.numpy(), render([scene])[0], atol=0.01)
    assert not (tmp_path / "mine.partial").exists()
    made_by = json.loads((tmp_path / "mine" / "pairs.json").read_text())["made_by"]
    assert made_by["command"].startswith("python -m sdpo_exp.sample_pairs train=25 validation=3 ")


def test_a_model_that_makes_only_ties_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(maker, "sample", noisy_renders(fail=True))
    with pytest.raises(UserError, match="no two samples of a caption differ by more"):
        sample_pairs(tmp_path / "mine", SamplingPlan(train=0, validation=1), lambda _: None)
    assert not (tmp_path / "mine").exists()


def test_an_existing_folder_is_not_overwritten(tmp_path):
    with pytest.raises(UserError, match="exists; remove it"):
        sample_pairs(tmp_path, SamplingPlan())


@pytest.fixture
def small(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32, 3), dtype=np.uint8)
    rows = [SampledRow(caption(scene), (0.8, 0.3)) for scene in split_scenes("train")[:3]]
    write_samples(tmp_path, {"train": rows}, {"train": images}, "a test")
    for index, (winner, loser) in enumerate(images):
        row = SampledPairs("train", str(tmp_path))[index]
        for tensor, pixels in ((row.winner, winner), (row.loser, loser)):
            back = ((tensor.numpy() + 1) * 127.5).round().astype(np.uint8)
            np.testing.assert_array_equal(back.transpose(1, 2, 0), pixels)
    return tmp_path


def test_the_fingerprint_follows_every_pixel(small):
    before = SampledPairs("train", str(small)).fingerprint()
    sheet = sampled.sheet_path(small, "train")
    pixels = np.asarray(sampled.Image.open(sheet)).copy()
    pixels[5, 70] ^= 1
    sampled.Image.fromarray(pixels).save(sheet)
    assert SampledPairs("train", str(small)).fingerprint() != before


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Two hundred captions with four samples each, of the rewards 0.2 0.8 0.5 0.9."""
    scenes = split_scenes("train")[:200]
    images = np.arange(4, dtype=np.uint8)[None, :, None, None, None]
    images = np.broadcast_to(images, (200, 4, 32, 32, 3))
    rows = [SampledRow(caption(scene), (0.2, 0.8, 0.5, 0.9)) for scene in scenes]
    rows[0] = rows[0]._replace(rewards=(0.6, 0.6, 0.5, 0.6))
    write_samples(tmp_path, {"train": rows}, {"train": images}, "a test")
    return tmp_path


@pytest.mark.parametrize(("k", "best", "worst"), [(None, 3, 0), (4, 3, 0), (3, 1, 0), (2, 1, 0)])
def test_the_best_of_k_stands_against_the_worst(four, k, best, worst):
    pairs = SampledPairs("train", str(four), k)
    assert len(pairs) == (199 if k == 2 else 200)  # a tie among the first two makes no pair
    assert (pairs.images[-1, 0] == best).all()
    assert (pairs.images[-1, 1] == worst).all()
    assert pairs.rows[-1].winner_reward == {3: 0.9, 1: 0.8}[best]
    assert pairs.rows[-1].loser_reward == 0.2


def test_small_gaps_make_no_pairs(four):
    assert len(SampledPairs("train", str(four), min_gap=0.2)) == 199
    with pytest.raises(UserError, match=r"min_gap=0.9 leaves no pair of 'train'"):
        SampledPairs("train", str(four), min_gap=0.9)


def test_flipped_labels_are_a_share_that_grows_by_itself(four):
    def flipped(noise, seed=0):
        rows = SampledPairs("train", str(four), label_noise=noise, label_noise_seed=seed).rows
        return {i for i, row in enumerate(rows) if row.winner_reward < row.loser_reward}

    assert flipped(0.0) == set()
    assert len(flipped(0.3)) == pytest.approx(60, abs=20)
    assert flipped(0.1) < flipped(0.3) < flipped(1.0)
    assert len(flipped(1.0)) == 200
    assert flipped(0.3) != flipped(0.3, seed=1)
    pairs = SampledPairs("train", str(four), label_noise=1.0)
    assert (pairs.images[-1, 0] == 0).all()


@pytest.mark.parametrize("k", [1, 5])
def test_more_samples_than_there_are_is_told(four, k):
    with pytest.raises(UserError, match=rf"k={k}: .* has 4 samples a caption"):
        SampledPairs("train", str(four), k)


def test_broken_folders_are_told_in_words(small):
    def complaint(split="train"):
        with pytest.raises(UserError) as caught:
            SampledPairs(split, str(small))
        return str(caught.value)

    assert "has no pairs for split 'validation'" in complaint("validation")
    index = small / "pairs.json"
    text = index.read_text()
    index.write_text(text.replace("0.3", "0.8", 1))
    assert "train row 0: no sample is better than another" in complaint()
    index.write_text(text.replace("a small", "a tiny").replace("a large", "a huge"))
    assert "train row 0: not a caption of the testbed" in complaint()
    index.write_text(text[:-9])
    assert "pairs.json: cannot be read" in complaint()
    index.write_text(text)
    (small / "train.png").write_bytes(b"no image")
    assert "train.png: cannot be read" in complaint()
    shutil.copyfile(SHIPPED["unfinished"] / "train.png", small / "train.png")
    assert "do not fit the 3 pairs of the index" in complaint()
    index.unlink()
    assert "python -m sdpo_exp.sample_pairs" in complaint()
