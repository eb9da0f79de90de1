"""What every command does alike: its version, an end without noise, mistakes in words alone."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sdpo_exp import __version__
from tests.cli.command import environment, python, run

COMMANDS = ("", ".evaluate", ".compare", ".runs", ".report", ".export", ".generate", ".relabel")


@pytest.mark.few(2)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_version_is_ours(command: str, tmp_path: Path) -> None:
    done = python(tmp_path, "-m", f"sdpo_exp{command}", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"sdpo_exp {__version__}\n", "")


@pytest.mark.few(2)
@pytest.mark.parametrize("command", ["--help", ".compare --help", "--cfg job", ".runs --help"])
def test_a_reader_that_stops_reading_ends_it_quietly(command: str, tmp_path: Path) -> None:
    line = f"{sys.executable} -m sdpo_exp{' ' * (not command.startswith('.'))}{command}"
    # A reader that closes the pipe before anything is written.
    done = subprocess.run(
        ["bash", "-c", f"{line} | true; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode in (0, 1, 128 + signal.SIGPIPE)


def test_a_mistake_is_told_in_words_alone(tmp_path: Path) -> None:
    few = ("data.validation.size=2", "callbacks.probe.pairs=64", "data.validation_pairs=3")
    done = run(tmp_path, *few, "max_steps=1", "evaluation=off")
    assert done.returncode == 1
    assert done.stderr == (
        "callbacks.probe.pairs=64: the data has 2 held-out pairs; lower it\n"
        "data.validation_pairs=3: the data has 2 held-out pairs; lower it\n"
    )
