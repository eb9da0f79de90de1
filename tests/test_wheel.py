"""An installed wheel finds its configuration and weights, and trains, in a clean environment."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.cli.command import BARE, SMALL

ROOT = Path(__file__).parents[1]


def call(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    call(*build, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_configuration_and_weights(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"sdpo_exp/conf/train.yaml", "sdpo_exp/conf/safeguard/on.yaml"} <= names
    assert "sdpo_exp/models/tiny_base/unet/diffusion_pytorch_model.safetensors" in names
    assert "sdpo_exp/models/tiny_flow_base/transformer/diffusion_pytorch_model.safetensors" in names
    assert "hydra_plugins/sdpo_exp.py" in names
    assert not [name for name in names if name.startswith(("tests/", "outputs/", "conf/"))]
    assets = "sdpo_exp/reports/html/assets"
    assert {f"{assets}/page.html", f"{assets}/page.css", f"{assets}/plots.js"} <= names
    assert {"sdpo_exp/testbed/sampled/train.png", "sdpo_exp/testbed/sampled/pairs.json"} <= names
    assert wheel.stat().st_size < 12_000_000


@pytest.mark.slow
def test_it_trains_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    call(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    call(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    said = call(python, "-m", "sdpo_exp", *SMALL, cwd=tmp_path)
    assert "finished: 2 steps" in said
    swept = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", *BARE)
    assert "1 done" in call(python, "-m", "sdpo_exp", *swept, cwd=tmp_path)
    where = call(python, "-c", "import sdpo_exp; print(sdpo_exp.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    script = call(tmp_path / "venv" / "bin" / "sdpo_exp", "--cfg", "job", cwd=tmp_path)
    assert "sdpo_exp.safeguard.PreserveWinner" in script
