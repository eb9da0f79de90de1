"""Images of a table with the number that ranks them, and what is wrong with one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from sdpo_exp.data.images import decode, read_bytes
from sdpo_exp.data.ranked_columns import RankedColumns
from sdpo_exp.data.rows import checked_caption
from sdpo_exp.data.stored_cells import StoredCells
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.types import SkippedRow


class RankedImage(NamedTuple):
    """One image of a ranking.

    Attributes:
        row: of the table.
        place: in the row's lists; None where a row is one image.
        of: how many the row's lists should hold.
        name: what messages call it.
        prompt: as it stands.
        value: higher is better; of a rank it is its negative.
        ranking: equal ones are compared with each other.
    """

    row: int
    place: int | None
    of: int
    name: str
    prompt: str
    value: float
    ranking: Hashable


def ranked_images(table: StoredCells, columns: RankedColumns) -> Iterator[RankedImage | SkippedRow]:
    """All images in the table's order, and in place of bad rows what is wrong with them.

    Images themselves are not read.
    """
    for row, cells in enumerate(table.cells(columns.light)):
        name = table.row_name(row)
        try:
            prompt = checked_caption(cells[columns.prompt], name)
            yield from _of_row(row, name, prompt, cells, columns)
        except BadRow as error:
            yield SkippedRow(error.row, error.reason)


def _of_row(
    row: int, name: str, prompt: str, cells: Mapping[str, Any], columns: RankedColumns
) -> Iterator[RankedImage | SkippedRow]:
    group = cells[columns.group] if columns.group is not None else None
    if columns.group is not None and (group is None or group == ""):
        raise BadRow(name, f"no {columns.group} (null)")
    order = unpacked(cells[columns.order])
    if not isinstance(order, list):
        value = number(order, name, columns)
        yield RankedImage(row, None, 1, name, prompt, value, (prompt, str(group)))
        return
    if not order:
        raise BadRow(name, f"an empty list of {columns.order_word}s")
    ranking = (prompt, str(group) if columns.group is not None else row)
    for place, entry in enumerate(order):
        own = f"{name} image {place}"
        try:
            value = number(entry, own, columns)
            yield RankedImage(row, place, len(order), own, prompt, value, ranking)
        except BadRow as error:
            yield SkippedRow(error.row, error.reason)


def number(cell: Any, name: str, columns: RankedColumns) -> float:
    """A score, or a rank turned around so that higher is better.

    Raises:
        BadRow: it is no finite number.
    """
    word = columns.order_word
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise BadRow(name, f"no {word} (null)")
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise BadRow(name, f"{word} is no number ({_short(cell)})") from None
    if not math.isfinite(value):
        raise BadRow(name, f"{word} is no finite number ({value})")
    return -value if columns.is_rank else value


def unpacked(cell: Any) -> Any:
    """A list that a text format holds as JSON in a cell; anything else as it is."""
    if isinstance(cell, str) and cell.startswith("[") and cell.endswith("]"):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return cell


def stored_image(table: StoredCells, columns: RankedColumns, image: RankedImage) -> Any:
    """What the table holds as this image: bytes, a path, or a mapping with one of them.

    Raises:
        BadRow: the row has not as many images as numbers.
    """
    cell = unpacked(table.cell(image.row, columns.image))
    name, word = table.row_name(image.row), columns.order_word
    if image.place is None:
        if isinstance(cell, list):
            raise BadRow(name, f"a list of images, but one {word}")
        return cell
    if not isinstance(cell, list):
        raise BadRow(name, f"a list of {word}s, but one image")
    if len(cell) != image.of:
        raise BadRow(name, f"numbers of images and {word}s differ ({len(cell)} and {image.of})")
    return cell[image.place]


def image_digest(stored: Any, name: str, folder: Path) -> bytes:
    """A hash of an image's file, which is decoded once to see that it can be.

    Raises:
        BadRow: it is absent, damaged, or no image.
    """
    content = image_bytes(stored, name, folder)
    decode(content, name)
    return hashlib.blake2b(content, digest_size=16).digest()


def image_bytes(stored: Any, name: str, folder: Path) -> bytes:
    """The file of an image.

    Raises:
        BadRow: there is none.
    """
    content = read_bytes(stored, name, folder)
    assert not isinstance(content, Image.Image), "tables hold files"
    return content


def image_path(stored: Any, name: str, folder: Path) -> Path:
    """Where an image's file is.

    Raises:
        UserError: the table holds the file itself.
    """
    if isinstance(stored, Mapping):
        stored = stored.get("path") if stored.get("bytes") is None else stored["bytes"]
    if isinstance(stored, str):
        return (folder / stored).resolve()
    raise UserError(f"{name}: the table holds the image itself, not its path; give images=bytes")


def _short(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:37]}..."
