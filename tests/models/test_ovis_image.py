"""Ovis-Image: training asks the transformer what diffusers' own pipeline asks it."""

from __future__ import annotations

import json
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, OvisImagePipeline, OvisImageTransformer2DModel
from diffusers.pipelines.ovis_image.pipeline_ovis_image import calculate_shift
from torch import Tensor, nn

from sdpo_exp.errors import UserError
from sdpo_exp.generation.drawing import DrawSettings, draw_batch
from sdpo_exp.generation.noise import Draw, latent_shape
from sdpo_exp.models.flow_process import FlowProcess
from sdpo_exp.models.lora import FILE
from sdpo_exp.models.ovis_image import OvisImage
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from sdpo_exp.objectives.dmpo import DMPO
from sdpo_exp.safeguard import PreserveWinner
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Geometry, PairBatch, PairKey
from tests.checkpoints import save_sd15, small_vae
from tests.ovis_image import save_ovis_image

PROMPTS = ["a cat", "", "two dogs on a red sofa", "a cat"]
PLACES = [Geometry(64, 64, 0, 0, 64, 64)] * 4
# Of diffusers' defaults, which are the released transformer: 7.37 B, as its report says.
FULL_SIZE, FULL_KEYS = 7_370_449_728, 583


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_ovis_image(tmp_path_factory.mktemp("ovis_image") / "model")


def plain(folder: Path) -> OvisImagePipeline:
    pipeline = OvisImagePipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def module(folder: Path, tuning: Any = None, reference: Any = None) -> PreferenceModule:
    return PreferenceModule(
        backbone=OvisImage(str(folder)),
        objective=DMPO(beta=500.0, alpha=0.01),
        safeguard=PreserveWinner(mu=0.5),
        reference=reference or FrozenReference(),
        tuning=tuning or FullTuning(),
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
    )


def batch(pairs: int = 4) -> PairBatch:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2, pairs, 3, 64, 64, generator=draw) * 2 - 1
    keys = [PairKey(0, i, i) for i in range(pairs)]
    return PairBatch(images[0], images[1], PROMPTS[:pairs], keys, PLACES[:pairs], [])


def test_a_prediction_is_the_transformers_call_inside_the_pipeline(folder: Path) -> None:
    pipeline, calls = plain(folder), []
    keep = lambda network, args, asked, output: calls.append((asked, output[0]))  # noqa: E731
    pipeline.transformer.register_forward_hook(keep, with_kwargs=True)
    prompts, height, width = PROMPTS[:2], 64, 96
    noise = torch.Generator().manual_seed(0)
    pipeline(prompts, height=height, width=width, num_inference_steps=3, generator=noise)
    assert len(calls) == 6  # conditional and unconditional

    backbone = OvisImage(str(folder))
    conds = [backbone.encode_prompts(texts, PLACES[:2]) for texts in (prompts, ["", ""])]
    unpack = partial(OvisImagePipeline._unpack_latents, height=8, width=12, vae_scale_factor=1)
    for number, (asked, output) in enumerate(calls):
        x_t, cond = unpack(asked["hidden_states"]), conds[number % 2]
        assert torch.equal(cond["text"], asked["encoder_hidden_states"])
        with torch.no_grad():
            found = backbone.denoise(backbone.denoiser, x_t, asked["timestep"], cond)
        torch.testing.assert_close(found, unpack(output), rtol=1e-5, atol=1e-6)
    times = [float(asked["timestep"][0]) for asked, _ in calls]
    assert 0 < times[-1] < times[0] == 1


def test_text_states_are_cut_and_padded_as_the_pipelines(folder: Path) -> None:
    text = OvisImage(str(folder)).encode_prompts([*PROMPTS, "word " * 99], [PLACES[0]] * 5)["text"]
    assert text.shape == (5, 256, 32)
    assert torch.equal(text[0], text[3])
    assert (text[0, -1] == 0).all()  # padding
    assert (text[4, -1] != 0).any()  # none left


def test_latents_are_shifted_and_scaled_as_the_pipeline_undoes_it(folder: Path) -> None:
    backbone, pixels = OvisImage(str(folder), latents="mode"), batch().winner
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    with torch.no_grad():
        mean = vae.encode(pixels).latent_dist.mean
    latents = backbone.encode_images(pixels, lambda shape: torch.zeros(4, *shape))
    assert latents.shape == (4, 16, 8, 8)
    torch.testing.assert_close(latents / 0.3611 + 0.1159, mean)
    with pytest.raises(UserError, match=r"resolution=72: .*multiple of 16"):
        backbone.encode_images(torch.zeros(1, 3, 72, 72), lambda shape: torch.zeros(shape))


def at_half(process: FlowProcess, side: int) -> float:
    times = process.sample_timesteps(torch.tensor([0.5]), (16, side, side))
    return float(torch.logit(times.double()))


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_times_are_shifted_as_the_samplers_are(folder: Path, tmp_path: Path, side: int) -> None:
    tokens = (side // 2) ** 2
    assert at_half(OvisImage(str(folder)).process, side) == pytest.approx(
        calculate_shift(tokens), abs=1e-4
    )
    shutil.copytree(folder, tmp_path / "other")
    file = tmp_path / "other/scheduler/scheduler_config.json"
    line = {"base_image_seq_len": 100, "max_image_seq_len": 900, "base_shift": 0.1}
    file.write_text(json.dumps({**json.loads(file.read_text()), **line, "max_shift": 0.3}))
    other = OvisImage(str(tmp_path / "other"))
    expected = calculate_shift(tokens, 100, 900, 0.1, 0.3)
    assert at_half(other.process, side) == pytest.approx(expected, abs=1e-4)


def test_another_distribution_of_times_is_taken(folder: Path) -> None:
    asked = FlowProcess("uniform", shift="resolution", base_shift=0.0, max_shift=None)
    process = OvisImage(str(folder), process=asked).process
    assert (process.base_shift, process.max_shift) == (0.0, 1.15)
    assert at_half(process, 32) == pytest.approx(0.0, abs=1e-5)
    assert at_half(OvisImage(str(folder), process=FlowProcess("uniform")).process, 128) == 0


def test_a_checkpoint_without_dynamic_shifts_has_its_static_one(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "static")
    file = tmp_path / "static/scheduler/scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "use_dynamic_shifting": False}))
    process = OvisImage(str(tmp_path / "static")).process
    assert at_half(process, 32) == pytest.approx(math.log(3.0), abs=1e-5)


CELLS = [
    (FullTuning(), FrozenReference()),
    (LoraTuning(rank=4, alpha=8), AdapterOff()),
]


@pytest.mark.parametrize(("tuning", "reference"), CELLS)
def test_the_first_step_finds_no_margin(folder: Path, tuning: Any, reference: Any) -> None:
    made = module(folder, tuning, reference)
    found = made.training_step(batch(), 0)
    assert (found["record"].logits == 0).all()
    assert bool(found["record"].finite)
    found["loss"].backward()
    trained = {n: p for n, p in made.policy.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    if isinstance(tuning, LoraTuning):
        blocks = {name.split(".attn.")[0] for name in trained}
        assert blocks == {"transformer_blocks.0"} | {
            f"single_transformer_blocks.{i}" for i in range(2)
        }


def test_checkpointing_changes_no_gradient(folder: Path) -> None:
    found = []
    for on in (False, True):
        made = module(folder, FullTuning(gradient_checkpointing=on))
        assert made.policy.gradient_checkpointing is on
        made.training_step(batch(2), 0)["loss"].backward()
        found.append({name: p.grad for name, p in made.policy.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], msg=name)


def moved(folder: Path, tuning: Any) -> OvisImage:
    backbone = OvisImage(str(folder))
    tuning.apply(backbone.denoiser)
    torch.manual_seed(1)
    for parameter in backbone.denoiser.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter.data, std=0.1)
    return backbone


def image(pipeline: Any) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    sides = {"height": 64, "width": 64, "num_inference_steps": 2, "output_type": "pt"}
    pipeline.set_progress_bar_config(disable=True)
    found: Tensor = pipeline("a cat", generator=noise, **sides).images
    return found


@pytest.mark.parametrize("tuning", [FullTuning(), LoraTuning(rank=4, alpha=8)])
def test_an_export_draws_the_same_in_plain_diffusers(
    folder: Path, tmp_path: Path, tuning: Any
) -> None:
    backbone = moved(folder, tuning)
    backbone.save(tmp_path / "saved")
    drawn = image(backbone.pipeline())
    torch.testing.assert_close(image(plain(tmp_path / "saved")), drawn, atol=2e-4, rtol=0)
    assert (image(plain(folder)) - drawn).abs().max() > 0.01


def test_adapters_come_back_by_the_transformers_own_loader(folder: Path, tmp_path: Path) -> None:
    backbone = moved(folder, LoraTuning(rank=4, alpha=8))
    backbone.save_lora(tmp_path)
    pipeline = plain(folder)
    pipeline.transformer.load_lora_adapter(tmp_path, weight_name=FILE)
    torch.testing.assert_close(image(pipeline), image(backbone.pipeline()), atol=2e-4, rtol=0)


def test_images_are_drawn_from_noise_of_their_own(folder: Path) -> None:
    pipeline = OvisImage(str(folder)).pipeline()
    settings = DrawSettings(guidance=5.0, steps=2, height=64, width=80)
    draws = [Draw(prompt, i, 0) for i, prompt in enumerate(PROMPTS[:2])]
    found = draw_batch(pipeline, draws, settings)
    assert found.shape == (2, 64, 80, 3)
    assert abs(found[1:] - draw_batch(pipeline, draws[1:], settings)).max() < 1e-4
    shared = DrawSettings(guidance=1.0, steps=1, noise="shared", height=64, width=64)
    assert draw_batch(pipeline, draws, shared).shape == (2, 64, 64, 3)
    assert latent_shape(pipeline, None, 64) == (16, 128, 8)
    with pytest.raises(UserError, match="multiples of 16, got 72"):
        latent_shape(pipeline, 72, None)


def test_what_a_pipeline_draws_by_itself_is_drawn_from_the_same_noise(folder: Path) -> None:
    pipeline = plain(folder)
    settings = DrawSettings(guidance=5.0, steps=2, noise="shared", height=64, width=64)
    ours = draw_batch(pipeline, [Draw("a cat", 0, 0)], settings)
    theirs = image(pipeline).permute(0, 2, 3, 1).numpy()
    assert abs(ours - theirs).max() < 1e-4


def test_another_familys_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    sd15 = save_sd15(tmp_path / "sd15")
    assert "lacks transformer/" in str(OvisImage.absent(str(sd15)))
    small_vae(0.18215).save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match="its transformer takes 64 channels and its VAE makes 16"):
        OvisImage(str(folder), vae=str(tmp_path / "vae"))
    shutil.copytree(folder, tmp_path / "flux")
    file = tmp_path / "flux/transformer/config.json"
    flux = {**json.loads(file.read_text()), "_class_name": "FluxTransformer2DModel"}
    file.write_text(json.dumps(flux))
    with pytest.raises(UserError, match="its transformer is a FluxTransformer2DModel, OvisImage"):
        OvisImage(str(tmp_path / "flux"))
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare/tokenizer/chat_template.jinja").unlink()
    with pytest.raises(UserError, match="bare/tokenizer: has no chat template"):
        OvisImage(str(tmp_path / "bare"))


def test_half_precision_takes_what_it_is_given(folder: Path) -> None:
    backbone = OvisImage(str(folder), text_dtype="bfloat16")
    assert backbone.text_encoder.dtype == torch.bfloat16
    cond = backbone.encode_prompts(PROMPTS, PLACES)
    assert cond["text"].dtype == torch.float32
    x_t, t = torch.randn(4, 16, 8, 8), torch.tensor([0.1, 0.4, 0.6, 0.9])
    with torch.no_grad():
        full = backbone.denoise(backbone.denoiser, x_t, t, cond)
        half = backbone.denoise(backbone.denoiser.to(torch.bfloat16), x_t, t, cond)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()


def test_the_full_size_transformer_has_the_reported_size() -> None:
    with torch.device("meta"):
        network = OvisImageTransformer2DModel()
    blocks = (len(network.transformer_blocks), len(network.single_transformer_blocks))
    assert blocks == (6, 27)
    assert len(network.state_dict()) == FULL_KEYS
    assert sum(p.numel() for p in network.parameters()) == FULL_SIZE
    LoraTuning(rank=16).apply(network)
    adapted = [name for name, p in network.named_parameters() if p.requires_grad]
    assert len(adapted) == 2 * (6 * 4 + 27 * 3)
