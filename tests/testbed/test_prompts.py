"""Captions of the world as a prompt set: index i is scene i of the split."""

from __future__ import annotations

from collections import Counter

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config import conf_dir
from sdpo_exp.config.check import check_node
from sdpo_exp.data.prompt_hashes import texts_hash
from sdpo_exp.errors import UserError
from sdpo_exp.testbed.attributes import SPLITS, split_scenes
from sdpo_exp.testbed.captions import caption, parse_caption
from sdpo_exp.testbed.prompts import WorldCaptions


@pytest.mark.parametrize("split", SPLITS)
def test_index_i_is_scene_i_and_is_filed_under_its_shape_and_size(split) -> None:
    prompts = WorldCaptions(split, n=250).prompts()
    assert [prompt.index for prompt in prompts] == list(range(250))
    assert [parse_caption(p.text) for p in prompts] == list(split_scenes(split)[:250])
    for prompt, scene in zip(prompts, split_scenes(split), strict=False):
        assert prompt.labels == {"category": scene.shape, "size": scene.size}


def test_a_smaller_set_is_the_beginning_of_a_larger_one() -> None:
    small, large = WorldCaptions(n=10), WorldCaptions(n=400)
    assert small.prompts() == large.prompts()[:10]
    assert small.name == large.name == "tiny_test"
    expected = texts_hash([caption(scene) for scene in split_scenes("test")[:10]])
    assert small.fingerprint() == expected != large.fingerprint()


def test_the_default_prompts_never_change() -> None:
    """Images of earlier versions are compared by index with those of later ones."""
    prompts = WorldCaptions()
    assert len(prompts.prompts()) == 256
    assert prompts.prompts()[0].text == FIRST
    assert prompts.fingerprint() == RECORDED


FIRST = "a small green diamond on a white background at the top left"
RECORDED = "debf1995a8251831aa29731171c0a27cd3bdea483db0da1aeaecff9323a3f9d2"


def test_every_shape_and_size_is_well_represented() -> None:
    prompts = WorldCaptions().prompts()
    for axis, least in (("category", 40), ("size", 110)):
        assert min(Counter(prompt.labels[axis] for prompt in prompts).values()) >= least


@pytest.mark.parametrize(
    ("split", "n", "words"),
    [
        ("validation", 251, "prompts.n=251: the split validation has 250 captions"),
        ("test", 0, "prompts.n=0: the split test has 400 captions"),
        ("tests", 1, "split: one of train, validation, test, got 'tests'"),
    ],
)
def test_what_there_is_not_is_told(split, n, words) -> None:
    with pytest.raises(UserError) as caught:
        WorldCaptions(split, n)
    assert str(caught.value) == words


@pytest.mark.parametrize(("choice", "n"), [("tiny", 256), ("tiny_validation", 250)])
def test_the_choices_build(choice, n) -> None:
    config = OmegaConf.load(conf_dir() / "prompts" / f"{choice}.yaml")
    assert isinstance(config, DictConfig)
    assert list(check_node(config, "prompts")) == []
    prompts = instantiate(config)
    assert len(prompts.prompts()) == n
    assert prompts.name == f"tiny_{config.split}"
    assert prompts.absent(split="test") is None
    config.split, config.m = "tests", 3
    assert sorted(check_node(config, "prompts")) == [
        "prompts.m: unknown key; there are: split, n",
        "prompts.split: must be 'train', 'validation' or 'test', got 'tests'",
    ]
