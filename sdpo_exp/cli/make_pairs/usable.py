"""The images of a table that can be used, each decoded once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sdpo_exp.data.keyed import OnBadRow
from sdpo_exp.data.ranked_columns import RankedColumns
from sdpo_exp.data.ranked_images import RankedImage, image_digest, ranked_images, stored_image
from sdpo_exp.data.skipped import SkippedRows
from sdpo_exp.data.stored_cells import StoredCells
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.terminal.progress import Progress, chunks
from sdpo_exp.types import SkippedRow

_AT_ONCE = 64  # images that are in memory together


def usable_images(
    table: StoredCells,
    columns: RankedColumns,
    on_bad_row: OnBadRow,
    threads: int,
    skipped: SkippedRows,
) -> list[RankedImage]:
    """Images with a prompt and a number that can be decoded, none twice in a ranking.

    Args:
        table: of all rows.
        columns: which are what.
        on_bad_row: `error`: stop at the first bad row. `skip`: note it down and go on.
        threads: that decode.
        skipped: where bad rows are noted down.

    Raises:
        UserError: a bad row under `error`.
    """
    usable = []
    for found in _told_twice(_looked_at(table, columns, threads)):
        if isinstance(found, RankedImage):
            usable.append(found)
        elif on_bad_row == "error":
            raise UserError(
                f"{found.row}: {found.reason}. Mend the row, or give on_bad_row=skip to go on "
                "without such rows"
            )
        else:
            skipped.add([found])
    return usable


def _looked_at(
    table: StoredCells, columns: RankedColumns, threads: int
) -> Iterator[tuple[RankedImage, bytes] | SkippedRow]:
    """Images with a hash of their file, and what is wrong with the others, in order."""
    with (
        Progress("looking at", len(table), "row", shown=True) as progress,
        ThreadPoolExecutor(threads) as pool,
    ):
        seen, batches = 0, chunks(list(ranked_images(table, columns)), _AT_ONCE)
        for batch in batches:
            yield from pool.map(_digested, _fetched(table, columns, batch))
            rows = [one.row + 1 for one in batch if isinstance(one, RankedImage)]
            last = len(table) if batch is batches[-1] else max(rows, default=seen)
            progress.advance(last - seen)
            seen = last


def _fetched(
    table: StoredCells, columns: RankedColumns, found: Iterable[RankedImage | SkippedRow]
) -> Iterator[tuple[RankedImage, Any, Path] | SkippedRow]:
    for image in found:
        if isinstance(image, SkippedRow):
            yield image
            continue
        try:
            yield image, stored_image(table, columns, image), table.folder
        except BadRow as error:
            yield SkippedRow(error.row, error.reason)


def _digested(
    job: tuple[RankedImage, Any, Path] | SkippedRow,
) -> tuple[RankedImage, bytes] | SkippedRow:
    if isinstance(job, SkippedRow):
        return job
    image, stored, folder = job
    try:
        return image, image_digest(stored, image.name, folder)
    except BadRow as error:
        return SkippedRow(error.row, error.reason)


def _told_twice(
    found: Iterable[tuple[RankedImage, bytes] | SkippedRow],
) -> Iterator[RankedImage | SkippedRow]:
    """An image that its ranking has already is bad: a pair of it with itself teaches nothing."""
    first: dict[tuple[Hashable, bytes], str] = {}
    for one in found:
        if isinstance(one, SkippedRow):
            yield one
            continue
        image, digest = one
        earlier = first.setdefault((image.ranking, digest), image.name)
        if earlier == image.name:
            yield image
        else:
            yield SkippedRow(image.name, f"the same image again under its prompt (as {earlier})")
