"""Python command lines in processes of their own, forked from one that has the libraries loaded.

A command's process is as fresh as a started one but for what was imported before: importing torch,
diffusers and lightning takes longer than most commands of a test.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIBRARIES = (
    *("torch", "torch.utils.data", "lightning", "torchmetrics", "peft", "scipy.stats"),
    *("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "diffusers.training_utils"),
    *("transformers.models.clip.modeling_clip", "lightning.pytorch.loggers"),
)
# Nothing that takes long: for commands that look before they load.
LIGHT = ("hydra", "hydra.main", "omegaconf", "numpy", "sdpo_exp.cli.train.train")
# Read by a library when it is imported, so a process that has it imported is of no use.
_READ_AT_IMPORT = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "XDG_")
_start = subprocess.run


def python(
    folder: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    libraries: Sequence[str] = LIBRARIES,
    seconds: float = 300.0,
    nested: bool = False,
) -> subprocess.CompletedProcess[str]:
    """`python <arguments>` in `folder`, with exactly this environment.

    `nested`: the python commands that it starts by `subprocess.run` are forked as well.

    Raises:
        subprocess.TimeoutExpired: it ran longer than `seconds`.
    """
    read = {k: v for k, v in environment.items() if k.startswith(_READ_AT_IMPORT)}
    parent = _parent(tuple(libraries), tuple(sorted(read.items())))
    request = {"folder": str(folder), "arguments": list(arguments), "seconds": seconds}
    return parent.call(request | {"environment": dict(environment), "nested": nested})


@lru_cache(maxsize=8)
def _parent(libraries: tuple[str, ...], environment: tuple[tuple[str, str], ...]) -> _Parent:
    return _Parent(libraries, dict(environment))


class _Parent:
    """A process that has imported `libraries` and forks a child for each call."""

    def __init__(self, libraries: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), *libraries],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._process.kill)

    def call(self, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as said:
            request |= {"out": f"{said}/out", "err": f"{said}/err"}
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = json.loads(self._process.stdout.readline())
            out, err = (Path(said, name).read_text() for name in ("out", "err"))
        arguments = request["arguments"]
        if code is None:
            raise subprocess.TimeoutExpired(arguments, request["seconds"], out, err)
        return subprocess.CompletedProcess(arguments, code, out, err)


# -- in the process that forks ------------------------------------------------------------------


def _serve() -> None:
    """Answer each request by the exit code of a child, None for one that took too long."""
    for name in sys.argv[1:]:
        import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print at import is no answer
    for line in sys.stdin:
        answers.write(json.dumps(_forked(json.loads(line))) + "\n")
        answers.flush()


def _forked(request: Mapping[str, Any]) -> int | None:
    child = os.fork()
    if child == 0:
        _become(request)
    return _exit_code(child, request["seconds"])


def _run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """In the place of `subprocess.run`: forks python commands whose output is captured."""
    interpreter, *arguments = map(str, command)
    if interpreter != sys.executable or not options.get("capture_output"):
        return _start(command, **options)
    with tempfile.TemporaryDirectory() as said:
        request = {"folder": str(Path.cwd()), "arguments": arguments, "seconds": None}
        request |= {"environment": dict(options.get("env") or os.environ)}
        code = _forked(request | {"out": f"{said}/out", "err": f"{said}/err"})
        out, err = (Path(said, name).read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(command, code or 0, out, err)


def _exit_code(child: int, seconds: float | None) -> int | None:
    if seconds is None:  # an alarm belongs to the main thread
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def too_long(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(int(seconds) + 1)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except TimeoutError:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    finally:
        signal.alarm(0)


def _become(request: Mapping[str, Any]) -> None:
    """Turn this process into the command, and end it as the interpreter would."""
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for stream, path in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, stream in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        setattr(sys, name, open(stream, "r" if stream == 0 else "w", closefd=False))  # noqa: SIM115
        setattr(sys, f"__{name}__", getattr(sys, name))
    random.seed()
    weakref.finalize._registry.clear()  # what the process before has to clean up is not ours
    subprocess.run = _run if request.get("nested") else _start
    code = 1
    try:
        _execute(request["arguments"], request["environment"].get("PYTHONPATH", ""))
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        else:
            code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _execute(arguments: list[str], path: str) -> None:
    """What `python` does with its arguments: -m a module, -c code, or a file."""
    there = [entry for entry in path.split(os.pathsep) if entry and entry not in sys.path]
    first, *rest = arguments
    sys.path[:1] = ["" if first == "-c" else str(Path.cwd()), *there]
    if first == "-m":
        sys.argv = ["-m", *rest[1:]]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    _serve()
