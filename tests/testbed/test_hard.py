"""Hard negatives: clean minimal pairs made of the base model's own mistakes."""

import numpy as np
import pytest
import torch

from sdpo_exp.testbed.attributes import differing, split_scenes
from sdpo_exp.testbed.captions import caption, parse_caption
from sdpo_exp.testbed.checker import check, read
from sdpo_exp.testbed.hard import HardPairs
from sdpo_exp.testbed.render import render
from sdpo_exp.testbed.sampled import SampledPairs, SampledRow, write_samples


@pytest.fixture(scope="module")
def source():
    return HardPairs("validation")


def test_there_are_enough_pairs_for_training_and_probe(source):
    assert len(source) >= 64
    assert len(HardPairs("train")) >= 600


def test_winner_and_loser_are_clean_and_differ_as_the_scenes_do(source):
    wanted, drawn = zip(*source.scenes, strict=True)
    rows = [source[i] for i in range(len(source))]
    assert check(np.stack([row.winner for row in rows]), wanted).exact.all()
    assert check(np.stack([row.loser for row in rows]), drawn).exact.all()
    assert all(differing(*pair) for pair in source.scenes)
    assert [row.prompt for row in rows] == [caption(scene) for scene in wanted]
    assert set(wanted) <= set(split_scenes("validation"))


def test_winner_and_loser_share_their_place(source):
    for i, (wanted, drawn) in enumerate(source.scenes):
        if differing(wanted, drawn) == ("foreground",):
            apart = (source[i].winner - source[i].loser).abs().sum(0) > 0
            shape = (source[i].winner - source[i].winner[:, :1, :1]).abs().sum(0) > 0
            assert torch.equal(apart, shape)


def test_losers_are_what_the_checker_read(tmp_path):
    wanted = split_scenes("train")[:2]
    drawn = split_scenes("train")[5:7]
    images = np.stack([render([w, d]) for w, d in zip(wanted, drawn, strict=True)])
    pixels = ((images + 1) * 127.5).round().astype(np.uint8).transpose(0, 1, 3, 4, 2)
    rows = [SampledRow(caption(scene), (0.9, 0.2)) for scene in wanted]
    write_samples(tmp_path, {"train": rows}, {"train": pixels}, "a test")
    assert HardPairs("train", str(tmp_path)).scenes == tuple(zip(wanted, drawn, strict=True))


def test_the_mistakes_are_the_base_s_own(source):
    pairs = SampledPairs("validation")
    shown = read(pairs.images.reshape(-1, 32, 32, 3)).values.tolist()
    captions = [row.prompt for row in pairs.rows for _ in range(2)]
    seen = {(text, tuple(values)) for text, values in zip(captions, shown, strict=True)}
    assert all((caption(wanted), drawn.indices) in seen for wanted, drawn in source.scenes)


def test_another_seed_is_another_jitter_of_the_same_scenes(source):
    other = HardPairs("validation", seed=1)
    assert other.scenes == source.scenes
    assert other.fingerprint() != source.fingerprint()
    assert any(not torch.equal(other[i].winner, source[i].winner) for i in range(8))
    assert parse_caption(source[0].prompt) == source.scenes[0][0]
