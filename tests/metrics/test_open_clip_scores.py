"""CLIP score and HPSv2 against transformers' CLIPModel with the same weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import hps, preprocessing
from sdpo_exp.metrics.clip_score import ClipScore
from sdpo_exp.metrics.hps import HumanPreferenceScore
from sdpo_exp.metrics.open_clip_config import CONFIG_FILE, VIT_H_14, config_of
from tests.checkpoints import clip_tokenizer
from tests.metrics.small import (
    CLIP,
    PROMPTS,
    SIDE,
    as_transformers,
    clip_config,
    clip_model,
    images,
)


def write_config(folder: Path, images: Any = None, **changes: Any) -> None:
    """`open_clip_config.json` of the small network, as LAION's repository has one of ViT-H-14."""
    plain = {"mean": list(preprocessing.MEAN), "std": list(preprocessing.STD)}
    content = {"model_cfg": {**CLIP, **changes}, "preprocess_cfg": {**plain, **(images or {})}}
    (folder / CONFIG_FILE).write_text(json.dumps(content))


def by_transformers(ids: Tensor, act: str = "gelu", end_of_text: int = 49407) -> Tensor:
    """Cosines of the four images and rows of ids, without any of the code under test."""
    model = CLIPModel(clip_config(act, end_of_text)).eval()
    model.load_state_dict(as_transformers(clip_model().state_dict()))
    transform = open_clip.image_transform(SIDE, is_train=False)
    pixels = torch.stack([transform(image) for image in images()])
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels)
    return (out.image_embeds * out.text_embeds).sum(-1)


def test_the_clip_score_is_the_raw_cosine() -> None:
    found = ClipScore.from_state_dict(clip_model().state_dict(), CLIP).score(images(), PROMPTS)
    torch.testing.assert_close(
        found, by_transformers(open_clip.tokenize(PROMPTS)), atol=1e-5, rtol=0
    )
    assert found.dtype == torch.float32
    assert found.std() > 0.01


@pytest.mark.parametrize(("version", "name"), [("v2.0", "hpsv2"), ("v2.1", "hpsv21")])
def test_hps_is_the_raw_cosine_of_the_released_layout(version: hps.Version, name: str) -> None:
    released: dict[str, Any] = {"epoch": 1, "state_dict": clip_model().state_dict()}
    scorer = HumanPreferenceScore.from_state_dict(released, version, CLIP)
    expected = by_transformers(open_clip.tokenize(PROMPTS))
    torch.testing.assert_close(scorer.score(images(), PROMPTS), expected, atol=1e-5, rtol=0)
    assert scorer.name == name


def test_texts_are_read_by_open_clips_tokenizer_and_not_transformers() -> None:
    ours = open_clip.tokenize(PROMPTS)
    theirs = clip_tokenizer("!")(
        PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )["input_ids"]
    same = (ours == theirs).all(dim=1).tolist()
    assert same == [True, False, True, True]
    found = ClipScore.from_state_dict(clip_model().state_dict(), CLIP).score(images(), PROMPTS)
    apart = (found - by_transformers(theirs)).abs()
    assert apart[1] > 1e-3
    assert apart[[0, 2, 3]].max() < 1e-5


def test_the_activation_matters_and_quick_gelu_is_refused() -> None:
    ids = open_clip.tokenize(PROMPTS)
    assert (by_transformers(ids) - by_transformers(ids, "quick_gelu")).abs().max() > 1e-3
    with pytest.raises(UserError, match="exact GELU"):
        ClipScore.from_state_dict(clip_model().state_dict(), {**CLIP, "quick_gelu": True})


def test_the_default_model_is_vit_h_14() -> None:
    vision, text = VIT_H_14["vision_cfg"], VIT_H_14["text_cfg"]
    assert VIT_H_14["embed_dim"] == 1024
    assert not VIT_H_14.get("quick_gelu")
    assert (vision["width"], vision["layers"], vision["head_width"]) == (1280, 32, 80)
    assert (vision["patch_size"], vision["image_size"]) == (14, 224)
    assert (text["width"], text["layers"], text["heads"]) == (1024, 24, 16)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_released_hps_file_is_read_from_a_folder(suffix: str, tmp_path: Path) -> None:
    write_config(tmp_path)
    states = [clip_model(seed=seed).state_dict() for seed in (1, 2)]
    for name, state in zip(("HPS_v2", "HPS_v2.1"), states, strict=True):
        file = tmp_path / f"{name}_compressed{suffix}"
        if suffix == ".pt":
            torch.save({"state_dict": state}, file)
        else:
            save_file(state, file)
    for version, state in zip(("v2.0", "v2.1"), states, strict=True):
        found = HumanPreferenceScore.from_pretrained(version, str(tmp_path))
        expected = HumanPreferenceScore.from_state_dict(state, version, CLIP)
        assert torch.equal(found.score(images(), PROMPTS), expected.score(images(), PROMPTS))


@pytest.mark.parametrize(
    ("version", "file"), [("v2.0", "HPS_v2.1_compressed.pt"), ("v2.1", "HPS_v2_compressed.pt")]
)
def test_the_other_hps_is_refused(version: hps.Version, file: str, tmp_path: Path) -> None:
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=f"version={version} is asked"):
        HumanPreferenceScore.from_pretrained(version, str(tmp_path / file))


def test_the_clip_score_takes_open_clips_file_and_not_transformers(tmp_path: Path) -> None:
    state = clip_model().state_dict()
    with pytest.raises(UserError, match=r"no open_clip_model.safetensors and no open_clip_py"):
        ClipScore.from_pretrained(str(tmp_path))
    torch.save(as_transformers(state), tmp_path / "open_clip_pytorch_model.bin")
    write_config(tmp_path)
    with pytest.raises(UserError, match="wrong weights: lacks positional_embedding"):
        ClipScore.from_pretrained(str(tmp_path))
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    found = ClipScore.from_pretrained(str(tmp_path)).score(images(), PROMPTS)
    expected = by_transformers(open_clip.tokenize(PROMPTS))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_without_a_configuration_beside_it_a_file_is_vit_h_14(tmp_path: Path) -> None:
    assert config_of(tmp_path / "weights.bin") is VIT_H_14
    text = {"model_cfg": VIT_H_14, "preprocess_cfg": {"mean": list(preprocessing.MEAN)}}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(text))
    assert config_of(tmp_path / "weights.bin") == VIT_H_14


@pytest.mark.parametrize(
    ("images", "changes", "message"),
    [
        ({"mean": [0.5, 0.5, 0.5]}, {}, r"has mean=\(0\.5, 0\.5, 0\.5\), it must be \(0\.48"),
        ({"interpolation": "bilinear"}, {}, "has interpolation=bilinear, it must be bicubic"),
        ({"resize_mode": "squash"}, {}, "has resize_mode=squash, it must be shortest"),
        (None, {"text_cfg": {**CLIP["text_cfg"], "context_length": 64}}, "has context_length=64"),
        (None, {"text_cfg": {**CLIP["text_cfg"], "hf_tokenizer_name": "t"}}, "hf_tokenizer_name=t"),
        (None, {"vision_cfg": {"depth": 3}}, "configuration of an open_clip CLIP .*depth"),
        (None, {"multimodal_cfg": {}}, "configuration of an open_clip CLIP .*multimodal_cfg"),
    ],
)
def test_a_configuration_of_another_kind_of_model_is_refused(
    images: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_config(tmp_path, images, **changes)
    with pytest.raises(UserError, match=f"{CONFIG_FILE}: .*{message}"):
        config_of(tmp_path / "weights.bin")


def test_a_broken_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text("{")
    with pytest.raises(UserError, match=f"{CONFIG_FILE}: not the configuration"):
        config_of(tmp_path / "weights.bin")


def test_a_quick_gelu_in_the_configuration_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, quick_gelu=True)
    torch.save(clip_model().state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match="exact GELU"):
        ClipScore.from_pretrained(str(tmp_path))


def test_a_model_of_another_size_is_refused_before_the_released_one_is_built() -> None:
    with pytest.raises(UserError, match=r"CLIP score: wrong weights: lacks .* more"):
        ClipScore.from_state_dict(clip_model().state_dict())


def test_vit_h_14_has_its_986_million_parameters() -> None:
    with torch.device("meta"):
        model = open_clip.CLIP(**VIT_H_14)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 986.1


def test_the_vocabulary_is_openais() -> None:
    table = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    assert hashlib.sha256(table.read_bytes()).hexdigest().startswith("924691ac")
