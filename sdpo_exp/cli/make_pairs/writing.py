"""The table of pairs that `data=hf_pairs` reads as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sdpo_exp.data.ranked_columns import RankedColumns
from sdpo_exp.data.ranked_images import (
    RankedImage,
    image_bytes,
    image_path,
    ranked_images,
    stored_image,
)
from sdpo_exp.data.stored_cells import StoredCells
from sdpo_exp.errors import BadRow, UserError, first_line
from sdpo_exp.whole_files import whole

_ABOUT = b"sdpo_exp.make_pairs"
# A part of the file is held in memory, written and, by whoever reads it, read at once.
_MOST_PAIRS, _MOST_BYTES = 1_000, 64 * 2**20


class PairToWrite(NamedTuple):
    """Two images of a ranking, and by how much the winner is better, in its own unit."""

    winner: RankedImage
    loser: RankedImage
    margin: float


class Images(NamedTuple):
    """Where images come from, and whether the pairs get their files or their paths."""

    table: StoredCells
    columns: RankedColumns
    kind: Literal["bytes", "paths"]

    def check(self) -> None:
        """Refuse paths where the first image has none, before all are looked at.

        Raises:
            UserError: the table holds the image itself.
        """
        found = ranked_images(self.table, self.columns)
        first = next((image for image in found if isinstance(image, RankedImage)), None)
        if first is not None and self.kind == "paths":
            with suppress(BadRow):
                self.cell(first, self.table.folder)

    def cell(self, image: RankedImage, beside: Path) -> bytes | str:
        """What the table of pairs holds as this image; a path is relative to `beside`."""
        stored = stored_image(self.table, self.columns, image)
        if self.kind == "bytes":
            return image_bytes(stored, image.name, self.table.folder)
        return os.path.relpath(image_path(stored, image.name, self.table.folder), beside)


def write_pairs(output: Path, images: Images, pairs: Sequence[PairToWrite], about: str) -> None:
    """Write `caption`, `winner`, `loser` and `margin`, complete or not at all.

    Args:
        output: of the parquet file; its folder is made.
        images: of the pairs.
        pairs: in the table's order.
        about: what the pairs were made of, kept in the file.

    Raises:
        UserError: it cannot be written.
    """
    image = pa.binary() if images.kind == "bytes" else pa.string()
    fields = {"caption": pa.string(), "winner": image, "loser": image, "margin": pa.float64()}
    schema = pa.schema(fields, metadata={_ABOUT: about})
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole(output) as partial, pq.ParquetWriter(partial, schema) as writer:
            for part in _parts(images, pairs, output.parent.resolve()):
                writer.write_table(pa.Table.from_pylist(part, schema=schema))
    except BadRow as error:  # it could be read a moment ago
        raise UserError(f"{error}; nothing was written") from None
    except OSError as error:
        raise UserError(f"output={output}: cannot be written ({first_line(error)})") from None


def _parts(
    images: Images, pairs: Sequence[PairToWrite], beside: Path
) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for pair in pairs:
        winner, loser = (images.cell(image, beside) for image in (pair.winner, pair.loser))
        caption = pair.winner.prompt
        part.append({"caption": caption, "winner": winner, "loser": loser, "margin": pair.margin})
        size += len(winner) + len(loser)
        if len(part) == _MOST_PAIRS or size > _MOST_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
