"""The published cells, as the command line resolves them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.check import check_config
from sdpo_exp.config.composition import compose_cell
from tests.cli.command import run

register_resolvers()
# (beta, mu, alpha, objective class), as published.
CELLS: dict[tuple[str, str], tuple[float, float, float | None, str]] = {
    ("sd15", "dpo"): (5000.0, 0.9, None, "DPO"),
    ("sd15", "dspo"): (0.001, 0.2, None, "DSPO"),
    ("sd15", "dmpo"): (2000.0, 0.9, 0.01, "DMPO"),
    ("sdxl", "dpo"): (5000.0, 0.6, None, "DPO"),
    ("sdxl", "dspo"): (5000.0, 0.6, None, "DSPOSDXL"),
    ("sdxl", "dmpo"): (6000.0, 0.6, 0.01, "DMPO"),
}
FAMILY: dict[str, dict[str, Any]] = {
    "sd15": {
        "pretrained": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "vae": None,
        "optimizer": "torch.optim.AdamW",
        "lr": 2.048e-5,
        "resolution": 512,
        "checkpointing": False,
    },
    "sdxl": {
        "pretrained": "stabilityai/stable-diffusion-xl-base-1.0",
        "vae": "madebyollin/sdxl-vae-fp16-fix",
        "optimizer": "transformers.optimization.Adafactor",
        "lr": 2.048e-6,
        "resolution": 1024,
        "checkpointing": True,
    },
}


def check_cell(config: Any, model: str, objective: str, guarded: bool) -> None:
    beta, mu, alpha, kind = CELLS[model, objective]
    family = FAMILY[model]
    assert config["objective"]["_target_"].rpartition(".")[2] == kind
    assert config["objective"]["beta"] == beta
    assert config["objective"].get("alpha") == alpha
    guard = config["safeguard"]
    if guarded:
        assert (guard["mu"], guard["scope"], guard["weighted"]) == (mu, "microbatch", False)
        assert guard["official_compat"] is False
    else:
        assert guard["_target_"].endswith("NoSafeguard")
        assert "mu" not in guard
    assert config["model"]["pretrained"] == family["pretrained"]
    assert config["model"]["vae"] == family["vae"]
    assert config["optimizer"]["_target_"] == family["optimizer"]
    assert config["optimizer"]["lr"] == config["lr"] == family["lr"]
    assert config["optimizer"]["weight_decay"] == 0.01
    assert config["resolution"] == config["data"]["transform"]["resolution"] == family["resolution"]
    assert config["tuning"]["_target_"].endswith("FullTuning")
    assert config["tuning"]["gradient_checkpointing"] is family["checkpointing"]
    check_common(config)


def check_common(config: Any) -> None:
    assert config["effective_batch"] == config["data"]["effective_batch"] == 2048
    assert (config["max_steps"], config["warmup_steps"]) == (2000, 500)
    data = config["data"]
    assert data["train"]["path"] == "yuvalkirstain/pickapic_v2"
    assert (data["micro_batch"], data["prompt_dropout"]) == (8, 0.2)
    assert (data["transform"]["crop"], data["transform"]["flip"]) == ("center", "off")
    assert config["trainer"]["precision"] == "bf16-mixed"
    assert config["trainer"]["gradient_clip_val"] == 1.0
    assert config["model"]["latents"] == "sample"
    assert config["model"]["empty_prompt"] == "encoded"
    assert "ema" not in config["callbacks"]
    assert config["recipe"]["source"].startswith("Diffusion-SDPO")


def resolved(*overrides: str) -> Any:
    composed = compose_cell("train", list(overrides))
    assert not composed.problems
    assert composed.config is not None
    assert check_config(composed.config) == []
    return OmegaConf.to_container(
        OmegaConf.masked_copy(composed.config, [k for k in composed.config if k != "run_dir"]),
        resolve=False,
    ) | {key: _plain(composed.config[key]) for key in composed.config if key not in _HYDRAS}


_HYDRAS = ("hydra", "run_dir", "trainer", "callbacks", "logger")


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


@pytest.mark.parametrize(("model", "objective"), CELLS)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_published_cell(model: str, objective: str, guarded: bool) -> None:
    safeguard = "on" if guarded else "off"
    config = resolved(f"model={model}", f"objective={objective}", f"safeguard={safeguard}")
    check_cell(config, model, objective, guarded)


@pytest.mark.few(1)
@pytest.mark.parametrize("model", FAMILY)
def test_the_users_own_command_shows_the_published_cells(model: str, tmp_path: Path) -> None:
    for objective, guarded in itertools.product(("dpo", "dspo", "dmpo"), (True, False)):
        done = run(
            tmp_path,
            f"model={model}",
            f"objective={objective}",
            f"safeguard={str(guarded).lower()}",
            "--cfg",
            "job",
            "--resolve",
        )
        assert done.returncode == 0, done.stderr
        check_cell(yaml.safe_load(done.stdout), model, objective, guarded)


@pytest.mark.parametrize("model", FAMILY)
def test_a_cell_nobody_published_keeps_the_familys_numbers_and_says_so(model: str) -> None:
    config = resolved(f"model={model}", "objective=sft")
    assert config["recipe"]["source"] is None
    assert config["lr"] == FAMILY[model]["lr"]
    assert config["effective_batch"] == 2048


def test_sdxl_dspo_says_which_form_it_is() -> None:
    assert "dspo_sdxl" in resolved("model=sdxl", "objective=dspo")["recipe"]["note"]
    same = resolved("model=sdxl", "objective=dspo_sdxl")
    assert same["objective"]["_target_"].endswith("DSPOSDXL")
    assert same["recipe"]["source"]


@pytest.mark.parametrize("model", FAMILY)
@pytest.mark.parametrize("safeguard", ["on", "off"])
def test_the_official_protocol(model: str, safeguard: str) -> None:
    config = resolved(f"model={model}", f"safeguard={safeguard}", "experiment=official_protocol")
    assert config["data"]["transform"]["flip"] == "independent"
    assert config["data"]["transform"]["crop"] == "center"
    assert config["data"]["micro_batch"] == 8
    assert config["recipe"]["mu"] == CELLS[model, "dpo"][1]
    if safeguard == "on":
        assert config["safeguard"]["official_compat"] is True
        assert config["safeguard"]["scope"] == "microbatch"
    assert resolved("experiment=official_protocol")["resolution"] == 512


def test_the_official_arithmetic_with_another_scope_is_refused() -> None:
    composed = compose_cell("train", ["experiment=official_protocol", "safeguard=pair"])
    assert composed.config is not None
    assert any("official_compat=true" in problem for problem in check_config(composed.config))


def test_effective_batch_and_devices_that_do_not_fit_are_told_with_the_way_out() -> None:
    composed = compose_cell("train", ["model=sdxl", "data.micro_batch=7"])
    assert composed.config is not None
    (problem,) = check_config(composed.config)
    assert problem.startswith("effective_batch=2048 is not a multiple of data.micro_batch=7")
    assert "effective_batch=2051" in problem
