"""Every file in conf/ composes, passes both checks, and what it builds keeps its protocol."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from sdpo_exp.cli.evaluate.evaluate import check_evaluate
from sdpo_exp.config import conf_dir
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.check import check_config
from sdpo_exp.config.composition import compose_cell
from sdpo_exp.config.hydra_versions import instantiate
from sdpo_exp.config.schema import GROUPS
from sdpo_exp.config.third_party import check_third_party
from sdpo_exp.safeguard import scale_loser_gradient
from sdpo_exp.types import PairErrors

CONF = conf_dir()
register_resolvers()


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    result = compose_cell("train", list(overrides))
    assert not result.problems
    assert result.config is not None
    return result.config


# What a choice leaves to its user.
REQUIRED = {
    "folder": ["data.train.path=photos"],
    "hf_pairs": ["data.train.path=owner/name"],
    "adapter_off": ["tuning=lora"],
}
EVERY = [(group, option) for group in (*GROUPS, "experiment") for option in options(group)]


@pytest.mark.parametrize(("group", "option"), EVERY, ids=lambda value: value)
def test_every_choice_composes_and_passes_both_checks(group: str, option: str) -> None:
    config = composed(f"{group}={option}", *REQUIRED.get(option, []))
    assert check_config(config) == []
    assert check_third_party(config) == []


@pytest.mark.parametrize("option", ["folder", "hf_pairs"])
def test_a_required_value_is_asked_for_once(option: str) -> None:
    assert check_config(composed(f"data={option}")) == ["data.train.path: a value is required"]


def test_every_group_of_the_config_folder_is_known() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    of_the_evaluation = {"metric", "prompts", "protocol"}
    assert folders == {*GROUPS, *of_the_evaluation, "experiment", "recipe", "hydra"}


OF_THE_EVALUATION = [
    (group, option) for group in ("metric", "prompts", "protocol") for option in options(group)
]


@pytest.mark.parametrize(("group", "option"), OF_THE_EVALUATION, ids=lambda value: value)
def test_every_choice_of_the_evaluation_composes_and_passes_its_check(
    group: str, option: str
) -> None:
    value = f"[{option}]" if group == "metric" else option
    overrides = [f"{group}={value}", *(["prompts.path=mine.txt"] if option == "file" else [])]
    result = compose_cell("evaluate", overrides)
    assert not result.problems
    assert result.config is not None
    assert check_evaluate(result.config) == []
    if group == "metric":
        assert list(result.config.metric) == [option]


@pytest.mark.parametrize("recipe", options("recipe"))
def test_a_recipe_sets_its_cell_and_the_command_line_still_wins(recipe: str) -> None:
    model = max((m for m in options("model") if recipe.startswith(f"{m}_")), key=len)
    objective = recipe.removeprefix(f"{model}_")
    config = composed(f"model={model}", f"objective={objective}")
    assert config.recipe.source
    assert check_config(config) == []
    assert composed(f"objective={objective}", "lr=0.5", "recipe.mu=0.25").lr == 0.5
    assert composed(f"objective={objective}", "recipe.mu=0.25").safeguard.mu == 0.25


def test_a_cell_without_recipe_keeps_the_fallback() -> None:
    assert composed("objective=hinge").recipe.source is None
    assert composed("objective=dpo").recipe.source is not None


def test_a_model_may_name_its_optimizer_and_data_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "recipe").mkdir()
    (tmp_path / "model" / "large.yaml").write_text(
        "defaults:\n  - override /optimizer@_global_.optimizer: adafactor\n"
        "_target_: sdpo_exp.models.tiny.TinyBackbone\n"
    )
    (tmp_path / "recipe" / "large_dmpo.yaml").write_text(
        "# @package _global_\nrecipe:\n  source: a test\n  beta: 6000.0\n  mu: 0.6\n"
        "lr: 2.048e-6\neffective_batch: 2048\n"
    )

    def cell(*overrides: str) -> DictConfig:
        result = compose_cell("train", ["model=large", *overrides], str(tmp_path))
        assert result.config is not None, result.problems
        return result.config

    published = cell("objective=dmpo", "safeguard=on")
    assert published.optimizer._target_.endswith("Adafactor")
    assert (published.objective.beta, published.safeguard.mu) == (6000.0, 0.6)
    assert (published.optimizer.lr, published.data.effective_batch) == (2.048e-6, 2048)
    assert cell("objective=dmpo", "optimizer=adamw").optimizer._target_ == "torch.optim.AdamW"
    assert cell("objective=dpo").recipe.source is None


def errors(policy: float = 0.0) -> tuple[PairErrors, torch.Tensor]:
    """Four pairs whose policy differs from the reference by `policy`."""
    generator = torch.Generator().manual_seed(0)
    ref, target = torch.randn(2, 8, 3, 4, 4, generator=generator)
    pred = (ref + policy * torch.randn(8, 3, 4, 4, generator=generator)).requires_grad_(True)
    return PairErrors.from_predictions(pred, ref, target), pred


AT_ZERO_MARGIN = {
    "dpo": math.log(2),
    "hinge": 1.0,
    "ipo": (0.5 / 200) ** 2,
    "dmpo": 0.5 * math.log(0.5 / 0.99) + 0.5 * math.log(0.5 / 0.01),
    "dspo_sdxl": 0.25,
}


@pytest.mark.parametrize("name", options("objective"))
def test_an_objective_is_finite_and_starts_at_its_known_value(name: str) -> None:
    objective = instantiate(composed(f"objective={name}").objective)
    start, _ = errors()
    output = objective(start)
    assert output.loss.shape == output.logits.shape == (4,)
    assert torch.equal(output.logits, torch.zeros(4))
    expected = AT_ZERO_MARGIN.get(name)
    if expected is None:  # sft and dspo start at the winner's error
        assert torch.allclose(output.loss, start.winner)
    else:
        assert torch.allclose(output.loss, torch.full((4,), expected))
    assert torch.isfinite(objective(errors(3.0)[0]).loss).all()


@pytest.mark.parametrize("name", options("objective"))
def test_an_objective_pulls_the_winner_and_never_pulls_the_loser(name: str) -> None:
    objective = instantiate(composed(f"objective={name}").objective)
    start, pred = errors()
    objective(start).loss.sum().backward()
    assert pred.grad is not None
    along_winner = (pred.grad[:4] * start.winner_residual).sum()
    along_loser = (pred.grad[4:] * start.loser_residual).sum()
    assert along_winner > 0  # a descent step lowers the winner's error
    assert along_loser <= 0  # and never lowers the loser's


@pytest.mark.parametrize("name", options("safeguard"))
def test_a_safeguard_keeps_values_and_scales_the_loser_by_lambda(name: str) -> None:
    safeguard: Any = instantiate(composed(f"safeguard={name}").safeguard)
    objective = instantiate(composed("objective=dpo").objective)
    start, pred = errors(0.5)
    guarded = safeguard(start, objective.weights(start))
    assert torch.equal(guarded.errors.loser, start.loser)
    assert guarded.lambda_safe.shape == guarded.lambda_would_be.shape == (4,)
    assert guarded.lambda_safe.dtype == torch.float32
    assert ((guarded.lambda_safe >= 0) & (guarded.lambda_safe <= 1)).all()
    expected = scale_loser_gradient(start, guarded.lambda_safe)
    ours = torch.autograd.grad(guarded.errors.loser.sum(), pred, retain_graph=True)[0]
    assert torch.equal(ours, torch.autograd.grad(expected.loser.sum(), pred)[0])


@pytest.mark.parametrize("name", options("optimizer"))
def test_an_optimizer_moves_at_the_configured_rate(name: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = instantiate(composed(f"optimizer={name}", "lr=0.01").optimizer)([parameter])
    assert optimizer.param_groups[0]["lr"] == 0.01
    parameter.grad = torch.full((3, 4), 0.3)
    optimizer.step()
    assert (parameter - 1).abs().max() < 0.011
    assert not torch.equal(parameter.detach(), torch.ones(3, 4))


def test_adafactor_is_the_published_one() -> None:
    config = composed("optimizer=adafactor").optimizer
    assert (config.relative_step, config.scale_parameter, config.clip_threshold) == (
        False,
        False,
        1.0,
    )
