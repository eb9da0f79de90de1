"""The schedules of the public evaluation, whatever a configuration file was saved with."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers import DDPMScheduler, EulerDiscreteScheduler, PNDMScheduler

from sdpo_exp.errors import UserError
from sdpo_exp.generation.sampler import sampler_config, set_sampler
from tests.checkpoints import BETAS

EULER = "EulerDiscreteScheduler"


def released(folder: Path, *, saved_again: bool) -> Any:
    """SD 1.5's PNDM configuration: as released it names no timestep spacing, re-saved it does."""
    pndm = PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    pndm.save_pretrained(folder)
    file = folder / "scheduler_config.json"
    if not saved_again:
        lines = [line for line in file.read_text().splitlines() if "timestep_spacing" not in line]
        file.write_text("\n".join(lines).replace(",\n}", "\n}"))
    return SimpleNamespace(scheduler=PNDMScheduler.from_pretrained(folder))


@pytest.mark.parametrize("saved_again", [False, True])
def test_sd15_s_protocol_is_linspace_in_any_case(tmp_path: Path, saved_again: bool) -> None:
    pipeline = released(tmp_path, saved_again=saved_again)
    set_sampler(pipeline, EULER, {"timestep_spacing": "linspace"})
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(50)
    assert isinstance(scheduler, EulerDiscreteScheduler)
    assert np.allclose(scheduler.timesteps, np.linspace(999, 0, 50), rtol=1e-5)
    # sqrt(1/alpha_bar - 1) at the last of 1000 scaled-linear steps.
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    largest = np.sqrt(1 / np.prod(1 - betas) - 1)
    assert largest == pytest.approx(14.6146, rel=1e-5)
    assert float(scheduler.init_noise_sigma) == pytest.approx(largest, rel=1e-5)


def test_sdxl_s_protocol_is_leading_with_offset_one() -> None:
    pipeline = SimpleNamespace(scheduler=EulerDiscreteScheduler(**BETAS))
    set_sampler(pipeline, EULER, {"timestep_spacing": "leading", "steps_offset": 1})
    pipeline.scheduler.set_timesteps(50)
    assert pipeline.scheduler.timesteps.tolist() == list(range(981, 0, -20))
    sigma = float(pipeline.scheduler.init_noise_sigma)
    assert sigma == pytest.approx(np.sqrt(13.1204**2 + 1), rel=1e-5)


def test_betas_and_prediction_type_stay_the_checkpoint_s() -> None:
    own = DDPMScheduler(beta_end=0.03, prediction_type="v_prediction")
    pipeline = SimpleNamespace(scheduler=own)
    set_sampler(pipeline, EULER, {})
    config = sampler_config(pipeline)
    assert config["class"] == EULER
    assert (config["beta_end"], config["prediction_type"]) == (0.03, "v_prediction")
    set_sampler(pipeline, "DPMSolverMultistepScheduler", {})
    solver = sampler_config(pipeline)
    assert solver["lambda_min_clipped"] == "-inf"
    json.dumps(solver, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("EulerDiscrete", {}, "sampler.name=EulerDiscrete: diffusers has no such scheduler"),
        ("DiffusionPipeline", {}, "no such scheduler"),
        (EULER, {"spacing": "linspace"}, "knows no spacing"),
    ],
)
def test_a_sampler_that_is_not_there_is_told(name: str, options: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        set_sampler(SimpleNamespace(scheduler=DDPMScheduler()), name, options)
