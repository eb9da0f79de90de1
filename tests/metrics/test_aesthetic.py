"""The aesthetic score against open_clip's quick-GELU tower and one affine map."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPModel, CLIPVisionConfig

from sdpo_exp.errors import UserError
from sdpo_exp.metrics.aesthetic import HEAD_FILE, AestheticScore
from tests.metrics.small import PROMPTS, SIDE, as_transformers, clip_config, clip_model, images

LAYERS = (0, 2, 4, 6, 7)


def state() -> dict[str, Tensor]:
    return as_transformers(clip_model(quick_gelu=True).state_dict())


def head_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    sizes = (24, 1024, 128, 64, 16, 1)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    named = [(f"layers.{n}", layer) for n, layer in zip(LAYERS, layers, strict=True)]
    return {f"{n}.{k}": v for n, layer in named for k, v in layer.state_dict().items()}


def config(act: str = "quick_gelu") -> CLIPVisionConfig:
    return clip_config(act).vision_config


def collapsed(head: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The whole head as one affine map, in float64."""
    weight, bias = torch.eye(24, dtype=torch.float64), torch.zeros(24, dtype=torch.float64)
    for n in LAYERS:
        w, b = head[f"layers.{n}.weight"].double(), head[f"layers.{n}.bias"].double()
        weight, bias = w @ weight, w @ bias + b
    return weight[0], bias[0]


def by_open_clip(quick_gelu: bool = True) -> Tensor:
    model, transform = clip_model(quick_gelu), open_clip.image_transform(SIDE, is_train=False)
    with torch.no_grad():
        found = model.encode_image(torch.stack([transform(image) for image in images()])).double()
    weight, bias = collapsed(head_state())
    return (found / found.norm(dim=-1, keepdim=True)) @ weight + bias


def test_the_score_is_one_affine_map_of_the_unit_embedding() -> None:
    found = AestheticScore.from_state_dict(state(), head_state(), config()).score(images(), PROMPTS)
    torch.testing.assert_close(found.double(), by_open_clip(), atol=1e-5, rtol=0)
    assert found.dtype == torch.float32
    assert found.std() > 1e-3


def test_the_activation_matters_and_exact_gelu_is_refused() -> None:
    assert (by_open_clip() - by_open_clip(quick_gelu=False)).abs().max() > 1e-4
    with pytest.raises(UserError, match="hidden_act=gelu, it must be quick_gelu"):
        AestheticScore.from_state_dict(state(), head_state(), config("gelu"))


def test_another_eps_is_refused() -> None:
    other = config()
    other.layer_norm_eps = 1e-6
    with pytest.raises(UserError, match="layer_norm_eps=1e-06, it must be 1e-05"):
        AestheticScore.from_state_dict(state(), head_state(), other)


def test_the_prompts_change_nothing() -> None:
    scorer = AestheticScore.from_state_dict(state(), head_state(), config())
    assert torch.equal(scorer.score(images(), PROMPTS), scorer.score(images(), ["other"] * 4))


def test_the_text_tower_is_dropped_and_nothing_else() -> None:
    vision = {name: value for name, value in state().items() if name.startswith("vis")}
    AestheticScore.from_state_dict(vision, head_state(), config())
    with pytest.raises(UserError, match=r"aesthetic score's CLIP: .* has an unknown audio_model"):
        AestheticScore.from_state_dict({**vision, "audio_model": 1}, head_state(), config())
    del vision["visual_projection.weight"]
    with pytest.raises(UserError, match=r"CLIP: .* lacks visual_projection\.weight"):
        AestheticScore.from_state_dict(vision, head_state(), config())


def test_another_head_is_refused() -> None:
    other = {name.replace("layers.7", "layers.8"): value for name, value in head_state().items()}
    with pytest.raises(UserError, match=r"score's head: wrong weights: lacks layers\.7\.weight"):
        AestheticScore.from_state_dict(state(), other, config())


def write(folder: Path) -> None:
    """Both parts, the head as the released file is: a pickle of a bare state dict."""
    model = CLIPModel(clip_config("quick_gelu"))
    model.load_state_dict(state())
    model.save_pretrained(folder)
    torch.save(head_state(), folder / HEAD_FILE)


def test_folders_give_the_same_scores(tmp_path: Path) -> None:
    write(tmp_path)
    head = tmp_path / HEAD_FILE
    digest = hashlib.sha256(head.read_bytes()).hexdigest()
    for given, expected in ((str(head), digest), (str(tmp_path), None)):
        scorer = AestheticScore.from_pretrained(given, str(tmp_path), head_sha256=expected)
        found = scorer.score(images(), PROMPTS).double()
        torch.testing.assert_close(found, by_open_clip(), atol=1e-5, rtol=0)
        assert scorer.origin["head"] == given
        assert scorer.origin["sha256"][HEAD_FILE] == digest


def test_a_head_that_is_not_the_released_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    message = r"not the released file .* expected 21dd590f"
    with pytest.raises(UserError, match=message):
        AestheticScore.from_pretrained(str(tmp_path), str(tmp_path))
    assert re.search(message, str(AestheticScore.absent(str(tmp_path), str(tmp_path))))
    assert AestheticScore.absent(str(tmp_path), str(tmp_path), head_sha256=None) is None


@pytest.mark.parametrize("head", [None, "absent.pth"])
def test_where_the_head_comes_from_is_told(head: str | None, tmp_path: Path) -> None:
    write(tmp_path)
    given = None if head is None else str(tmp_path / head)
    message = (
        r"metric\.aesthetic\.head.*; fetch sac\+logos\+ava1-l14-linearMSE\.pth from https://github"
        r"\.com/christophschuhmann/improved-aesthetic-predictor and give metric\.aesthetic\.head="
    )
    with pytest.raises(UserError, match=message):
        AestheticScore.from_pretrained(given)
    (line,) = str(AestheticScore.absent(given, str(tmp_path))).splitlines()
    assert re.match(message, line)
