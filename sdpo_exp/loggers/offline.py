"""Reading the `.wandb` file of a run that W&B recorded offline.

The file is a log of protobuf records in the framing of LevelDB's logs: blocks of 32 KiB, each
record in one piece or several. https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from sdpo_exp.errors import UserError

_MAGIC = b":W&B"
_FILE_HEADER, _PIECE_HEADER, _BLOCK = 7, 7, 32768
_WHOLE, _LAST = 1, 4


@dataclass(frozen=True)
class OfflineRun:
    """What a run told W&B.

    `config` and `summary` are nested mappings; `history` has one for each step, with `_step`;
    `artifacts` maps names to the files inside, by their local paths. `exit_code` is None where
    nobody ended the run.
    """

    folder: Path
    id: str
    name: str
    project: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    notes: str
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Path]] = field(default_factory=dict)
    exit_code: int | None = None

    def keys(self) -> set[str]:
        """Everything that a panel can show."""
        return {key for row in self.history for key in row} | set(self.summary)


def find_runs(root: Path) -> list[Path]:
    """The `.wandb` files of all runs below a folder, in the order of their paths."""
    return sorted(root.rglob("wandb/*run-*/run-*.wandb"))


def read_run(path: Path) -> OfflineRun:
    """Read a `.wandb` file, as far as it is whole: a run may still be writing it.

    Raises:
        UserError: it is something else.
    """
    fields: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "artifacts": {}}
    for record in _records(path):
        kind = record.WhichOneof("record_type")
        _READ.get(kind, _skip)(fields, getattr(record, kind) if kind else None)
    if "id" not in fields:
        raise UserError(f"{path}: no run is described in it")
    return OfflineRun(folder=path.parent, **fields)


def _records(path: Path) -> Iterator[Any]:
    from google.protobuf.message import DecodeError

    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    for data in _messages(path):
        record = messages.Record()
        try:
            record.ParseFromString(data)
        except DecodeError:
            return
        yield record


def _messages(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise UserError(f"{path}: not a run that W&B recorded")
    position, pieces = _FILE_HEADER, b""
    while position + _PIECE_HEADER <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _PIECE_HEADER:  # the rest of a block is padding
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        start = position + _PIECE_HEADER
        if start + length > len(data):
            return
        pieces += data[start : start + length]
        position = start + length
        if kind in (_WHOLE, _LAST):
            yield pieces
            pieces = b""


def _read_run(fields: dict[str, Any], run: Any) -> None:
    fields |= {
        "id": run.run_id,
        "name": run.display_name,
        "project": run.project,
        "group": run.run_group,
        "job_type": run.job_type,
        "tags": tuple(run.tags),
        "notes": run.notes,
    }
    _update(fields["config"], run.config.update)


def _read_config(fields: dict[str, Any], config: Any) -> None:
    _update(fields["config"], config.update)


def _read_summary(fields: dict[str, Any], summary: Any) -> None:
    _update(fields["summary"], summary.update)


def _read_history(fields: dict[str, Any], history: Any) -> None:
    row: dict[str, Any] = {}
    _update(row, history.item)
    fields["history"].append(row)


def _read_artifact(fields: dict[str, Any], artifact: Any) -> None:
    files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    fields["artifacts"][artifact.name] = files


def _read_exit(fields: dict[str, Any], ended: Any) -> None:
    fields["exit_code"] = ended.exit_code


def _skip(fields: Mapping[str, Any], record: Any) -> None:
    del fields, record


_READ = {
    "run": _read_run,
    "config": _read_config,
    "summary": _read_summary,
    "history": _read_history,
    "artifact": _read_artifact,
    "exit": _read_exit,
}


def _update(tree: dict[str, Any], items: Iterable[Any]) -> None:
    for item in items:
        *parents, leaf = item.nested_key or [item.key]
        node = tree
        for parent in parents:
            inner = node.get(parent)
            node[parent] = inner if isinstance(inner, dict) else {}
            node = node[parent]
        node[leaf] = json.loads(item.value_json)
