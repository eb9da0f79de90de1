"""What holds for every score: float32 whatever is around it, and each row on its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdpo_exp.metrics import preprocessing
from sdpo_exp.metrics.text_cache import TextCache
from tests.metrics import stand_ins
from tests.metrics.small import PROMPTS, SIDE, images
from tests.metrics.test_image_reward import SMALL

MAKERS = stand_ins.IN_MEMORY
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


SHOWN = {"aesthetic": 1.0, "imagereward": 1.0}


@every_score
def test_a_scorer_says_how_it_is_shown_and_what_it_looks_at(name: str) -> None:
    scorer = MAKERS[name]()
    assert scorer.display_scale == SHOWN.get(name, 100.0)
    assert scorer.image_size == (SMALL.image_size if name == "imagereward" else SIDE)


@every_score
def test_an_image_cropped_before_scores_bitwise_the_same(name: str) -> None:
    scorer = MAKERS[name]()
    assert scorer.image_size is not None
    cropped = [preprocessing.crop(image, scorer.image_size) for image in images()]
    assert {image.size for image in cropped} == {(scorer.image_size, scorer.image_size)}
    found = MAKERS[name]().score(cropped, PROMPTS)
    assert torch.equal(found, scorer.score(images(), PROMPTS))


# One token per word and two at the ends: 77 and 35 are what fits, by hand.
LONGEST = {"imagereward": 33, "aesthetic": None}


@every_score
def test_prompts_that_are_cut_are_counted(name: str) -> None:
    scorer: Any = MAKERS[name]()
    fits = LONGEST.get(name, 75)
    prompts = ["", "cat", " ".join(["cat"] * (fits or 500)), " ".join(["cat"] * ((fits or 0) + 1))]
    assert scorer.cut_prompts(prompts) == (0 if fits is None else 1)
    assert scorer.cut_prompts([prompts[3], prompts[3]]) == (0 if fits is None else 2)
    assert scorer.cut_prompts([]) == 0


@pytest.mark.parametrize("name", ["pickscore", "imagereward"])
def test_counting_leaves_no_trace_in_the_tokenizer(name: str) -> None:
    counted: Any = MAKERS[name]()
    counted.cut_prompts(PROMPTS)
    assert torch.equal(counted.score(images(), PROMPTS), MAKERS[name]().score(images(), PROMPTS))


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


@pytest.mark.parametrize("name", ["clip", "hpsv2", "hpsv21", "pickscore"])
def test_the_text_tower_runs_once_per_prompt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer: Any = MAKERS[name]()
    first = scorer.score(images(), PROMPTS)
    monkeypatch.setattr(scorer._texts, "_encode", None)
    assert torch.equal(scorer.score(images(), PROMPTS), first)
