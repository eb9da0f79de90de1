"""The files of docs/launch and the commands of docs/launchers.md mean what they say."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from sdpo_exp.cli.command import preflight
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.check import check_config
from sdpo_exp.config.command_line import rewrite_booleans
from sdpo_exp.launchers.plugins import register_plugins

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "launch"
SCRIPTS = sorted(path for path in FOLDER.iterdir() if path.suffix in (".sh", ".sbatch"))
SBATCH = [path for path in SCRIPTS if path.suffix == ".sbatch"]
# Stands for every program that a script starts: writes its arguments, one a line.
_STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "${0##*/}" "$@" >> "$CALLS"
echo END >> "$CALLS"
"""
_SLURM = {"SLURM_JOB_ID": "1234", "SLURM_CPUS_PER_TASK": "64", "SLURM_ARRAY_TASK_ID": "0"}


def calls(script: Path, folder: Path, *arguments: str, **environment: str) -> list[list[str]]:
    """What a script starts, with every program replaced."""
    stand_ins = folder / "bin"
    stand_ins.mkdir(exist_ok=True)
    for name in ("python", "srun", "torchrun", "ray"):
        (stand_ins / name).write_text(_STAND_IN)
        (stand_ins / name).chmod(0o755)
    log = folder / "calls"
    log.unlink(missing_ok=True)
    path = f"{stand_ins}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", script, *arguments],
        env={**os.environ, "PATH": path, "CALLS": str(log), **_SLURM, **environment},
        check=True,
        cwd=ROOT,
    )
    return [call.splitlines() for call in log.read_text().split("END\n") if call]


def ours(call: list[str]) -> list[str] | None:
    """The arguments of `-m sdpo_exp` in a call, also one inside a command for another machine."""
    for words in (call, shlex.split(call[-1]) if " -m sdpo_exp " in call[-1] else []):
        for i in range(len(words) - 1):
            if words[i : i + 2] == ["-m", "sdpo_exp"]:
                return words[i + 2 :]
    return None


def checked(arguments: list[str]) -> int:
    """Compose and check every cell of a command line; returns how many it has."""
    register_resolvers()
    register_plugins()
    rewrite_booleans(arguments)
    return len(preflight("train", arguments, check_config, lambda config: []))


@pytest.mark.few(1)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_launch_file_starts_commands_that_the_configuration_accepts(
    script: Path, tmp_path: Path
) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    given = ["outputs/sdxl_dmpo"] if script.name == "torchrun_8gpu.sh" else []
    found = [ours(call) for call in calls(script, tmp_path, *given)]
    commands = [arguments for arguments in found if arguments is not None]
    assert len(commands) == 1
    cells = checked(commands[0])
    if script.name in ("slurm_sweep.sh", "ray_submit.sh"):
        assert cells == 18


def test_the_array_has_each_cell_of_the_sweep_once(tmp_path: Path) -> None:
    commands = set()
    for i in range(18):
        (call,) = calls(FOLDER / "slurm_array.sbatch", tmp_path, SLURM_ARRAY_TASK_ID=str(i))
        commands.add(tuple(ours(call) or []))
    assert len(commands) == 18
    for axis, values in (("objective", 3), ("safeguard", 2), ("seed", 3)):
        found = {a for command in commands for a in command if a.startswith(f"{axis}=")}
        assert len(found) == values


def test_eight_processes_share_the_published_batch_evenly(tmp_path: Path) -> None:
    for name in ("torchrun_8gpu.sh", "torchrun_8gpu.sbatch"):
        (call,) = calls(FOLDER / name, tmp_path, "outputs/x")
        assert call[call.index("--nproc_per_node") + 1] == "8"
        assert "trainer.devices=8" in call
        arguments = [a for a in ours(call) or [] if a != "outputs/x"]
        from sdpo_exp.config.composition import compose_cell

        rewrite_booleans(arguments)
        config = compose_cell("train", arguments).config
        assert config is not None
        assert config.effective_batch % (8 * config.data.micro_batch) == 0


def directives(script: Path) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script.read_text(), re.MULTILINE)
    assert len(found) == script.read_text().count("#SBATCH")
    return dict(found)


@pytest.mark.parametrize("script", SBATCH, ids=lambda path: path.name)
def test_directives_are_slurms(script: Path) -> None:
    from submitit.slurm import slurm

    known = {
        name.replace("_", "-") for name in inspect.signature(slurm._make_sbatch_string).parameters
    }
    known |= {"array", "output", "error", "mem"}
    given = directives(script)
    assert set(given) <= known
    # Everything before the first command, or sbatch does not read it.
    lines = script.read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[: last + 1])
    assert re.fullmatch(r"\d+:\d\d:\d\d", given["time"])


def test_the_ray_cluster_is_one_that_ray_accepts() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((FOLDER / "ray_cluster.yaml").read_text())
    validate_config(prepare_config(config))  # as `ray up` does
    commands = [c for key, value in config.items() if key.endswith("_commands") for c in value]
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_commands_of_the_page_are_accepted() -> None:
    page = (ROOT / "docs" / "launchers.md").read_text()
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", page, re.DOTALL)
    lines = [
        line
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("python -m sdpo_exp ")
    ]
    assert len(lines) >= 5
    for line in lines:
        checked(shlex.split(line)[3:])
    for name in re.findall(r"\(launch/([\w.]+)\)", page):
        assert (FOLDER / name).is_file(), name
    assert {path.name for path in FOLDER.iterdir()} <= set(re.findall(r"launch/([\w.]+)", page))
