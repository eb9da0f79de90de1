"""Tables read in passing: local files, or a hub dataset as it arrives."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from sdpo_exp import hub
from sdpo_exp.data.columns import Columns
from sdpo_exp.data.files import find_table, is_complete
from sdpo_exp.data.opening import assumed_of, open_stream, with_meanings, with_text
from sdpo_exp.data.table_types import column_names, refuse_lists, values_of
from sdpo_exp.data.usual_columns import told_names, usual_columns
from sdpo_exp.errors import UserError

if TYPE_CHECKING:
    import datasets

_log = logging.getLogger(__name__)
_BATCH = 32  # rows at a time


class PassingTable(NamedTuple):
    """Rows in passing, the columns they have, and the folder that relative image paths start at."""

    rows: datasets.IterableDataset
    columns: Columns
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
    folder, names, found = None, None, None
    try:
        if _is_here(path, split, config, revision):
            found = find_table(path, revision, config, split)
            folder, names = found.folder, column_names(found, told_names(columns))
            if names is not None:
                resolved, _ = usual_columns(columns, names, path)
                resolved.check(names, path)
                rows = open_stream(found, resolved)
            else:
                rows = open_stream(found, columns)
        else:
            rows = _from_hub(path, split, config, revision)
    except UserError:
        raise
    # `datasets` and the hub's client raise exceptions of many kinds.
    except Exception as error:
        raise UserError(f"{path}: cannot be streamed ({_reason(error)})") from None
    rows = rows.with_format("arrow")
    first = next(batches(rows, path), None)
    if first is None:
        raise UserError(f"{path} ({split}): no rows")
    present = first.column_names if names is None else names
    columns, assumed = usual_columns(columns, present, path)
    columns.check(present, path)
    refuse_lists(first.schema.field(columns.caption).type, path, columns.caption)
    words: list[object] = []
    if columns.preferred is not None:
        words = (
            first[columns.preferred].unique().to_pylist()
            if found is None or names is None
            else values_of(found, columns.preferred)
        )
    columns, told = with_meanings(columns, words, path)
    if (line := assumed_of(path, assumed, told)) is not None:
        _log.info("%s", line)
    wanted = list(dict.fromkeys(columns.named.values()))
    return PassingTable(rows.select_columns(wanted), columns, folder)


def _from_hub(
    path: str, split: str, config: str | None, revision: str | None
) -> datasets.IterableDataset:
    """The split as it arrives; cells of CSV are the text that stands there."""
    import datasets

    found = datasets.load_dataset_builder(path, name=config, revision=revision)
    rows = found.as_streaming_dataset(split)
    if found.name != "csv" or (first := next(iter(rows), None)) is None:
        return rows
    text = datasets.Features({name: datasets.Value("string") for name in first})
    found = datasets.load_dataset_builder(
        path, name=config, revision=revision, features=text, keep_default_na=False
    )
    return found.as_streaming_dataset(split)


def batches(
    rows: datasets.IterableDataset, path: str, caption: str | None = None
) -> Iterator[pa.Table]:
    """The rows as arrow tables of a few rows each, not decoded; the column `caption` is text.

    Not by plain iteration, which in a loader's worker would give a part of the files only.

    Raises:
        UserError: the stream breaks off.
    """
    arriving = rows.iter(batch_size=_BATCH)
    while True:
        try:
            table = next(arriving, None)
        except UserError:
            raise
        # Readers and the network raise exceptions of many kinds.
        except Exception as error:
            raise UserError(f"{path}: the stream broke off ({_reason(error)})") from None
        if table is None:
            return
        yield table if caption is None else with_text(table, caption)


def _is_here(path: str, split: str, config: str | None, revision: str | None) -> bool:
    if hub.local_path(path) is not None:
        return True
    snapshot = hub.cached(path, "dataset", revision)
    return snapshot is not None and is_complete(snapshot, split, config)


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).splitlines()[0]
