"""Run real command lines in a folder of their own."""

from __future__ import annotations

import csv
import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tests import forks

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "lightning", "diffusers", "transformers")
# Size limits and nothing else; they keep a run at a few seconds.
SMALL = (
    "max_steps=2",
    "callbacks.probe.pairs=4",
    "callbacks.probe.times=[0.5]",
    "evaluation.n=2",
    "evaluation.steps=1",
)

# For sweeps: no more than training.
BARE = ("max_steps=1", "callbacks=[winner_loss]", "evaluation=off")

_LOOKING = f"""
import atexit, sys
atexit.register(lambda: print("LOADED", [m for m in {HEAVY!r} if m in sys.modules]))
from sdpo_exp.cli.MODULE import main
main()
"""


def environment() -> dict[str, str]:
    """One thread, this checkout, and nothing of the caller's that changes messages."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ours = {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true", "PYTHONPATH": path}
    ours |= {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}  # conftest's, not the user's own
    return {k: v for k, v in {**os.environ, **ours}.items() if k != "HYDRA_FULL_ERROR"}


def run(folder: Path, *arguments: str, watch: bool = False) -> subprocess.CompletedProcess[str]:
    """`python -m sdpo_exp <arguments>` in `folder`; `watch` prints the heavy modules it loaded.

    In this process, for importing takes longer than a small run; in one of its own where that is
    watched, where several devices start the command line again, and where the current folder is
    one to import from.
    """
    if watch:
        return looking(folder, "train.train", *arguments)
    if any(a == "--config-dir" or a.startswith("trainer.devices=") for a in arguments):
        return python(folder, "-m", "sdpo_exp", *arguments)
    from sdpo_exp.cli.train.train import main

    return here(folder, main, *arguments)


def python(
    folder: Path,
    *arguments: str | Path,
    extra: Mapping[str, str] | None = None,
    libraries: Sequence[str] = forks.LIBRARIES,
    nested: bool = False,
) -> subprocess.CompletedProcess[str]:
    """`python <arguments>` in `folder`; `extra` joins the environment.

    In a process of its own that has `libraries` imported already; `nested`: so have those of the
    commands that it starts.
    """
    words = [str(argument) for argument in arguments]
    inherited = {**environment(), **(extra or {})}
    return forks.python(folder, words, inherited, libraries, nested=nested)


def looking(folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that should end before anything heavy is imported; `LOADED [...]` says what was.

    `module` is that of the command's `main`, below `sdpo_exp.cli`.
    """
    code = _LOOKING.replace("MODULE", module)
    return python(folder, "-c", code, *arguments, libraries=forks.LIGHT)


def here(
    folder: Path, body: Callable[[], None], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A command's `main` in `folder`, in this process: importing takes longest."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["command", *arguments])
        try:
            body()
        except SystemExit as end:
            code = 1 if isinstance(end.code, str) else int(end.code or 0)
            err.write(f"{end.code}\n" if isinstance(end.code, str) else "")  # as python does
        finally:  # Hydra's handlers write to a stream that only this call has
            root.handlers[:] = handlers
            root.setLevel(level)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def run_folders(folder: Path, name: str = "run") -> list[Path]:
    """The runs below outputs/<name>/, by cell name."""
    return sorted(p.parent for p in (folder / "outputs" / name).glob("*/*/config.yaml"))


def metric_rows(folder: Path) -> list[dict[str, str]]:
    """metrics.csv without what a clock decides."""
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]
