"""What holds for every score: float32 whatever is around it, and each row on its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sdpo_exp.metrics.aesthetic import AestheticScore
from sdpo_exp.metrics.clip_score import ClipScore
from sdpo_exp.metrics.hps import HumanPreferenceScore
from sdpo_exp.metrics.image_reward import ImageReward
from sdpo_exp.metrics.pick_score import PickScore
from sdpo_exp.metrics.scorer import Scorer
from sdpo_exp.metrics.text_cache import TextCache
from tests.checkpoints import clip_tokenizer
from tests.metrics import test_aesthetic, test_image_reward, test_pick_score
from tests.metrics.small import CLIP, PROMPTS, bert_tokenizer, clip_config, clip_model, images

MAKERS: dict[str, Callable[[], Scorer]] = {
    "clip": lambda: ClipScore.from_state_dict(clip_model().state_dict(), CLIP),
    "hpsv2": lambda: HumanPreferenceScore.from_state_dict(clip_model().state_dict(), "v2.0", CLIP),
    "hpsv2.1": lambda: HumanPreferenceScore.from_state_dict(
        clip_model().state_dict(), "v2.1", CLIP
    ),
    "pickscore": lambda: PickScore.from_state_dict(
        test_pick_score.state(), clip_config(), clip_tokenizer()
    ),
    "aesthetic": lambda: AestheticScore.from_state_dict(
        test_aesthetic.state(), test_aesthetic.head_state(), test_aesthetic.config()
    ),
    "imagereward": lambda: ImageReward.from_state_dict(
        test_image_reward.state(), bert_tokenizer(), test_image_reward.SMALL
    ),
}
every_score = pytest.mark.parametrize("name", MAKERS)


@every_score
def test_rows_do_not_depend_on_the_batch(name: str) -> None:
    together = MAKERS[name]().score(images(), PROMPTS)
    scorer = MAKERS[name]()
    alone = [scorer.score([i], [p]) for i, p in zip(images(), PROMPTS, strict=True)]
    torch.testing.assert_close(torch.cat(alone), together, atol=2e-6, rtol=0)
    backwards = scorer.score(images()[::-1], PROMPTS[::-1]).flip(0)
    torch.testing.assert_close(backwards, together, atol=2e-6, rtol=0)
    assert scorer.name == name


@every_score
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_outer_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    plain = MAKERS[name]().score(images(), PROMPTS)
    scorer = MAKERS[name]()
    with torch.autocast("cpu", dtype=dtype):
        halved = torch.ones(2, 2) @ torch.ones(2, 2)
        found = scorer.score(images(), PROMPTS)
    assert halved.dtype == dtype
    assert found.dtype == torch.float32
    assert torch.equal(found, plain)


@every_score
def test_scores_carry_no_gradient_and_weights_take_none(name: str) -> None:
    scorer = MAKERS[name]()
    found = scorer.score(images(), PROMPTS)
    assert not found.requires_grad
    assert found.shape == (4,)
    # Not an inference tensor either: it may enter a computation that is differentiated.
    (found * torch.ones(4, requires_grad=True)).sum().backward()


@every_score
def test_no_images_give_no_scores(name: str) -> None:
    found = MAKERS[name]().score([], [])
    assert (found.shape, found.dtype) == ((0,), torch.float32)


@every_score
def test_float32_products_are_exact_inside_and_as_before_outside(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    scorer = MAKERS[name]()
    linear = torch.nn.functional.layer_norm

    def spy(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return linear(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "layer_norm", spy)
    before = torch.get_float32_matmul_precision()
    tf32 = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    try:
        scorer.score(images(), PROMPTS)
        assert set(seen) == {("highest", False)}
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32 == tf32
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_prompt_is_encoded_once() -> None:
    calls: list[list[str]] = []

    def encode(prompts: list[str]) -> torch.Tensor:
        calls.append(prompts)
        return torch.tensor([[float(len(p))] for p in prompts])

    cache = TextCache(encode)
    assert cache(["a", "bb", "a"]).tolist() == [[1], [2], [1]]
    assert cache(["bb", "ccc"]).tolist() == [[2], [3]]
    assert calls == [["a", "bb"], ["ccc"]]


@pytest.mark.parametrize("name", ["clip", "hpsv2", "hpsv2.1", "pickscore"])
def test_the_text_tower_runs_once_per_prompt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer: Any = MAKERS[name]()
    first = scorer.score(images(), PROMPTS)
    cache = scorer._texts if name == "pickscore" else scorer._cosine._texts
    monkeypatch.setattr(cache, "_encode", None)
    assert torch.equal(scorer.score(images(), PROMPTS), first)
