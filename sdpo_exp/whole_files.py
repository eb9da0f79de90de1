"""Files that are there as a whole or not at all, whenever a program ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A path beside the file to write to; it takes the file's place if nothing is raised."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write beside the file, then put it in its place."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def write_bytes(file: Path, content: bytes) -> None:
    """The same, on the disk itself before it takes the file's place."""
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def write_parquet(file: Path, table: pa.Table) -> None:
    """A table as parquet."""
    import pyarrow.parquet as pq

    partial = file.with_name(f"{file.name}.partial")
    pq.write_table(table, partial)
    partial.replace(file)


def write_json(file: Path, content: Any) -> None:
    """Indented, in UTF-8, with a last line feed."""
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
