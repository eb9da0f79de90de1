"""SD 1.5, SD 2.1-v and SDXL in their on-disk format: what every family must keep."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from torch import Tensor

from sdpo_exp.errors import UserError
from sdpo_exp.models.latent import LatentBackbone
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.sdxl import StableDiffusionXL
from sdpo_exp.models.stable_diffusion import StableDiffusion
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from sdpo_exp.models.vae_latents import vae_dtype_on
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.safeguard import PreserveWinner
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Geometry, PairBatch, PairKey
from tests.checkpoints import save_sd15, save_sdxl

Make = Callable[..., LatentBackbone]
FAMILIES = ("sd15", "sd21v", "sdxl")
PROMPTS = ["a red cube", "", "a red cube"]
GEOMETRY = [Geometry(96, 80, 4, 0, 64, 64)] * 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        "sd15": save_sd15(root / "sd15"),
        "sd21v": save_sd15(root / "sd21v", "v_prediction"),
        "sdxl": save_sdxl(root / "sdxl"),
    }


@pytest.fixture(params=FAMILIES)
def make(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Make:
    kind = StableDiffusionXL if request.param == "sdxl" else StableDiffusion
    made = partial(kind, str(folders[request.param]))
    made.keywords["latents"] = "mode"
    return made


def batch(pairs: int = 2) -> PairBatch:
    generator = torch.Generator().manual_seed(3)
    winner, loser = torch.rand(2, pairs, 3, 64, 64, generator=generator) * 2 - 1
    keys = [PairKey(0, i, i) for i in range(pairs)]
    return PairBatch(winner, loser, PROMPTS[:pairs], keys, GEOMETRY[:pairs], [])


def preference_module(backbone: LatentBackbone, tuning: Any, reference: Any) -> PreferenceModule:
    module = PreferenceModule(
        backbone=backbone,
        objective=DPO(beta=5000.0),
        safeguard=PreserveWinner(mu=0.9),
        reference=reference,
        tuning=tuning,
        optimizer=partial(torch.optim.AdamW, lr=1e-4),
    )
    module.policy.train()
    return module


TUNINGS = {
    "full": lambda **o: (FullTuning(**o), FrozenReference()),
    "lora": lambda **o: (LoraTuning(rank=4, alpha=8, **o), AdapterOff()),
}


def no_noise(shape: Any) -> Tensor:
    raise AssertionError("the mode needs no noise")


# -- encoders ----------------------------------------------------------------------------------


def test_latents_are_the_vaes_mean_scaled(make: Make) -> None:
    backbone = make()
    pixels = batch().winner
    vae = AutoencoderKL.from_pretrained(backbone.folder / "vae").eval()
    with torch.no_grad():
        mean = vae.encode(pixels).latent_dist.mean
    assert backbone.encode_images(pixels, no_noise).shape == (2, 4, 8, 8)
    torch.testing.assert_close(
        backbone.encode_images(pixels, no_noise), mean * vae.config.scaling_factor
    )


def test_sampled_latents_use_the_noise_they_are_given(make: Make) -> None:
    backbone, pixels = make(latents="sample"), batch().winner
    vae = AutoencoderKL.from_pretrained(backbone.folder / "vae").eval()
    noise = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    expected = (posterior.mean + posterior.std * noise) * vae.config.scaling_factor
    asked: list[Any] = []
    got = backbone.encode_images(pixels, lambda shape: asked.append(tuple(shape)) or noise)
    assert asked == [(4, 8, 8)]
    torch.testing.assert_close(got, expected)


def test_the_batch_of_the_vae_does_not_matter(make: Make) -> None:
    pixels = torch.cat([batch().winner, batch().loser])
    torch.testing.assert_close(
        make(encode_batch=1).encode_images(pixels, no_noise), make().encode_images(pixels, no_noise)
    )


def test_encoders_ignore_an_autocast_around_them(make: Make) -> None:
    backbone, pixels = make(), batch().winner
    plain = backbone.encode_images(pixels, no_noise), backbone.encode_prompts(PROMPTS, GEOMETRY)
    with torch.autocast("cpu", torch.bfloat16):
        cast = backbone.encode_images(pixels, no_noise), backbone.encode_prompts(PROMPTS, GEOMETRY)
    assert torch.equal(plain[0], cast[0])
    assert all(torch.equal(plain[1][name], cast[1][name]) for name in plain[1])


def test_text_conditions_are_the_pipelines_own(make: Make) -> None:
    backbone = make()
    cond = backbone.encode_prompts(PROMPTS, GEOMETRY)
    pipeline = DiffusionPipeline.from_pretrained(backbone.folder)
    arguments = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    text, _, *pooled = pipeline.encode_prompt(PROMPTS, **arguments)
    torch.testing.assert_close(cond["text"], text)
    assert cond["text"].shape[:2] == (3, 77)
    if pooled:
        torch.testing.assert_close(cond["pooled"], pooled[0])


def test_token_ids_are_clips(make: Make) -> None:
    from sdpo_exp.models.stable_diffusion import token_ids

    text = "Ärger, über-schön! A photo of 12 CATS"
    ids = token_ids(make().tokenizer, [text, "word " * 200])
    expected = open_clip.tokenize([text])[0]
    length = int((expected != 0).sum())
    assert ids.shape == (2, 77)
    assert ids[0, :length].tolist() == expected[:length].tolist()
    assert ids[1, 0] == 49406
    assert ids[1, -1] == 49407


@pytest.mark.few(1)
def test_the_empty_prompt_is_encoded_or_zeros(make: Make) -> None:
    encoded = make().encode_prompts(PROMPTS, GEOMETRY)
    zeros = make(empty_prompt="zeros").encode_prompts(PROMPTS, GEOMETRY)
    for name in ("text", *(["pooled"] if "pooled" in encoded else [])):
        assert encoded[name][1].abs().max() > 0.1
        assert (zeros[name][1] == 0).all()
        assert torch.equal(zeros[name][0], encoded[name][0])


def test_sdxl_refuses_an_option_that_its_base_has_not(folders: dict[str, Path]) -> None:
    with pytest.raises(TypeError, match="time_id"):
        StableDiffusionXL(str(folders["sdxl"]), time_id="true")


def test_sdxl_time_ids_are_constant_or_true(folders: dict[str, Path]) -> None:
    constant = StableDiffusionXL(str(folders["sdxl"]))
    true = StableDiffusionXL(str(folders["sdxl"]), time_ids="true")
    published = constant.encode_prompts(PROMPTS, GEOMETRY)["time_ids"]
    assert published.tolist() == [[64, 64, 0, 0, 64, 64]] * 3
    assert true.encode_prompts(PROMPTS, GEOMETRY)["time_ids"][0].tolist() == [96, 80, 4, 0, 64, 64]


# -- predictions -------------------------------------------------------------------------------


def test_a_prediction_has_the_targets_shape_and_space(make: Make) -> None:
    backbone = make()
    module = preference_module(backbone, *TUNINGS["full"]())
    noisy, cond = module.draw(batch())
    prediction = module.predict_policy(noisy, cond)
    assert prediction.shape == noisy.target.shape == (4, 4, 8, 8)
    is_v = "sd21v" in str(backbone.folder)
    assert backbone.process.prediction_type == ("v_prediction" if is_v else "epsilon")


def test_betas_are_the_checkpoints_own(make: Make) -> None:
    # SD's scaled-linear schedule: alpha_bar at the end of 1000 steps.
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(make().process.alphas_cumprod, torch.cumprod(1 - betas, 0))


@pytest.mark.few(3)
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("autocast", [False, True])
def test_at_step_0_the_policy_is_the_reference(make: Make, tuning: str, autocast: bool) -> None:
    module = preference_module(make(), *TUNINGS[tuning]())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = module.training_step(batch(), 0)
    assert (output["record"].logits == 0).all()
    assert output["loss"].item() == pytest.approx(math.log(2), abs=1e-6)


def test_the_adapter_switched_off_is_the_base_to_the_bit(make: Make) -> None:
    pristine = preference_module(make(), *TUNINGS["full"]())
    module = preference_module(make(), *TUNINGS["lora"]())
    noisy, cond = pristine.draw(batch())
    for name, parameter in module.policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    assert torch.equal(module.predict_reference(noisy, cond), pristine.predict_policy(noisy, cond))
    moved = module.predict_policy(noisy, cond)
    assert (moved - pristine.predict_policy(noisy, cond)).abs().max() > 1e-3


@pytest.mark.few(2)
@pytest.mark.parametrize("tuning", TUNINGS)
def test_checkpointing_does_not_change_gradients(make: Make, tuning: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        parts = TUNINGS[tuning](gradient_checkpointing=checkpointing)
        module = preference_module(make(), *parts)
        for name, parameter in module.policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        module.training_step(batch(), 0)["loss"].backward()
        gradients.append(
            {n: p.grad for n, p in module.policy.named_parameters() if p.requires_grad}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


# -- export ------------------------------------------------------------------------------------


@pytest.mark.few(2)
@pytest.mark.parametrize("tuning", TUNINGS)
def test_an_export_draws_what_the_model_in_memory_draws(
    make: Make, tuning: str, tmp_path: Path
) -> None:
    backbone = make()
    preference_module(backbone, *TUNINGS[tuning]())
    with torch.no_grad():
        for parameter in backbone.denoiser.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    backbone.save(tmp_path / "model")
    reloaded = DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert not list((tmp_path / "model").rglob("*.bin"))
    images = [draw(pipeline) for pipeline in (backbone.pipeline(), reloaded, make().pipeline())]
    torch.testing.assert_close(images[0], images[1], atol=2e-4, rtol=0)
    assert (images[0] - images[2]).abs().max() > 0.01


def draw(pipeline: DiffusionPipeline) -> Tensor:
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.vae):
        part.eval()
    noise = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "pt"}
    return pipeline("a red cube", guidance_scale=3.0, generator=noise, **options).images


def test_half_precision_encoders_do_not_round_what_is_saved(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    backbone = StableDiffusion(str(folders["sd15"]), text_dtype="bfloat16")
    backbone.save(tmp_path / "model")
    assert backbone.text_encoder.dtype == torch.bfloat16
    saved = DiffusionPipeline.from_pretrained(tmp_path / "model").text_encoder.state_dict()
    base = DiffusionPipeline.from_pretrained(folders["sd15"]).text_encoder.state_dict()
    assert all(torch.equal(saved[name], base[name]) for name in base)


# -- half precision, other weights, mistakes ----------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_take_what_they_are_given(make: Make, dtype: torch.dtype) -> None:
    module = preference_module(make(), *TUNINGS["full"]())
    noisy, cond = module.draw(batch())
    full = module.predict_policy(noisy, cond)
    half = module.backbone.denoise(module.policy.to(dtype), noisy.x_t, noisy.t, cond)
    assert half.dtype == dtype
    assert (half.float() - full).abs().max() < 0.1


def test_a_float16_vae_that_overflows_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"overflows in float16.*vae_dtype=auto"):
        make(vae_dtype="float16")


def test_auto_keeps_a_vae_in_float32_where_half_is_not_safe(make: Make) -> None:
    vae = make().vae
    assert vae_dtype_on(vae, "auto", torch.device("cuda")) == torch.float32
    vae.register_to_config(force_upcast=False)
    assert vae_dtype_on(vae, "auto", torch.device("cuda")) == torch.float16
    assert vae_dtype_on(vae, "auto", torch.device("cpu")) == torch.float32


@pytest.mark.few(1)
def test_a_separate_vae_is_taken(make: Make, tmp_path: Path) -> None:
    from tests.checkpoints import small_vae

    base = make()
    torch.manual_seed(1)  # not the base's, whatever ran before
    other = small_vae(base.vae.config.scaling_factor)
    other.save_pretrained(tmp_path / "own")
    other.save_pretrained(tmp_path / "pipeline" / "vae")
    for folder in (tmp_path / "own", tmp_path / "pipeline"):
        taken = make(vae=str(folder)).vae.encoder.conv_in.weight
        assert torch.equal(taken, other.encoder.conv_in.weight)
        assert not torch.equal(taken, base.vae.encoder.conv_in.weight)
    small_vae(0.5).save_pretrained(tmp_path / "foreign")
    with pytest.raises(UserError, match=r"scales its latents by 0.5.*another family"):
        make(vae=str(tmp_path / "foreign"))
    with pytest.raises(UserError, match=r"model.vae=.*neither config.json nor vae/config.json"):
        make(vae=str(tmp_path))


def test_another_familys_checkpoint_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from tests.checkpoints import small_sd_unet

    with pytest.raises(UserError, match=r"not one of StableDiffusion: .*'text_time'.* width 64"):
        StableDiffusion(str(folders["sdxl"]))
    shutil.copytree(folders["sd15"], tmp_path / "inpainting")
    small_sd_unet(in_channels=9).save_pretrained(tmp_path / "inpainting" / "unet")
    with pytest.raises(UserError, match=r"takes 9 channels and its VAE makes 4"):
        StableDiffusion(str(tmp_path / "inpainting"))
    shutil.copytree(folders["sd15"], tmp_path / "odd")
    (tmp_path / "odd/scheduler/scheduler_config.json").write_text('{"_class_name": "Nothing"}')
    with pytest.raises(UserError, match=r"diffusers has no scheduler Nothing"):
        StableDiffusion(str(tmp_path / "odd"))


def test_a_size_that_the_vae_cannot_divide_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"resolution=100: .*multiple of 8"):
        make().encode_images(torch.zeros(1, 3, 100, 100), no_noise)


def test_absent_weights_of_the_unet_are_told_before_anything_is_loaded(
    folders: dict[str, Path],
) -> None:
    told = StableDiffusion.absent(str(folders["sd15"]), unet="no/unet.pth")
    assert told == "model.unet=no/unet.pth: no such file or folder"
    assert StableDiffusion.absent(str(folders["sd15"])) is None
    fp16 = StableDiffusion.absent(str(folders["sd15"]), variant="fp16")
    assert "lacks unet, vae, text_encoder/ (fp16)" in str(fp16)


def test_a_broken_part_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(folders["sd15"], folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"vae: cannot be loaded as AutoencoderKL"):
        StableDiffusion(str(folder))
    shutil.rmtree(folder / "unet")
    with pytest.raises(UserError, match=r"model.pretrained=.* lacks unet/"):
        StableDiffusion(str(folder))
