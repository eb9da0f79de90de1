"""What is missing of a cache, and whether it fits on the disk."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from sdpo_exp.errors import UserError

_log = logging.getLogger(__name__)


def missing(folder: Path, names: Sequence[str]) -> list[str]:
    """The shards that are not there; one that is there is whole."""
    return [name for name in names if not (folder / name).is_file()]


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Say how much is to be written, and refuse what does not fit.

    Raises:
        UserError: the disk has less.
    """
    free = shutil.disk_usage(folder).free
    _log.info("%s: at most %s to write, %s free", what, told(needed), told(free))
    if needed > free:
        raise UserError(
            f"out={folder}: the {what} need up to {told(needed)}, and the disk has {told(free)}; "
            "nothing of them was written. Give out= on another disk, or cache_dtype=bfloat16"
        )


def told(size: int) -> str:
    """Bytes in MiB or GiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
