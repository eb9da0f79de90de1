"""An image is edited as the released sampler does: its tokens seen, two guidances, its own size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.models.ovis_text.image_rows import stretched_for_edit
from sdpo_exp.models.ovis_u1 import OvisU1
from sdpo_exp.models.yak.latents import grid_ids, pack, schedule, text_ids, unpack
from tests.models.ovis_u1.folder import write


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> OvisU1:
    made = OvisU1(str(write(tmp_path_factory.mktemp("ovis") / "model")), text_dtype="float32")
    made.denoiser.eval()
    return made


def picture(height: int = 60, width: int = 100, seed: int = 0) -> Image.Image:
    draw = np.random.default_rng(seed)
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


def zeros(shape: torch.Size) -> Tensor:
    return torch.zeros(1, *shape)


def by_hand(backbone: OvisU1, text: Tensor, x: Tensor, t: Tensor, source: Tensor | None) -> Tensor:
    """A branch by the network itself, unpadded and alone."""
    height, width = x.shape[-2:]
    seen = {}
    if source is not None:
        sides = (source.shape[-2] // 2, source.shape[-1] // 2)
        seen = {"cond_img": pack(source), "cond_img_ids": grid_ids(*sides, 1, axis0=1.0)}
    ids = grid_ids(height // 2, width // 2, 1)
    text = text[None]
    tokens = backbone.denoiser(pack(x), ids, text, text_ids(text.shape[1], 1), t, **seen)
    return unpack(tokens, height, width)


@torch.no_grad()
def test_an_edit_is_the_formula_over_three_forwards(backbone: OvisU1) -> None:
    pipeline, given = backbone.pipeline(), picture()
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    found = pipeline(
        " make it red ", image=given, latents=noise, num_inference_steps=2, output_type="latent",
        generator=torch.Generator().manual_seed(2),
    ).images  # fmt: skip
    seen = stretched_for_edit(given)
    assert seen.size == (96, 64)
    pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None].float() / 127.5 - 1
    posterior = backbone.vae.encode(pixels).latent_dist
    drawn = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(2))
    source = (posterior.mean + posterior.std * drawn) * 0.13025
    encoder = backbone.text_encoder
    (asked,) = encoder.encode(["make it red"], [seen], "edit")
    (unasked,) = encoder.encode([""], [seen], "unconditional")
    (nothing,) = encoder.encode([""], (64, 96), "unconditional")
    x = noise
    for now, following in pairwise(schedule(2, 4 * 6, backbone.denoiser.config).tolist()):
        t = torch.tensor([now])
        v_c = by_hand(backbone, asked, x, t, source)
        v_i = by_hand(backbone, unasked, x, t, source)
        v_b = by_hand(backbone, nothing, x, t, None)
        x = x + (following - now) * (v_b + 1.5 * (v_i - v_b) + 6 * (v_c - v_i))
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
    again = pipeline(
        "make it red", image=given, latents=noise, num_inference_steps=2, output_type="latent",
        generator=torch.Generator().manual_seed(2), image_guidance_scale=3.0,
    ).images  # fmt: skip
    assert not torch.allclose(again, found, atol=1e-2)


@torch.no_grad()
def test_conditions_of_edits_go_through_denoise(backbone: OvisU1) -> None:
    instructions, sources = ["make it red", "no hat"], [picture(seed=1), picture(seed=2)]
    asked = backbone.encode_edits(instructions, sources, zeros)
    assert asked.instructed["source"].shape == (2, 4, 8, 12)
    assert "source" not in asked.bare
    x, t = torch.randn(2, 4, 8, 12), torch.tensor([0.3, 0.8])
    seen = [stretched_for_edit(source) for source in sources]
    texts = backbone.text_encoder.encode(instructions, seen, "edit")
    found = backbone.denoise(backbone.denoiser, x, t, asked.instructed)
    for i, text in enumerate(texts):  # padded rows equal unpadded ones
        source = asked.instructed["source"][i : i + 1]
        alone = by_hand(backbone, text, x[i : i + 1], t[i : i + 1], source)
        torch.testing.assert_close(found[i : i + 1], alone, rtol=1e-4, atol=1e-5)
    other = backbone.denoise(backbone.denoiser, x, t, asked.uninstructed)
    blind = backbone.denoise(backbone.denoiser, x, t, asked.bare)
    assert not torch.allclose(found, other, atol=1e-3)
    assert not torch.allclose(other, blind, atol=1e-3)


def test_a_gradient_reaches_the_network_through_condition_tokens(backbone: OvisU1) -> None:
    asked = backbone.encode_edits(["make it red"], [picture()], zeros).instructed
    source = asked["source"].clone().requires_grad_()
    x = torch.randn(1, 4, 8, 12)
    told = {**asked, "source": source}
    backbone.denoise(backbone.denoiser, x, torch.tensor([0.5]), told).sum().backward()
    assert source.grad is not None
    assert bool(source.grad.abs().max() > 0)
    backbone.denoiser.zero_grad()


def test_the_size_of_an_edit_is_the_models_own(backbone: OvisU1) -> None:
    pipeline = backbone.pipeline()
    made = pipeline("blue", image=picture(), num_inference_steps=1, num_images_per_prompt=2)
    assert [image.size for image in made.images] == [(96, 64)] * 2
    with pytest.raises(UserError, match="an edit of this image is 64x96"):
        pipeline("blue", height=64, width=64, image=picture())
    with pytest.raises(UserError, match="end at one size, these at 64x64 and 96x64"):
        pipeline(["a", "b"], image=[picture(), picture(64, 64)])
    with pytest.raises(ValueError, match="1 images for 2 prompts"):
        pipeline(["a", "b"], image=[picture()])


def test_a_blank_is_seen_once_per_size(backbone: OvisU1, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, seen = backbone.text_encoder, []
    own = type(encoder).see
    monkeypatch.setattr(type(encoder), "see", lambda self, one: seen.append(one) or own(self, one))
    encoder.float()  # as after any move: nothing is kept
    first = encoder.encode(["a cat"], (64, 80), "t2i")
    again = encoder.encode(["a cat", "a dog"], (64, 80), "t2i")
    encoder.encode([""], (64, 80), "unconditional")
    assert [one.size for one in seen] == [(80, 64)]
    assert torch.equal(first[0], again[0])
    encoder.encode(["a cat"], (80, 64), "t2i")
    assert len(seen) == 2
    encoder.double()
    assert encoder.see(picture()).dtype == torch.float64
    encoder.float()
    assert torch.equal(encoder.encode(["a cat"], (64, 80), "t2i")[0], first[0])
