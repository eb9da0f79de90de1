"""The flow model of the embedded world keeps the contract that every backbone keeps."""

from __future__ import annotations

import json
import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sdpo_exp
from sdpo_exp.errors import UserError
from sdpo_exp.models.flow_process import FlowProcess
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.tiny_flow import TinyFlowBackbone, build_tiny_flow, open_pixel_model
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from sdpo_exp.objectives.dmpo import DMPO
from sdpo_exp.safeguard import PreserveWinner, ProjectLoser
from sdpo_exp.testbed.attributes import split_scenes
from sdpo_exp.testbed.captions import VOCABULARY, caption
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Geometry, NoisyPair, PairBatch, PairKey

CAPTIONS = [caption(scene) for scene in split_scenes("train")[:4]]


def backbone(seed: int = 0, process: FlowProcess | None = None) -> TinyFlowBackbone:
    torch.manual_seed(seed)
    made = build_tiny_flow(VOCABULARY)
    for parameter in made.denoiser.parameters():  # its gates begin at zero
        nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
    made.process = process or made.process
    return made


def batch(pairs: int = 4) -> PairBatch:
    images = torch.rand(2, pairs, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    keys = [PairKey(0, i, i) for i in range(pairs)]
    geometry = [Geometry(32, 32, 0, 0, 32, 32)] * pairs
    return PairBatch(images[0], images[1], CAPTIONS[:pairs], keys, geometry, [])


def module(tuning: Any = None, reference: Any = None, **options: Any) -> PreferenceModule:
    parts: dict[str, Any] = {
        "backbone": backbone(process=options.pop("process", None)),
        "objective": DMPO(beta=200.0, alpha=0.01),
        "safeguard": PreserveWinner(mu=0.5),
        "optimizer": partial(torch.optim.AdamW, lr=1e-3),
    }
    parts |= {"tuning": tuning or FullTuning(), "reference": reference or FrozenReference()}
    return PreferenceModule(**{**parts, **options})


def gradients(made: PreferenceModule) -> dict[str, Tensor]:
    made.training_step(batch(), 0)["loss"].backward()
    return {name: p.grad for name, p in made.policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("tuning", "reference"),
    [(FullTuning(), FrozenReference()), (LoraTuning(rank=4, alpha=4), AdapterOff())],
)
@pytest.mark.parametrize("safeguard", [PreserveWinner(mu=0.5), ProjectLoser()])
def test_the_first_step_finds_no_margin(tuning, reference, safeguard):
    made = module(tuning, reference, safeguard=safeguard)
    record = made.training_step(batch(), 0)["record"]
    assert (record.logits == 0).all()
    assert bool(record.finite)
    assert ((record.timestep > 0) & (record.timestep < 1)).all()


def test_the_loss_of_a_step_is_that_of_the_objective_at_no_margin():
    loss = module().training_step(batch(), 0)["record"].loss
    q = 0.99
    expected = 0.5 * math.log(0.5 / q) + 0.5 * math.log(0.5 / (1 - q))
    torch.testing.assert_close(loss, torch.full((4,), expected))


def test_checkpointing_leaves_gradients_alone():
    plain = gradients(module())
    recomputed = gradients(module(FullTuning(gradient_checkpointing=True)))
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


def test_adapters_switched_off_are_the_base_to_the_bit():
    made = module(LoraTuning(rank=4, alpha=4), AdapterOff())
    noisy, cond = made.draw(batch())
    expected = made.predict_reference(noisy, cond)
    for name, parameter in made.policy.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    assert torch.equal(made.predict_reference(noisy, cond), expected)
    with torch.no_grad():
        assert not torch.allclose(made.predict_policy(noisy, cond), expected)
    assert torch.equal(expected, backbone().denoise(backbone().denoiser, noisy.x_t, noisy.t, cond))


def test_a_weight_of_pairs_comes_from_the_process():
    """(1 - t)^2 times the errors of the same predictions, in the step as in the probe's batch."""
    made = module(process=FlowProcess("logit_normal", weighting="signal"))
    noisy, cond = made.draw(batch())
    assert noisy.weight is not None
    torch.testing.assert_close(noisy.weight, (1 - noisy.t[:4]) ** 2)
    with torch.no_grad():
        pred, ref = made.predict_policy(noisy, cond), made.predict_reference(noisy, cond)
    plain = NoisyPair(noisy.x_t, noisy.t, noisy.target).errors(pred, ref)
    torch.testing.assert_close(
        made.training_step(batch(), 0)["record"].winner_error, noisy.weight * plain.winner
    )
    held_out, _ = made.noise_batch(batch(), torch.full((4,), 0.3), 0)
    assert held_out.weight is not None
    torch.testing.assert_close(held_out.weight, torch.full((4,), 0.49))


def test_held_out_pairs_are_seen_at_the_times_themselves():
    for process in (FlowProcess(), FlowProcess("logit_normal", shift="static")):
        noisy, _ = module(process=process).noise_batch(batch(), torch.full((4,), 0.3), 0)
        torch.testing.assert_close(noisy.t, torch.full((8,), 0.3))


def test_what_is_saved_is_read_and_draws_the_same(tmp_path: Path) -> None:
    made = backbone()
    made.save(tmp_path / "model")
    index = json.loads((tmp_path / "model" / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "PixelShuffleFlowPipeline"]
    assert index["transformer"] == ["diffusers", "SD3Transformer2DModel"]
    pipelines = (
        made.pipeline(),
        TinyFlowBackbone(str(tmp_path / "model")).pipeline(),
        sdpo_exp.load_pipeline(tmp_path / "model"),
        open_pixel_model(tmp_path / "model").pipeline(),
    )
    drawn = [draw(pipeline, guidance_scale=2.0) for pipeline in pipelines]
    assert drawn[0].shape == (2, 3, 32, 32)
    for other in drawn[1:]:
        torch.testing.assert_close(other, drawn[0], rtol=0, atol=1e-5)
    assert not torch.allclose(drawn[0], draw(pipelines[0], guidance_scale=1.0), atol=1e-3)


def test_a_folder_without_an_index_is_known_by_its_transformer(tmp_path: Path) -> None:
    backbone().save(tmp_path / "model")
    (tmp_path / "model" / "model_index.json").unlink()
    found = sdpo_exp.load_pipeline(tmp_path / "model")
    assert type(found).__name__ == "PixelShuffleFlowPipeline"


def test_a_folder_that_lacks_a_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    with pytest.raises(UserError, match="it lacks text_encoder, tokenizer, scheduler"):
        TinyFlowBackbone(str(tmp_path))


def draw(pipeline: Any, **options: Any) -> Tensor:
    noise = torch.randn(2, 12, 16, 16, generator=torch.Generator().manual_seed(0))
    options |= {"num_inference_steps": 3, "output_type": "pt", "return_dict": False}
    (images,) = pipeline(CAPTIONS[:2], latents=noise, **options)
    return images


def test_the_sampler_is_eulers_method_on_shifted_times() -> None:
    """Against the sum written out: 1, 2/3, 1/3, 0 shifted by 3 are 1, 6/7, 3/5, 0."""
    made = backbone()
    x = torch.randn(2, 12, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cond = made.encode_prompts(CAPTIONS[:2])
        for t, following in pairwise((1.0, 6 / 7, 3 / 5, 0.0)):
            velocity = made.denoise(made.denoiser, x, torch.full((2,), t), cond)
            x = x + (following - t) * velocity
    found = draw(made.pipeline(), guidance_scale=1.0)
    expected = made.decode_latents(x).clamp(-1, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_model_takes_a_process_of_its_own(tmp_path: Path) -> None:
    backbone().save(tmp_path)
    process = FlowProcess(shift="none")
    assert TinyFlowBackbone(str(tmp_path), process).process is process
    assert TinyFlowBackbone(str(tmp_path)).process.distribution == "logit_normal"
