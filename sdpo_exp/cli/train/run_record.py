"""What a run says of itself: `run.json` when it begins, and the warnings on its way."""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sdpo_exp.config.cell_name import config_hash
from sdpo_exp.reports.run_records import RUN_FILE
from sdpo_exp.whole_files import write_json

_AXES = ("model", "objective", "safeguard")


def write_run_record(folder: Path, config: DictConfig) -> None:
    """Write `run.json`: what was chosen, the command that does it again, who is at it."""
    job = HydraConfig.get()
    overrides = [str(line) for line in job.overrides.task]
    content = {
        "name": config.name,
        **{axis: str(job.runtime.choices[axis]) for axis in _AXES},
        "seed": config.seed,
        "hash": config_hash(config),
        "overrides": overrides,
        "command": _command(overrides, own_config_dir(), swept=in_sweep()),
        "config_dir": own_config_dir(),
        "resumed_from": config.resume,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
    write_json(folder / RUN_FILE, content)


def add_to_run_record(folder: Path, **content: Any) -> None:
    """Say more in a run's `run.json`, which is there."""
    path = folder / RUN_FILE
    write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **content})


def in_sweep() -> bool:
    """Whether this job is a cell of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def own_config_dir() -> str | None:
    """The `--config-dir` of the job that runs; None where there is none."""
    sources = HydraConfig.get().runtime.config_sources
    given = [source.path for source in sources if source.provider == "command-line"]
    return str(given[0]) if given else None


def _command(overrides: list[str], config_dir: str | None, *, swept: bool) -> str:
    """One cell alone, also where an overlay of the command makes it a sweep."""
    overlaid = swept and any(line.lstrip("+").startswith("experiment=") for line in overrides)
    alone = ["hydra.mode=RUN"] if overlaid else []
    flags = ["--config-dir", config_dir] if config_dir else []
    return shlex.join(["python", "-m", "sdpo_exp", *flags, *overrides, *alone])


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep each message once."""
        self.messages[record.getMessage()] = None


@contextmanager
def kept_warnings() -> Iterator[dict[str, None]]:
    """Warnings of this package meanwhile, in the order they came."""
    handler = _Kept()
    log = logging.getLogger("sdpo_exp")
    log.addHandler(handler)
    try:
        yield handler.messages
    finally:
        log.removeHandler(handler)
