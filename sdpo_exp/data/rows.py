"""What is alike in every source of stored pairs: reading a row, naming it, hashing images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sdpo_exp.data.columns import FIRST, UNCLEAR, Columns
from sdpo_exp.data.embedded import embedded_image
from sdpo_exp.data.images import decode, image_path, read_bytes
from sdpo_exp.data.numbers import shortened
from sdpo_exp.errors import BadRow
from sdpo_exp.types import ImagePair

EDGE = 64  # bytes at either end of an image file that a fingerprint covers


@runtime_checkable
class NamesRows(Protocol):
    """A source that has names for its rows."""

    def row_name(self, index: int) -> str:
        """What messages call row `index` of the source."""


def read_pair(
    row: Mapping[str, Any], columns: Columns, order: int, name: str, folder: Path | None
) -> ImagePair:
    """Decode one row of a table.

    Args:
        row: values by column.
        order: which image wins: FIRST, SECOND or UNCLEAR.
        name: what messages call the row.
        folder: what image paths are relative to.

    Raises:
        BadRow: no caption, a label of no meaning, or an image that cannot be used.
    """
    prompt = checked_caption(row[columns.caption], name)
    if order == UNCLEAR:
        label = shortened(row[str(columns.preferred or columns.label_0)])
        known = "1, 0 and 0.5" if columns.preferred is None else "the words that columns.values has"
        raise BadRow(name, f"label is none of {known} ({label})")
    first, second = (decode_named(row[column], name, column, folder) for column in columns.images)
    winner, loser = (first, second) if order == FIRST else (second, first)
    return ImagePair(winner, loser, prompt)


def decode_named(data: Any, name: str, which: str, folder: Path | None) -> Any:
    """`decode`, whose complaints name the image as well as the row."""
    try:
        return decode(data, name, folder)
    except BadRow as error:
        kind, bracket, detail = error.reason.partition(" (")
        raise BadRow(name, f"{kind} ({which}{': ' + detail if bracket else ')'}") from None


def checked_caption(caption: Any, name: str) -> str:
    """The caption as it is.

    Raises:
        BadRow: it is null, blank, or no text.
    """
    if caption is None:
        raise BadRow(name, "no caption (null)")
    if not isinstance(caption, str):
        raise BadRow(name, f"no caption but a {type(caption).__name__}")
    if not caption.strip():
        raise BadRow(name, "empty caption")
    return caption


def edges(data: Any, name: str, folder: Path | None) -> bytes:
    """Length, first and last bytes of an image as stored, hashed; of an absent one its absence.

    Of an image file no more than these bytes is read.
    """
    if isinstance(data, Mapping):
        data = data.get("bytes") if data.get("bytes") is not None else data.get("path")
    if isinstance(data, str) and (content := embedded_image(data)) is not None:
        data = content
    length, ends = (
        _ends_of_file(data, folder)
        if isinstance(data, str | Path)
        else _ends_of_content(data, name)
    )
    return hashlib.sha256(length.to_bytes(8, "big") + ends).digest()


def _ends_of_file(path: str | Path, folder: Path | None) -> tuple[int, bytes]:
    try:
        with image_path(path, folder).open("rb", buffering=0) as stream:
            length = os.fstat(stream.fileno()).st_size
            first = stream.read(EDGE)
            stream.seek(max(0, length - EDGE))
            return length, first + stream.read(EDGE)
    except (OSError, ValueError):
        return 0, b""


def _ends_of_content(data: Any, name: str) -> tuple[int, bytes]:
    try:
        content = read_bytes(data, name)
    except BadRow:
        content = b""
    if not isinstance(content, bytes):
        content = content.tobytes()
    return len(content), content[:EDGE] + content[-EDGE:]
