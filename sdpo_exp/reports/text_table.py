"""Tables in aligned columns, for terminals of any width, and for pipes, which have none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

_GAP = "  "
_LEAST = 12  # columns that are left of a cell that is cut


class TextTable(NamedTuple):
    """Lines, and the names of the columns that there was no room for."""

    lines: list[str]
    left_out: list[str]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def text_table(
    rows: Sequence[Mapping[str, str]],
    *,
    width: int | None = None,
    left: Collection[str] = (),
    spare: Sequence[str | tuple[str, ...]] = (),
    below: str | None = None,
    cut: str | None = None,
) -> TextTable:
    """Rows of cells, all with the same columns, under their names.

    Args:
        rows: at least one.
        width: columns that there are; None: any number.
        left: columns of words, aligned left; the others are numbers.
        spare: columns to leave out until the rest fits, in this order; a tuple goes as one.
        below: a column that goes below its row, indented, where it does not fit beside it.
        cut: a column whose cells lose their middle where all this was not enough.
    """
    names = list(rows[0])
    tucked = below is not None and below in names and _overflows(names, rows, width)
    if tucked:
        names.remove(str(below))
    left_out: list[str] = []
    for item in spare:
        group = [name for name in ((item,) if isinstance(item, str) else item) if name in names]
        if _overflows(names, rows, width):
            names = [name for name in names if name not in group]
            left_out += group
    if cut in names and width is not None and _overflows(names, rows, width):
        room = width - _total([n for n in names if n != cut], rows) - len(_GAP)
        rows = [{**row, cut: shortened(row[cut], max(room, _LEAST))} for row in rows]
    widths = {name: _width(name, rows) for name in names}
    lines = [_line({name: name for name in names}, widths, left)]
    for row in rows:
        lines.append(_line({name: row[name] for name in names}, widths, left))
        if tucked and row[str(below)]:
            lines.append(f"    {row[str(below)]}")
    return TextTable(lines, left_out)


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` columns, two dots for what is left out of its middle."""
    if len(text) <= width:
        return text
    head = (width - 2) // 2
    return f"{text[:head]}..{text[len(text) - (width - 2 - head) :]}"


def _width(name: str, rows: Sequence[Mapping[str, str]]) -> int:
    return max(len(name), *(len(row[name]) for row in rows))


def _total(names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> int:
    return sum(_width(name, rows) for name in names) + len(_GAP) * (len(names) - 1)


def _overflows(names: Sequence[str], rows: Sequence[Mapping[str, str]], width: int | None) -> bool:
    return width is not None and _total(names, rows) > width


def _line(cells: Mapping[str, str], widths: Mapping[str, int], left: Collection[str]) -> str:
    padded = (
        f"{cell:<{widths[name]}}" if name in left else f"{cell:>{widths[name]}}"
        for name, cell in cells.items()
    )
    return _GAP.join(padded).rstrip()
