"""An installed wheel finds its configuration and weights, asks for what it imports, and trains."""

from __future__ import annotations

import ast
import email
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_it_asks_for_what_it_imports(wheel: Path) -> None:
    """A module at the top of a file is one of a requirement without an extra."""
    (metadata,) = (n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("/METADATA"))
    message = email.message_from_bytes(zipfile.ZipFile(wheel).read(metadata))
    required = {
        canonicalize_name(Requirement(line).name)
        for line in message.get_all("Requires-Dist") or ()
        if "extra ==" not in line
    }
    known = packages_distributions()
    for module in sorted(imported_at_once()):
        owners = {canonicalize_name(name) for name in known[module]}
        assert owners & required, f"{module} is of {owners}"


def imported_at_once() -> set[str]:
    """Modules of others that files of the package import when they are imported."""
    found = set()
    for file in (ROOT / "sdpo_exp").rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"sdpo_exp", "hydra_plugins"}


@pytest.mark.slow
def test_it_trains_where_the_repository_is_not(wheel: Path, tmp_path: Path) -> None:
    """Installed alone, over the libraries that are here: they take minutes to install anew."""
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(tmp_path / "venv")}))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps")
    call(*pip, wheel, cwd=tmp_path)
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    said = call(python, "-m", "sdpo_exp", *SMALL, cwd=tmp_path)
    assert "finished: 2 steps" in said
    swept = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", *BARE)
    assert "1 done" in call(python, "-m", "sdpo_exp", *swept, cwd=tmp_path)
    where = call(python, "-c", "import sdpo_exp; print(sdpo_exp.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    script = call(tmp_path / "venv" / "bin" / "sdpo_exp", "--cfg", "job", cwd=tmp_path)
    assert "sdpo_exp.safeguard.PreserveWinner" in script
