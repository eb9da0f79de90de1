"""Names that people import in their own code stay where they are."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "sdpo_exp": ("load_pipeline", "compose", "train", "RunResult", "UserError"),
    "sdpo_exp.safeguard": ("preserve_winner", "no_safeguard", "constant_weight"),
    "sdpo_exp.types": ("PairErrors", "PairBatch", "NoisyPair", "ObjectiveOutput", "StepRecord"),
    "sdpo_exp.protocols": ("Backbone", "Objective", "Safeguard", "GradientRule"),
    "sdpo_exp.training": ("PreferenceModule",),
    "sdpo_exp.objectives.dpo": ("dpo_loss",),
    "sdpo_exp.objectives.dspo": ("dspo_loss", "dspo_sdxl_loss"),
    "sdpo_exp.objectives.dmpo": ("dmpo_loss",),
    "sdpo_exp.objectives.sft": ("sft_loss",),
}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_name_can_be_imported(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in PUBLIC[module] if not hasattr(found, name)] == []
