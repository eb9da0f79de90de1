"""Tables opened with the columns that are needed, and only these: mapped, or in passing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sdpo_exp.data.columns import Columns
from sdpo_exp.data.files import TableFiles
from sdpo_exp.data.preferred import explained, vocabulary, word
from sdpo_exp.data.table_types import (
    TEXT,
    column_names,
    needed_features,
    refuse_lists,
    text_table,
)
from sdpo_exp.data.usual_columns import told_names, usual_columns
from sdpo_exp.errors import UserError, first_line

if TYPE_CHECKING:
    import datasets


def open_table(
    found: TableFiles, columns: Columns, split: str, path: str, cache_dir: str | None = None
) -> tuple[datasets.Dataset, Columns, str | None]:
    """The needed columns of a table, in memory or mapped into it.

    Args:
        found: its files.
        columns: what is wanted, usual names in place of the defaults where these are absent.
        split: that is wanted of a folder of `save_to_disk`.
        path: of the table, for messages.
        cache_dir: where `datasets` keeps its copy; None: as HF_DATASETS_CACHE says.

    Returns:
        The table in arrow format, the columns it has, and what was assumed of them, in words.

    Raises:
        UserError: a file cannot be read as what its ending says, a column is not there or holds
            something else, or there is no row.
    """
    import datasets

    datasets.disable_progress_bars()
    names = column_names(found, told_names(columns))
    opened: Any = _open_typed(found, split) if names is None else None
    present: list[str] = names or opened.column_names
    columns, assumed = usual_columns(columns, present, path)
    columns.check(present, path)
    if opened is not None:
        table = opened.select_columns(list(dict.fromkeys(columns.named.values())))
        cells = table.with_format("arrow")[:]
        if (text := with_text(cells, columns.caption)) is not cells:
            table = datasets.Dataset(text)
    elif found.format in TEXT:
        table = datasets.Dataset(text_table(found.files, columns))
    else:
        table = _open_parquet(found, columns, cache_dir)
    table = table.with_format("arrow")
    refuse_lists(table.features.arrow_schema.field(columns.caption).type, path, columns.caption)
    words: list[Any] = []
    if columns.preferred is not None:
        kind = table.features.arrow_schema.field(columns.preferred).type
        refuse_lists(kind, path, columns.preferred, "preferred")
        words = _unique(table, columns.preferred)
    columns, told = with_meanings(columns, words, path)
    return table, columns, assumed_of(path, assumed, told)


def _unique(table: Any, name: str) -> list[Any]:
    """The different cells of a column; the others are not looked at."""
    column = table[:][name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return list(pc.unique(column).to_pylist())


def open_stream(found: TableFiles, columns: Columns) -> datasets.IterableDataset:
    """The needed columns of local files in passing, file by file.

    Raises:
        UserError: as `open_table`.
    """
    import datasets

    if found.format == "saved":
        raise UserError(
            f"{found.files[0]}: a folder of save_to_disk is mapped into memory already; use "
            "sdpo_exp.data.table.TablePairs"
        )
    files: dict[str, Any] = {"data_files": found.files, "split": "train", "streaming": True}
    if found.format == "parquet":
        features = needed_features(found, columns)
        files["data_files"] = _with_rows(found)
        return datasets.load_dataset("parquet", **files, columns=list(features), features=features)
    if found.format in TEXT:
        from sdpo_exp.data.text_stream import TextStream

        text = TextStream(config_name="pairs", files=tuple(found.files), columns=columns)
        return text.as_streaming_dataset("train")
    return datasets.load_dataset(found.format, **files)


def with_meanings(columns: Columns, values: Sequence[Any], path: str) -> tuple[Columns, str | None]:
    """The columns with what each word of `preferred` means, and this in words.

    Args:
        columns: where the words are.
        values: of them, those that are known already.
        path: of the table, for messages.

    Raises:
        UserError: nobody knows what a word means.
    """
    if columns.preferred is None:
        return columns, None
    try:
        known = vocabulary(values, columns.preferred, columns.images, columns.values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    found = {one: known[one] for one in dict.fromkeys(map(word, values))}
    told = explained(found, columns.preferred, columns.images)
    return replace(columns, values=known), told


def assumed_of(path: str, names: str | None, meanings: str | None) -> str | None:
    """What was assumed of a table, in one line, or None."""
    parts = filter(None, (names and f"by their usual names {names}", meanings))
    told = "; ".join(parts)
    return f"{path}: {told}" if told else None


def _open_parquet(found: TableFiles, columns: Columns, cache_dir: str | None) -> Any:
    features = needed_features(found, columns)
    options = {"columns": list(features), "features": features, "cache_dir": cache_dir}
    return _loaded(found.format, _with_rows(found), **options)


def _with_rows(found: TableFiles) -> list[str]:
    """The parquet files that have any; `datasets` stumbles over the others."""
    filled = [file for file in found.files if pq.read_metadata(file).num_rows]
    if not filled:
        raise UserError(f"{', '.join(found.files[:3])}: no rows")
    return filled


def _open_typed(found: TableFiles, split: str) -> Any:
    """A format whose files say their types."""
    import datasets

    if found.format != "saved":
        return _loaded(found.format, found.files)
    try:
        saved: Any = datasets.load_from_disk(found.files[0])
    except IndexError:  # of the list of its files
        raise UserError(f"{found.files[0]}: no rows") from None
    except Exception as error:
        raise _unreadable(found.files, error) from None
    splits = dict(saved) if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    if split not in splits:
        raise UserError(f"{found.files[0]}: no split {split}; it has {', '.join(splits)}")
    return splits[split]


def with_text(table: pa.Table, name: str) -> pa.Table:
    """The table with a column as text, also where all of it are numbers or dates."""
    kind = table.schema.field(name).type
    if pa.types.is_nested(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return table
    place = table.column_names.index(name)
    return table.set_column(place, name, table[name].cast(pa.string()))


def _loaded(kind: str, files: list[str], **options: Any) -> Any:
    import datasets

    try:
        return datasets.load_dataset(kind, data_files=files, split="train", **options)
    # `datasets` wraps whatever its readers raise in exceptions of many kinds.
    except Exception as error:
        raise _unreadable(files, error) from None


def _unreadable(files: list[str], error: BaseException) -> UserError:
    while error.__cause__ is not None:
        error = error.__cause__
    few = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    return UserError(f"{few}: cannot be read as a table ({first_line(error)})")
