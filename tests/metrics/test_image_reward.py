"""ImageReward against the same network written by hand on the original names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import weights
from sdpo_exp.metrics.blip import BlipReward, BlipSizes, renamed
from sdpo_exp.metrics.image_reward import ImageReward
from tests.metrics import blip_by_hand as by_hand
from tests.metrics.small import WORDS, bert_tokenizer, images

PROMPTS = ["a red cat", "A Dog, cats", "", "very " * 50 + "red"]
# Written out from WORDS: [CLS] is 2, [SEP] is 3; the last is cut to 35 with [SEP] kept.
IDS = [[2, 5, 6, 7, 3], [2, 5, 8, 9, 7, 10, 3], [2, 3], [2] + [11] * 33 + [3]]
SMALL = BlipSizes(
    vision_width=by_hand.WIDTH,
    vision_inner=by_hand.INNER,
    vision_layers=by_hand.LAYERS,
    image_size=by_hand.SIDE,
    patch_size=by_hand.PATCH,
    text_width=by_hand.TEXT,
    text_inner=by_hand.TEXT_INNER,
    text_layers=by_hand.LAYERS,
    vocabulary=len(WORDS) + 2,
    positions=by_hand.POSITIONS,
)


def state() -> dict[str, Tensor]:
    return by_hand.random_state(len(WORDS) + 2)


def expected(**changes: Any) -> Tensor:
    """Rewards float64 (4,) of the four images and texts, one by one."""
    transform = open_clip.image_transform(by_hand.SIDE, is_train=False)
    exact = {k: v.double() if v.is_floating_point() else v for k, v in state().items()}
    rows = [
        by_hand.reward(exact, transform(image).double(), ids, **changes)
        for image, ids in zip(images(), IDS, strict=True)
    ]
    return torch.stack(rows)


def test_the_score_is_the_standardised_reward() -> None:
    found = ImageReward.from_state_dict(state(), bert_tokenizer(), SMALL).score(images(), PROMPTS)
    torch.testing.assert_close(found.double(), expected(), atol=1e-5, rtol=0)
    assert found.dtype == torch.float32
    assert found.std() > 0.01


def test_the_network_is_the_original_to_float64() -> None:
    unused = [r".*(_proj\.(weight|bias)|position_ids)"]
    network = weights.build(lambda: BlipReward(SMALL), renamed(state()), "", unused).double()
    transform = open_clip.image_transform(by_hand.SIDE, is_train=False)
    pixels = torch.stack([transform(image) for image in images()]).double()
    ids = torch.tensor([row + [0] * (35 - len(row)) for row in IDS])
    raw = network(pixels, ids, (ids > 0).long())
    standardised = (raw - 0.16717362830052426) / 1.0333394966054072
    torch.testing.assert_close(standardised, expected(), atol=1e-11, rtol=0)


@pytest.mark.parametrize("trap", [{"text_heads": 8}, {"causal": True}, {"vision_eps": 1e-2}])
def test_each_silent_trap_would_be_seen(trap: dict[str, Any]) -> None:
    assert (expected(**trap) - expected()).abs().max() > 1e-3


def test_the_released_sizes_are_not_transformers_defaults() -> None:
    text, vision = BlipSizes().text(), BlipSizes().vision()
    assert (text.num_attention_heads, text.encoder_hidden_size) == (12, 1024)
    assert (text.vocab_size, text.layer_norm_eps, text.is_decoder) == (30524, 1e-12, True)
    assert (vision.num_attention_heads, vision.hidden_size, vision.image_size) == (16, 1024, 224)
    assert (vision.layer_norm_eps, vision.hidden_act) == (1e-6, "gelu")


def test_the_released_network_has_the_parameters_of_the_original() -> None:
    with torch.device("meta"):
        network = BlipReward(BlipSizes())
    projections = (1024 + 1) * 256 + (768 + 1) * 256
    assert sum(p.numel() for p in network.parameters()) == 446_665_953 - projections
    assert len(network.state_dict()) == 625 - 1 - 4


def test_only_the_unused_parts_are_dropped() -> None:
    needed = {k: v for k, v in state().items() if "_proj." not in k and "position_ids" not in k}
    assert len(state()) - len(needed) == 5
    ImageReward.from_state_dict(needed, bert_tokenizer(), SMALL)
    wrong = {**needed, "blip.text_encoder.pooler.dense.bias": torch.zeros(2)}
    with pytest.raises(UserError, match=r"has an unknown text\.pooler\.dense\.bias"):
        ImageReward.from_state_dict(wrong, bert_tokenizer(), SMALL)
    del needed["mlp.layers.7.bias"]
    with pytest.raises(UserError, match=r"ImageReward: wrong weights: lacks head\.7\.bias"):
        ImageReward.from_state_dict(needed, bert_tokenizer(), SMALL)


def test_an_image_encoder_of_another_width_is_refused() -> None:
    name = "blip.text_encoder.encoder.layer.0.crossattention.self.key.weight"
    wrong = {**state(), name: torch.zeros(by_hand.TEXT, by_hand.TEXT)}
    with pytest.raises(UserError, match=r"key.weight is \(192, 192\), not \(192, 128\)"):
        ImageReward.from_state_dict(wrong, bert_tokenizer(), SMALL)


def test_a_tokenizer_with_another_vocabulary_is_refused() -> None:
    tokenizer = bert_tokenizer()
    tokenizer.add_tokens(["more"])
    with pytest.raises(UserError, match=r"the tokenizer has 15 words .* the model 14"):
        ImageReward.from_state_dict(state(), tokenizer, SMALL)


def test_the_added_words_come_last_and_once() -> None:
    tokenizer = bert_tokenizer()
    for _ in range(2):
        ImageReward.from_state_dict(state(), tokenizer, SMALL)
    assert tokenizer.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [12, 13]


def test_folders_give_the_same_scores(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "ImageReward.pt")
    bert_tokenizer().save_pretrained(tmp_path / "words")
    scorer = ImageReward.from_pretrained(str(tmp_path), tokenizer=str(tmp_path / "words"))
    found = scorer.score(images(), PROMPTS).double()
    torch.testing.assert_close(found, expected(), atol=1e-5, rtol=0)


def test_sizes_are_read_off_the_weights() -> None:
    assert BlipSizes.of(renamed(state())) == SMALL
    with torch.device("meta"):
        released = BlipReward(BlipSizes()).state_dict()
    assert BlipSizes.of(released) == BlipSizes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("blip.visual_encoder.pos_embed", None),
        ("blip.visual_encoder.pos_embed", torch.zeros(1)),
        ("blip.text_encoder.embeddings.word_embeddings.weight", "words"),
        ("blip.text_encoder.embeddings.word_embeddings.weight", torch.zeros(14, 100)),
    ],
)
def test_weights_that_do_not_say_their_sizes_are_refused_as_not_the_released_ones(
    name: str, value: object
) -> None:
    wrong: dict[str, Any] = {**state(), name: value}
    if value is None:
        del wrong[name]
    with pytest.raises(UserError, match=r"ImageReward: wrong weights: .* more"):
        ImageReward.from_state_dict(wrong, bert_tokenizer())


def test_weights_whose_sizes_contradict_each_other_are_refused() -> None:
    wrong = {**state(), "blip.visual_encoder.pos_embed": torch.zeros(1, 4, by_hand.WIDTH)}
    with pytest.raises(UserError, match=r"position_embedding is \(1, 4, 128\), not \(1, 2, 128\)"):
        ImageReward.from_state_dict(wrong, bert_tokenizer())
