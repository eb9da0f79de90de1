"""Every row of a source looked at once, to find the bad ones before a run does."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader, Dataset

from sdpo_exp.data.keyed import KeyedPairs, is_endless
from sdpo_exp.errors import UserError
from sdpo_exp.protocols import PairSource, PairTransform
from sdpo_exp.types import PairKey, SkippedRow


class _Problems(Dataset["SkippedRow | UserError | None"]):
    def __init__(self, pairs: KeyedPairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> SkippedRow | UserError | None:
        try:
            return self.pairs.problem(PairKey(0, index, index))
        except UserError as error:
            return error


def problems(
    source: PairSource,
    transform: PairTransform | None,
    num_workers: int,
    max_aspect_gap: float | None = None,
) -> Iterator[SkippedRow | None]:
    """What is wrong with each row, in order; None where nothing is.

    Args:
        source: pairs.
        transform: from images to pixels; it may refuse a row, too.
        num_workers: processes that decode; 0 decodes here.
        max_aspect_gap: as `KeyedPairs` has it.

    Raises:
        UserError: the source has no end, or source and transform do not fit.
    """
    if is_endless(source):
        raise UserError("an endless stream cannot be looked through; use a table")
    rows = _Problems(KeyedPairs(source, 0, transform=transform, max_aspect_gap=max_aspect_gap))
    for found in DataLoader(rows, batch_size=None, num_workers=num_workers):
        if isinstance(found, UserError):
            raise found
        yield found
