"""A further family is one class: v-prediction, few-step distilled and flow models, each tried."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from torch import Tensor, nn

from sdpo_exp.models.flow_process import FlowProcess
from sdpo_exp.models.forward_process import VPProcess
from sdpo_exp.models.reference import FrozenReference
from sdpo_exp.models.sdxl import StableDiffusionXL
from sdpo_exp.models.stable_diffusion import StableDiffusion
from sdpo_exp.models.tuning import FullTuning
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.safeguard import PreserveWinner
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Conditioning, Geometry, PairBatch, PairKey
from tests.checkpoints import BETAS, save_sd15, save_sdxl


class Turbo(StableDiffusionXL):
    """Four timesteps, betas with zero terminal SNR: all of it in the process."""

    def __init__(self, pretrained: str, **options: Any) -> None:
        super().__init__(pretrained, **options)
        self.process = VPProcess(
            self.process.alphas_cumprod, self.process.prediction_type, (249, 499, 749)
        )


class Flow(StableDiffusion):
    """A UNet that predicts velocity at t in (0, 1) and is told 1000 t."""

    def __init__(self, pretrained: str, **options: Any) -> None:
        super().__init__(pretrained, **options)
        self.process: Any = FlowProcess()

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        return super().denoise(network, x_t, 1000 * t, cond)


def step(backbone: Any) -> tuple[Any, PreferenceModule]:
    module = PreferenceModule(
        backbone=backbone,
        objective=DPO(beta=2000.0),
        safeguard=PreserveWinner(mu=0.5),
        reference=FrozenReference(),
        tuning=FullTuning(),
        optimizer=partial(torch.optim.AdamW, lr=1e-4),
    )
    images = torch.rand(2, 8, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    keys = [PairKey(0, i, i) for i in range(8)]
    geometry = [Geometry(64, 64, 0, 0, 64, 64)] * 8
    batch = PairBatch(images[0], images[1], [f"prompt {i}" for i in range(8)], keys, geometry, [])
    output = module.training_step(batch, 0)
    output["loss"].backward()
    return output["record"], module


def check(record: Any, module: PreferenceModule) -> None:
    assert (record.logits == 0).all()
    assert bool(record.finite)
    assert all(p.grad is not None for p in module.policy.parameters())


def test_a_few_step_family(tmp_path: Path) -> None:
    folder = save_sdxl(tmp_path / "turbo")
    scheduler = EulerAncestralDiscreteScheduler(
        **BETAS, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    scheduler.save_pretrained(folder / "scheduler")
    backbone = Turbo(str(folder))
    assert backbone.process.alphas_cumprod[-1] < 1e-6
    record, module = step(backbone)
    check(record, module)
    assert set(record.timestep.tolist()) <= {249, 499, 749}
    assert len(set(record.timestep.tolist())) > 1


def test_a_flow_family(tmp_path: Path) -> None:
    record, module = step(Flow(str(save_sd15(tmp_path / "flow"))))
    check(record, module)
    assert record.timestep.is_floating_point()
    assert ((record.timestep > 0) & (record.timestep < 1)).all()


def test_a_v_prediction_family_needs_no_file_at_all(tmp_path: Path) -> None:
    backbone = StableDiffusion(str(save_sd15(tmp_path / "v", "v_prediction")))
    record, module = step(backbone)
    check(record, module)
    batch_t = torch.tensor([400])
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    signal = backbone.process.alphas_cumprod[400].sqrt()
    expected = signal * noise - (1 - signal**2).sqrt() * latents
    torch.testing.assert_close(backbone.process.target(latents, noise, batch_t), expected)


def test_timesteps_outside_the_table_are_refused() -> None:
    for wrong in ([], [-1], [0, 1000]):
        with pytest.raises(ValueError, match=r"timesteps must lie in 0\.\.999"):
            VPProcess(torch.linspace(0.9, 0.1, 1000), "epsilon", wrong)
