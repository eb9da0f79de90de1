"""What run folders say of themselves: read from their files alone, whatever state they are in."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

RUN_FILE = "run.json"
SUMMARY_FILE = "summary.json"
# A run on another machine counts as running while its files change.
_SILENT_SECONDS = 900
# Folders inside a run, in which no further run can be.
_INNER = frozenset({"checkpoints", "model", "plots", "samples", "tensorboard", "wandb"})


@dataclass(frozen=True)
class RunRecord:
    """One run folder.

    `told` is its `run.json` and `summary` its `summary.json`, empty where there is none.
    """

    folder: Path
    told: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def status(self) -> str:
        """`finished`, `running`, `interrupted`, `failed`, or `died`: ended without a word."""
        said = str(self.summary.get("status", ""))
        if said:
            word = said.partition(":")[0]
            return "failed" if word == "stopped" else word
        return "running" if self._alive() else "died"

    @property
    def reason(self) -> str:
        """Why a run did not finish, in words; empty where it did or nobody knows."""
        return str(self.summary.get("status", "")).partition(": ")[2]

    @property
    def digest(self) -> str:
        """Hash of the configuration, names and paths left out: equal for runs of one cell."""
        return str(self.told.get("hash") or self.folder.parent.name.rpartition("-")[2])

    @property
    def model(self) -> str:
        """The choice of the group."""
        return self._choice("model", 0)

    @property
    def objective(self) -> str:
        """The choice of the group."""
        return self._choice("objective", 1)

    @property
    def safeguard(self) -> str:
        """The choice of the group."""
        return self._choice("safeguard", 2)

    @property
    def seed(self) -> int | None:
        """Of the training."""
        seed = self.told.get("seed", self.config.get("seed"))
        return seed if isinstance(seed, int) else None

    @property
    def name(self) -> str:
        """`name=` of its command, under which its folder lies."""
        return str(self.told.get("name") or self.config.get("name") or self.folder.parents[1].name)

    @property
    def command(self) -> str | None:
        """The command line that trains this cell again."""
        command = self.told.get("command")
        return None if command is None else str(command)

    @property
    def overrides(self) -> list[str]:
        """What its command line sets, this cell's alone."""
        return [str(line) for line in self.told.get("overrides") or []]

    @property
    def started(self) -> str | None:
        """Local time, ISO 8601 with seconds."""
        started = self.told.get("started")
        return None if started is None else str(started)

    @property
    def started_at(self) -> float:
        """Seconds since the epoch; of the folder's oldest file where the run does not say."""
        if self.started is not None:
            return datetime.fromisoformat(self.started).timestamp()
        return min((f.stat().st_mtime for f in self.folder.iterdir()), default=0.0)

    @property
    def warnings(self) -> list[str]:
        """What the run warned of: a failed start-up check, skipped rows, something left out."""
        return [str(line) for line in self.summary.get("warnings") or []]

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """`config.yaml`; empty where it is missing or broken."""
        try:
            content = yaml.load(_text(self.folder / "config.yaml"), Loader=_YAML)
        except yaml.YAMLError:
            return {}
        return content if isinstance(content, dict) else {}

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """`environment.json`: revision, versions, data fingerprint."""
        return _json(self.folder / "environment.json")

    def metric(self, name: str) -> float | None:
        """As `metric_of`."""
        return metric_of(self.summary, name)

    def _choice(self, axis: str, position: int) -> str:
        """Runs from before `run.json` have their choices in the cell's name only."""
        parts = self.folder.parent.name.split("-")
        fallback = parts[position] if len(parts) > position else "?"
        return str(self.told.get(axis) or fallback)

    def _alive(self) -> bool:
        if self.told.get("host") == socket.gethostname():
            return _is_alive(int(self.told.get("pid") or 0), self.started_at)
        newest = max((f.stat().st_mtime for f in self.folder.iterdir()), default=0.0)
        return time.time() - newest < _SILENT_SECONDS


_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder; broken files count as missing."""
    return RunRecord(folder, _json(folder / RUN_FILE), _json(folder / SUMMARY_FILE))


def find_runs(roots: Iterable[Path]) -> list[RunRecord]:
    """Every run at or below the folders, each once, by name, cell and time."""
    folders = {folder.resolve(): folder for root in roots for folder in _run_folders(root)}
    return [read_run(folder) for folder in sorted(folders.values())]


def run_numbers(records: Iterable[RunRecord]) -> dict[Path, int]:
    """By folder: 1 for the run that started first, so that a new run renumbers none."""
    started = sorted(records, key=lambda record: (record.started_at, record.folder))
    return {record.folder: number for number, record in enumerate(started, start=1)}


def runs_of(root: Path, digest: str) -> list[RunRecord]:
    """All runs of a cell in `<root>/<cell>-<digest>/<time>/`, in whatever state."""
    return [read_run(folder) for folder in root.glob(f"*-{digest}/*") if folder.is_dir()]


def finished_run(root: Path, digest: str) -> RunRecord | None:
    """The newest finished run of a cell, of `runs_of`."""
    done = [record for record in runs_of(root, digest) if record.status == "finished"]
    return max(done, key=lambda record: record.started_at, default=None)


def is_run(folder: Path) -> bool:
    """Whether the folder is a run's."""
    return _has_run({path.name for path in folder.iterdir()})


def _has_run(files: Collection[str]) -> bool:
    return "config.yaml" in files and (RUN_FILE in files or "metrics.csv" in files)


def _run_folders(root: Path) -> Iterator[Path]:
    for path, inner, files in os.walk(root):
        if _has_run(files):
            inner.clear()
            yield Path(path)
        inner[:] = [name for name in inner if name not in _INNER and not name.startswith(".")]


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings by their dotted paths; an empty mapping is one."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def metrics_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """Every number that a `summary.json` has, by its key in the log.

    `train/*`, `pair/*` and `safeguard/*` are means over the last fifth of the run, `audit/*` over
    all audited steps, `probe/*` and `eval/*` of callbacks the last visit. After a run with images
    judged, `eval/<score>` and `eval/<score>_change` are of the tuned model and its change against
    the base.
    """
    found: dict[str, Any] = dict(summary.get("train") or {})
    found |= (summary.get("audit") or {}).get("means", {})
    for part in ("probe", "images"):
        found |= {name: visit["last"] for name, visit in (summary.get(part) or {}).items()}
    found["perf/pairs_per_second"] = summary.get("pairs_per_second")
    found["perf/seconds"] = summary.get("seconds")
    for name, score in ((summary.get("evaluation") or {}).get("scores") or {}).items():
        found[f"eval/{name}"] = score["tuned"]["mean"]
        found[f"eval/{name}_change"] = score["change"]["mean"]
    return {name: float(value) for name, value in found.items() if value is not None}


def metric_of(summary: Mapping[str, Any], name: str) -> float | None:
    """One number of `metrics_of`; None where the run has none of that name."""
    return metrics_of(summary).get(name)


def _is_alive(pid: int, since: float) -> bool:
    """Whether the process that began a run at `since` is still there, not one of its number."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process is one all the same
        pass
    born = _born(pid)
    return born is None or born <= since + 2  # both are known to about a second


def _born(pid: int) -> float | None:
    """When a process began, in seconds since the epoch; None where the system does not tell."""
    told = _text(Path("/proc") / str(pid) / "stat").rpartition(")")[2].split()
    boot = re.search(r"^btime (\d+)$", _text(Path("/proc/stat")), re.MULTILINE)
    if len(told) < 20 or boot is None:
        return None
    return int(boot[1]) + int(told[19]) / os.sysconf("SC_CLK_TCK")


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(file) or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
