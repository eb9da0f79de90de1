"""The shipped weights: pinned, small, and as good, but no better, than the recipe says."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sdpo_exp.models.pixel_backbone import PixelBackbone
from sdpo_exp.models.tiny import TinyBackbone
from sdpo_exp.models.tiny_flow import TinyFlowBackbone
from sdpo_exp.testbed.attributes import ATTRIBUTES, split_scenes
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.pretrain import RECIPE_FILE, weight_hashes
from sdpo_exp.testbed.sampling import LATENT_SHAPE, evaluate, sample


class Base(NamedTuple):
    """A shipped base: its class and name, the most bytes, and between what its accuracy lies."""

    kind: type[PixelBackbone]
    name: str
    largest: int
    accuracy: tuple[float, float]

    @property
    def recipe(self) -> dict[str, Any]:
        return json.loads((self.folder / RECIPE_FILE).read_text())

    @property
    def folder(self) -> Path:
        return self.kind.SHIPPED[self.name]


BASES = {
    "tiny": Base(TinyBackbone, "unfinished", 4_000_000, (0.62, 0.85)),
    "tiny_flow": Base(TinyFlowBackbone, "unfinished", 8_000_000, (0.5, 0.9)),
}


@pytest.fixture(scope="module", params=BASES)
def base(request):
    return BASES[request.param]


@pytest.fixture(scope="module")
def backbone(base):
    return base.kind(base=base.name)


def test_the_files_are_those_of_the_recipe(base):
    assert len(base.recipe["sha256"]) == 2
    assert weight_hashes(base.folder) == base.recipe["sha256"]


def test_the_folder_is_small(base):
    assert sum(file.stat().st_size for file in base.folder.rglob("*")) <= base.largest


def test_weights_are_half_precision_and_finite(base):
    for file in base.folder.glob("*/*.safetensors"):
        for weight in load_file(file).values():
            assert weight.dtype in (torch.float16, torch.int64)
            assert bool(torch.isfinite(weight).all())


def test_the_recorded_accuracy_leaves_head_room(base):
    assert [entry["guidance"] for entry in base.recipe["validation"]] == [1.0, 2.0]
    for entry in base.recipe["validation"]:
        assert entry["n"] == len(split_scenes("validation"))
        assert base.accuracy[0] <= entry["accuracy"] <= base.accuracy[1]


@pytest.mark.slow
def test_the_model_is_as_accurate_as_recorded(base, backbone):
    recorded = base.recipe["validation"][0]
    measured = evaluate(backbone, "validation", 64, seed=1)
    # Standard deviation of one image's accuracy about 0.25: 0.1 is three standard errors of 64.
    assert measured.accuracy == pytest.approx(recorded["accuracy"], abs=0.1)
    assert set(measured.by_attribute) == set(ATTRIBUTES)


def test_samples_depend_on_prompt_and_noise_alone(backbone):
    prompts = [caption(scene) for scene in split_scenes("validation")[:3]]
    noise = torch.randn(3, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))
    together = sample(backbone.pipeline(), prompts, noise, guidance=2.0, steps=3)
    alone = sample(backbone.pipeline(), prompts[2:], noise[2:], guidance=2.0, steps=3)
    assert together.shape == (3, 3, 32, 32)
    assert together.abs().max() <= 1
    np.testing.assert_allclose(together[2:], alone, atol=1e-4)
    other = sample(backbone.pipeline(), prompts[:1], noise[2:], guidance=2.0, steps=3)
    assert not torch.allclose(other, alone, atol=0.1)


def test_guidance_1_is_the_conditional_model(backbone):
    noise = torch.randn(1, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))
    prompt = [caption(split_scenes("test")[0])]
    plain = sample(backbone.pipeline(), prompt, noise, guidance=1.0, steps=2)
    nearly = sample(backbone.pipeline(), prompt, noise, guidance=1.0 + 1e-6, steps=2)
    torch.testing.assert_close(plain, nearly, atol=1e-4, rtol=0)
