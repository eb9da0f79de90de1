"""What a table's columns are read as, whatever its first rows or its first file hold."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sdpo_exp.data.columns import Columns
from sdpo_exp.data.files import TableFiles
from sdpo_exp.data.numbers import listed, shortened
from sdpo_exp.data.prompt_formats import columns_of, iter_rows
from sdpo_exp.errors import UserError, first_line

if TYPE_CHECKING:
    import datasets

TEXT = ("csv", "json")
# Of a text table in one arrow batch.
_ROWS, _CHARACTERS = 1_000, 4_000_000


def column_names(found: TableFiles, needed: Collection[str] = ()) -> list[str] | None:
    """Names of the columns of a split, by headers, footers and first rows; None: not known so.

    Args:
        found: files of the split.
        needed: columns that are looked for in all rows of files without a header.

    Raises:
        UserError: a file cannot be read as what its ending says.
    """
    if found.format == "parquet":
        return list(dict.fromkeys(n for file in found.files for n in _schema(file).names))
    if found.format not in TEXT:
        return None
    paths = [Path(file) for file in found.files]
    names = [name for path in paths for name in columns_of(path, needed)]
    if all(next(iter_rows(path), None) is None for path in paths):
        raise UserError(f"{', '.join(found.files[:3])}: no rows")
    return list(dict.fromkeys(names))


def values_of(found: TableFiles, name: str) -> list[Any]:
    """The different cells of one column of a table whose `column_names` are known."""
    if found.format == "parquet":
        for file in found.files:
            refuse_lists(_schema(file).field(name).type, file, name, "preferred")
        tables = (pq.read_table(file, columns=[name]) for file in found.files)
        return list(dict.fromkeys(v for t in tables for v in t[name].unique().to_pylist()))
    rows = ((file, row) for file in found.files for row in iter_rows(Path(file)))
    return list(dict.fromkeys(_text(file, row, name, False) for file, row in rows))


def needed_features(found: TableFiles, columns: Columns) -> datasets.Features:
    """Types of the needed columns of parquet files, by the footers of all of them.

    A column that is null in some files has the type of the others; captions are text, also where
    all of them are numbers or dates.

    Raises:
        UserError: a file lacks a column, or captions are no text.
    """
    import datasets

    schemas = {file: _schema(file) for file in found.files}
    fields = {name: _field(name, role, schemas) for role, name in columns.named.items()}
    features = datasets.Features.from_arrow_schema(pa.schema(list(fields.values())))
    for name in columns.images:
        kinds = {schema.field(name).type for schema in schemas.values()} - {pa.null()}
        if len(kinds) > 1:  # paths in one file, bytes in another
            features[name] = datasets.Image(decode=False)
    return features


def text_table(files: Sequence[str], columns: Columns) -> pa.Table:
    """The needed columns of CSV and JSON files, all as text: nothing is guessed from a few rows.

    Raises:
        UserError: a file cannot be read, lacks a column, or has no row.
    """
    batches = list(text_batches(list(files), columns))
    if not batches:
        raise UserError(f"{', '.join(files[:3])}: no rows")
    return pa.Table.from_batches(batches)


def text_batches(files: Sequence[str], columns: Columns) -> Iterator[pa.RecordBatch]:
    """The same, some rows at a time: a thousand, or fewer where images are written out in them."""
    names = list(dict.fromkeys(columns.named.values()))
    for file in files:
        present = columns_of(Path(file), names)
        if present:  # else it is JSON without any row
            columns.check(present, file)
        rows, size = list[list[str | None]](), 0
        for row in iter_rows(Path(file)):
            rows.append([_text(file, row, name, name in columns.images) for name in names])
            size += sum(len(cell or "") for cell in rows[-1])
            if len(rows) == _ROWS or size > _CHARACTERS:
                yield _batch(rows, names)
                rows, size = [], 0
        if rows:
            yield _batch(rows, names)


def refuse_lists(kind: Any, path: str, name: str, role: str = "caption") -> None:
    """Refuse a column whose cells are lists or objects, by its arrow type."""
    if pa.types.is_nested(kind):
        raise UserError(
            f"{path}: column '{name}' (columns.{role}) holds {shortened(kind)}; one value a row is "
            "needed"
        )


def _field(name: str, role: str, schemas: Mapping[str, pa.Schema]) -> pa.Field:
    lacking = next((file for file, schema in schemas.items() if name not in schema.names), None)
    if lacking is not None:
        has = listed(schemas[lacking].names)
        raise UserError(f"{lacking}: no column '{name}' (columns.{role}). It has: {has}")
    found = [schema.field(name) for schema in schemas.values()]
    types = [field.type for field in found if not pa.types.is_null(field.type)]
    if role == "caption":
        for kind in types:
            refuse_lists(kind, next(iter(schemas)), name)
        return pa.field(name, pa.string())
    if role in ("label_0", "has_label", "score_0", "score_1", "margin", "preferred"):
        return pa.field(name, _widest(types))
    return next((f for f in found if not pa.types.is_null(f.type)), found[0])


def _widest(types: Sequence[pa.DataType]) -> pa.DataType:
    """Of numbers a float, and text where there is any."""
    if all(kind == types[0] for kind in types[1:]):
        return types[0] if types else pa.float64()
    numeric = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in types)
    return pa.float64() if numeric else pa.string()


def _schema(file: str) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{file}: cannot be read as parquet ({first_line(error)})") from None


def _batch(rows: Sequence[Sequence[str | None]], names: list[str]) -> pa.RecordBatch:
    cells = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(c, pa.large_string()) for c in cells], names=names)


def _text(file: str, row: tuple[str, Mapping[str, Any]], name: str, is_image: bool) -> str | None:
    """A cell as the text that stands there; of an image in an object its base64 or its path."""
    where, cell = row[0], row[1].get(name)
    if type(cell) is str and cell.isascii():  # nearly all are
        return cell
    if is_image and isinstance(cell, Mapping):
        cell = cell.get("bytes") if cell.get("bytes") is not None else cell.get("path")
    if cell is None:
        return None
    if isinstance(cell, Mapping | list):
        kind = "a list" if isinstance(cell, list) else "an object"
        needed = "a path, base64 or {bytes, path} is needed" if is_image else "one text is needed"
        raise UserError(f"{file} {where}: column '{name}' holds {kind}; {needed}")
    text = cell if isinstance(cell, str) else json.dumps(cell)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            what = "half a character (a lone surrogate)"
            raise UserError(f"{file} {where}: column '{name}' holds {what}") from None
    return text
