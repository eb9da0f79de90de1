"""Tables read in passing: local files, or a hub dataset as it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from sdpo_exp import hub
from sdpo_exp.data.columns import Columns
from sdpo_exp.data.files import find_table, is_complete
from sdpo_exp.errors import UserError

if TYPE_CHECKING:
    import datasets

_BATCH = 32  # rows at a time


class PassingTable(NamedTuple):
    """Rows in passing, and the folder that relative image paths start at."""

    rows: datasets.IterableDataset
    folder: Path | None


def open_passing(
    path: str, columns: Columns, split: str, config: str | None, revision: str | None
) -> PassingTable:
    """The wanted columns of a split, from local files where they are complete.

    Raises:
        UserError: no such data, or a column that is not there.
    """
    import datasets

    datasets.disable_progress_bars()
    local, folder = _is_here(path, split, config, revision), None
    try:
        if local:
            found = find_table(path, revision, config, split)
            folder = found.folder
            rows = _local_rows(found.format, found.files)
        else:
            rows = datasets.load_dataset(
                path, name=config, revision=revision, split=split, streaming=True
            )
    except UserError:
        raise
    # `datasets` and the hub's client raise exceptions of many kinds.
    except Exception as error:
        raise UserError(f"{path}: cannot be streamed ({_reason(error)})") from None
    rows = rows.with_format("arrow")
    first = next(batches(rows, path), None)
    columns.check([] if first is None else first.column_names, path)
    wanted = list(dict.fromkeys(columns.named.values()))
    return PassingTable(rows.select_columns(wanted), folder)


def _local_rows(kind: str, files: list[str]) -> datasets.IterableDataset:
    import datasets

    if kind == "saved":
        raise UserError(
            f"{files[0]}: a folder of save_to_disk is mapped into memory already; use "
            "sdpo_exp.data.table.TablePairs"
        )
    return datasets.load_dataset(kind, data_files=files, split="train", streaming=True)


def batches(rows: datasets.IterableDataset, path: str) -> Iterator[pa.Table]:
    """The rows as arrow tables of a few rows each, not decoded.

    Not by plain iteration, which in a loader's worker would give a part of the files only.

    Raises:
        UserError: the stream breaks off.
    """
    arriving = rows.iter(batch_size=_BATCH)
    while True:
        try:
            table = next(arriving, None)
        # Readers and the network raise exceptions of many kinds.
        except Exception as error:
            raise UserError(f"{path}: the stream broke off ({_reason(error)})") from None
        if table is None:
            return
        yield table


def _is_here(path: str, split: str, config: str | None, revision: str | None) -> bool:
    if hub.local_path(path) is not None:
        return True
    snapshot = hub.cached(path, "dataset", revision)
    return snapshot is not None and is_complete(snapshot, split, config)


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).splitlines()[0]
