"""What a class declares is read from source, and is what it has once imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from sdpo_exp.config import conf_dir
from sdpo_exp.config.class_values import class_value
from tests.cli.command import environment

MODELS = [OmegaConf.load(path) for path in sorted((conf_dir() / "model").glob("*.yaml"))]
TARGETS = [str(node.get("model", node)["_target_"]) for node in MODELS]


@pytest.mark.parametrize("target", TARGETS)
def test_a_family_is_read_as_it_is(target: str) -> None:
    assert class_value(target, "FAMILY") == getattr(get_object(target), "FAMILY", None)


def test_what_is_not_declared_or_not_ours_has_no_value() -> None:
    assert class_value("sdpo_exp.models.sdxl.StableDiffusionXL", "PIPELINE") is None
    assert class_value("sdpo_exp.models.sdxl.Nothing", "FAMILY") is None
    assert class_value("mine.Model", "FAMILY") is None


def test_it_takes_no_torch() -> None:
    program = (
        "import sys; from sdpo_exp.config.class_values import class_value\n"
        f"print([class_value(target, 'FAMILY') is None for target in {TARGETS}])\n"
        "print({'torch', 'diffusers', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    missing, loaded = done.stdout.splitlines()
    assert missing.count("False") >= 2
    assert loaded == "set()"
