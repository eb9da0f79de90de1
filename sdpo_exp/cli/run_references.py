"""Short names of runs: `latest`, the beginning of a hash, or the number that `runs` shows."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from sdpo_exp.cli.printed import word as printed_word
from sdpo_exp.errors import UserError
from sdpo_exp.reports.run_records import RunRecord, find_runs, is_run, run_numbers

OUTPUTS = Path("outputs")
LATEST = "latest"
_REFERENCE = re.compile(r"latest|[0-9]{1,6}|[0-9a-f]{4,8}")
_SHOWN = 5  # runs in a message
_PROCESSES = ("WORLD_SIZE", "SLURM_NTASKS")  # their number, as torchrun and srun tell it


def is_reference(word: str) -> bool:
    """Whether a word may be a short name; what lies on the disk under it is a path."""
    return bool(_REFERENCE.fullmatch(word)) and not Path(word).exists()


def referred(word: str, root: Path = OUTPUTS) -> Path:
    """The folder of the run that a short name means.

    Args:
        word: `latest`: the run below `root` that began last. A number: as `runs` counts, 1 for the
            run that began first. Else the first digits of a cell's hash: its newest finished run,
            or its newest where none finished.
        root: folder of runs.

    Raises:
        UserError: there is no such run, or the digits begin several hashes.
    """
    records = find_runs([root]) if root.is_dir() else []
    if not records:
        raise UserError(f"{word}: no runs in {root}; give the folder of a run")
    if word == LATEST:
        return _latest(records, root)
    numbers = {number: folder for folder, number in run_numbers(records).items()}
    if word.isdecimal() and int(word) in numbers:
        return numbers[int(word)]
    cells = sorted({record.digest for record in records if record.digest.startswith(word)})
    if len(cells) > 1:
        raise UserError(f"{word}: begins several hashes: {', '.join(cells[:_SHOWN])}; give more")
    if not cells:
        raise UserError(_unknown(word, records))
    mine = [record for record in records if record.digest == cells[0]]
    return max(mine, key=lambda r: (r.status == "finished", r.started_at)).folder


def point_latest(folder: Path, root: Path = OUTPUTS) -> None:
    """Let `latest` in `root` lead to a run's folder below it; at any moment it leads to one.

    Where there are no links it is a file that names the folder.
    """
    if not folder.resolve().is_relative_to(root.resolve()):
        return
    target = os.path.relpath(folder.resolve(), root.resolve())
    new = Path(tempfile.mkdtemp(prefix=".latest-", dir=root)) / LATEST
    try:
        try:
            new.symlink_to(target, target_is_directory=True)
        except OSError:
            new.write_text(f"{target}\n")
        if not (root / LATEST).is_dir() or (root / LATEST).is_symlink():
            new.replace(root / LATEST)
    finally:
        new.unlink(missing_ok=True)
        new.parent.rmdir()


def name_runs(argv: list[str], keys: Collection[str]) -> None:
    """Put the run's folder in the place of a short name of it, in place.

    Args:
        argv: of a command.
        keys: whose values are runs.

    Raises:
        UserError: there is no such run, or several; or several processes were started, of which one
            may begin a run before another has looked.
    """
    for i, argument in enumerate(argv):
        key, _, value = argument.partition("=")
        if key.lstrip("+") in keys and is_reference(value):
            if any(int(os.environ.get(name) or 1) > 1 for name in _PROCESSES):
                raise UserError(f"{argument}: give the run's folder where several processes start")
            argv[i] = printed_word(key, referred(value))
            print(argv[i], file=sys.stderr)  # standard output may be somebody's YAML


def _latest(records: Sequence[RunRecord], root: Path) -> Path:
    link = root / LATEST
    if link.is_file():
        link = root / link.read_text().strip()
    if link.is_dir() and is_run(link):
        where = link.resolve()
        known = (record.folder for record in records if record.folder.resolve() == where)
        return next(known, link)
    return max(records, key=lambda record: record.started_at).folder


def _unknown(word: str, records: Sequence[RunRecord]) -> str:
    newest = sorted(records, key=lambda record: record.started_at)[-_SHOWN:]
    numbers = run_numbers(records)
    told = "\n".join(f"  {numbers[r.folder]}  {r.digest}  {r.folder}" for r in reversed(newest))
    return f"{word}: no such run; the newest by number and hash are:\n{told}"
