"""PickScore against open_clip with the same weights and transformers' token ids."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor
from transformers import CLIPModel

from sdpo_exp.errors import UserError
from sdpo_exp.metrics.pick_score import PickScore, embedding
from tests.checkpoints import clip_tokenizer
from tests.metrics.small import PROMPTS, SIDE, as_transformers, clip_config, clip_model, images


def state() -> dict[str, Tensor]:
    return as_transformers(clip_model().state_dict())


def by_open_clip(ids: Tensor) -> Tensor:
    """Cosines of the four images and rows of ids, without any of the code under test."""
    model, transform = clip_model(), open_clip.image_transform(SIDE, is_train=False)
    with torch.no_grad():
        image = model.encode_image(torch.stack([transform(i) for i in images()]))
        text = model.encode_text(ids)
    return torch.cosine_similarity(image, text)


def transformers_ids() -> Tensor:
    """Padded with zeros, as open_clip wants them."""
    rows = clip_tokenizer()(PROMPTS, truncation=True, max_length=77)["input_ids"]
    return torch.tensor([row + [0] * (77 - len(row)) for row in rows])


@pytest.mark.parametrize("end_of_text", [49407, 2], ids=["new config", "old config"])
@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_the_score_is_the_raw_cosine(end_of_text: int, pad: str) -> None:
    scorer = PickScore.from_state_dict(
        state(), clip_config(end_of_text=end_of_text), clip_tokenizer(pad)
    )
    found = scorer.score(images(), PROMPTS)
    torch.testing.assert_close(found, by_open_clip(transformers_ids()), atol=1e-5, rtol=0)
    assert found.std() > 0.01
    assert scorer.name == "pickscore"


def test_texts_are_read_by_transformers_tokenizer_and_not_open_clips() -> None:
    found = PickScore.from_state_dict(state(), clip_config(), clip_tokenizer()).score(
        images(), PROMPTS
    )
    apart = (found - by_open_clip(open_clip.tokenize(PROMPTS))).abs()
    assert apart[1] > 1e-3
    assert apart[[0, 2, 3]].max() < 1e-5


@pytest.mark.parametrize(("name", "value"), [("hidden_act", "quick_gelu"), ("layer_norm_eps", 0.1)])
@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_configuration_with_wrong_scores_is_refused(part: str, name: str, value: object) -> None:
    config = clip_config()
    setattr(getattr(config, part), name, value)
    with pytest.raises(UserError, match=f"has {name}={value}, it must be"):
        PickScore.from_state_dict(state(), config, clip_tokenizer())


def test_an_end_of_text_that_no_prompt_has_is_refused() -> None:
    with pytest.raises(UserError, match="eos_token_id=7"):
        PickScore.from_state_dict(state(), clip_config(end_of_text=7), clip_tokenizer())


def test_another_models_tokenizer_is_refused() -> None:
    tokenizer = clip_tokenizer()
    tokenizer.eos_token = "cat</w>"
    with pytest.raises(UserError, match=r"is not CLIP's \(49407\)"):
        PickScore.from_state_dict(state(), clip_config(), tokenizer)


def test_old_position_ids_are_dropped_and_nothing_else() -> None:
    old = {
        f"{tower}_model.embeddings.position_ids": torch.arange(5) for tower in ("text", "vision")
    }
    PickScore.from_state_dict({**state(), **old}, clip_config(), clip_tokenizer())
    for extra in ("logit_bias", "position_ids_2"):
        wrong = {**state(), extra: torch.zeros(1)}
        with pytest.raises(UserError, match=f"PickScore: wrong weights: has an unknown {extra}"):
            PickScore.from_state_dict(wrong, clip_config(), clip_tokenizer())


def test_embeddings_of_both_major_versions_are_unwrapped() -> None:
    tensor = torch.ones(2)

    class Output:
        pooler_output = tensor

    assert embedding(tensor) is tensor
    assert embedding(Output()) is tensor


def test_folders_give_the_same_scores(tmp_path: Path) -> None:
    model = CLIPModel(clip_config())
    model.load_state_dict(state())
    # In half precision on disk, as a folder may be: it is scored in float32 all the same.
    model.half().save_pretrained(tmp_path / "model")
    clip_tokenizer().save_pretrained(tmp_path / "words")
    found = PickScore.from_pretrained(str(tmp_path / "model"), tokenizer=str(tmp_path / "words"))
    rounded = {name: value.half().float() for name, value in state().items()}
    expected = PickScore.from_state_dict(rounded, clip_config(), clip_tokenizer())
    assert torch.equal(found.score(images(), PROMPTS), expected.score(images(), PROMPTS))


def test_what_a_folder_lacks_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        PickScore.from_pretrained(str(tmp_path))
    CLIPModel(clip_config()).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no tokenizer"):
        PickScore.from_pretrained(str(tmp_path), tokenizer=str(tmp_path))
