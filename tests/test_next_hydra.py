"""The next Hydra, 1.4, over the libraries installed here: tests of ours run on it, too."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.cli.command import BARE, ROOT, environment

pytestmark = pytest.mark.slow
NEXT = ("hydra-core==1.4.0rc3", "omegaconf==2.4.1rc1")
SUITES = {
    "runs": (
        "tests/launchers/test_launched_sweeps.py", "tests/cli/train/test_sweep.py",
        "tests/cli/train/test_from_python.py", "-k",
        "search_goes_on or failing_cell or own_command or leaves_the_folder",
    ),
    "checks": (
        "tests/config/test_hydra_versions.py",
        "tests/launchers", "tests/cli/test_mistakes.py",
        "-m", "not slow", "-k", "not test_mistakes or at_once or only_the_run_can_see",
    ),
}  # fmt: skip
# Every configuration as it is composed, with its launchers and sweeper.
_COMPOSED = """
from omegaconf import OmegaConf
from sdpo_exp.config import conf_dir
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.composition import compose_cell

register_resolvers()
chosen = [(path.stem, []) for path in sorted(conf_dir().glob("*.yaml"))]
for group in ("experiment", "model", "objective", "hydra/launcher", "hydra/sweeper"):
    options = sorted((conf_dir() / group).glob("*.yaml"))
    chosen += [("train", [f"{group}={path.stem}"]) for path in options]
for name, overrides in chosen:
    config = compose_cell(name, overrides).config
    own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    print(name, overrides, OmegaConf.to_yaml(own), sep="\\n")
    print(OmegaConf.to_yaml(config.hydra.launcher), OmegaConf.to_yaml(config.hydra.sweeper))
"""


@pytest.fixture(scope="module")
def next_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the next Hydra and sees everything else of this one."""
    folder = tmp_path_factory.mktemp("next_hydra")
    venv.create(folder, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site))
    done = subprocess.run([*pip, *NEXT], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        missing = f"{' and '.join(NEXT)} cannot be had here: {done.stderr.strip()[-300:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    (site / "others.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"


def call(python: Path | str, *arguments: str, folder: Path = ROOT) -> str:
    """What a command prints; Hydra raises what it would warn of."""
    done = subprocess.run(
        [python, *arguments],
        cwd=folder,
        env={**environment(), "HYDRA_DEPRECATION_WARNINGS_AS_ERRORS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deprecat" not in done.stderr.lower(), done.stderr
    return done.stdout


def test_it_is_the_next_one(next_python: Path) -> None:
    versions = "import hydra, omegaconf; print(hydra.__version__, omegaconf.__version__)"
    assert call(next_python, "-c", versions).split() == [pin.partition("==")[2] for pin in NEXT]


def test_every_configuration_is_composed_to_the_byte_as_before(next_python: Path) -> None:
    assert call(next_python, "-c", _COMPOSED) == call(sys.executable, "-c", _COMPOSED)


def test_nothing_is_said_on_the_terminal_that_was_not_said_before(
    next_python: Path, tmp_path: Path
) -> None:
    look = ("-m", "sdpo_exp.runs", "--help")
    assert call(next_python, *look) == call(sys.executable, *look)
    assert "finished: 1 steps" in call(next_python, "-m", "sdpo_exp", *BARE, folder=tmp_path)


@pytest.mark.parametrize("suite", SUITES)
def test_on_it_our_tests_pass(suite: str, next_python: Path) -> None:
    said = call(next_python, "-m", "pytest", "-p", "no:cacheprovider", "-rs", *SUITES[suite])
    assert " passed" in said
