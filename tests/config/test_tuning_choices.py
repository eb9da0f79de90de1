"""What may be combined in tuning, reference, optimiser and precision."""

from __future__ import annotations

import pytest

from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.check import check_config
from sdpo_exp.config.composition import compose_cell

register_resolvers()
FULL, LORA, FROZEN, OFF = "FullTuning", "LoraTuning", "FrozenReference", "AdapterOff"


def problems(*overrides: str) -> list[str]:
    result = compose_cell("train", list(overrides))
    assert result.config is not None
    return [*result.problems, *check_config(result.config)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), (FULL, FROZEN)),
        (("tuning=lora",), (LORA, OFF)),
        (("tuning=lora", "reference=frozen"), (LORA, FROZEN)),
        (("reference=frozen", "tuning=lora"), (LORA, FROZEN)),
    ],
    ids=str,
)
def test_lora_chooses_its_reference_and_the_command_line_wins(
    overrides: tuple[str, ...], expected: tuple[str, str]
) -> None:
    config = compose_cell("train", list(overrides)).config
    assert config is not None
    assert check_config(config) == []
    classes = [config[group]._target_.rpartition(".")[2] for group in ("tuning", "reference")]
    assert tuple(classes) == expected


def test_adapters_off_needs_adapters() -> None:
    (problem,) = problems("reference=adapter_off")
    assert problem.endswith("Use tuning=lora, or reference=frozen.")


@pytest.mark.parametrize("precision", ["16-mixed", "16"])
def test_a_fused_optimizer_refuses_a_loss_scale(precision: str) -> None:
    (problem,) = problems("optimizer=adamw_fused", f"trainer.precision={precision}")
    assert "Use optimizer=adamw, or trainer.precision=bf16-mixed" in problem


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_without_a_scale_it_does_not(precision: str) -> None:
    assert problems("optimizer=adamw_fused", f"trainer.precision={precision}") == []


def test_half_precision_weights_need_a_reference_of_their_dtype() -> None:
    half = "trainer.precision=bf16-true"
    (problem,) = problems(half)
    assert problem.endswith("Give reference.dtype=bfloat16.")
    assert problems(half, "reference.dtype=bfloat16") == []
    assert problems(half, "tuning=lora") == []
    (problem,) = problems("trainer.precision=16-true", "reference.dtype=bfloat16")
    assert problem.endswith("Give reference.dtype=float16.")


@pytest.mark.parametrize("evaluation", ["tiny", "smoke"])
def test_a_real_model_is_not_judged_by_the_embedded_world(evaluation: str) -> None:
    (problem,) = problems("model=sd15", f"evaluation={evaluation}")
    assert "does not draw. Use evaluation=prompts, or evaluation=off" in problem


def test_a_smoke_run_of_a_real_model_is_small() -> None:
    overrides = ["experiment=smoke", "model=sd15", "evaluation=off"]
    config = compose_cell("train", overrides).config
    assert config is not None
    assert check_config(config) == []
    assert (config.effective_batch, config.max_steps) == (8, 6)
    assert config.data.validation_pairs == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tuning.rank=0", "tuning.rank: must be greater than or equal to 1"),
        ("tuning.alpha=0", "tuning.alpha: must be greater than 0"),
        ("tuning.dropout=1.0", "tuning.dropout: must be less than 1"),
        ("tuning.base_dtype=int8", "tuning.base_dtype: must be 'float32'"),
        ("tuning.targets=3", "tuning.targets: must be a valid string"),
        ("tuning.targets=[]", "tuning.targets: "),
        ("reference.device=gpu", "takes no 'device'"),
    ],
)
def test_a_value_out_of_range_is_told(override: str, message: str) -> None:
    (problem,) = problems("tuning=lora", override)
    assert message in problem
