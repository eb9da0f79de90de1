"""A cache opened for a training's data: refused where it is another's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sdpo_exp.data.cache_card import PARTS, CacheCard, read_card
from sdpo_exp.data.cache_shards import CachedRows, CachedTexts
from sdpo_exp.data.keyed import is_endless
from sdpo_exp.errors import UserError
from sdpo_exp.protocols import PairSource

STREAM = (
    "an endless stream has no rows that a cache could hold; use a table, such as "
    "data=pickapic_v2 or data=hf_pairs"
)


class PairCache:
    """The frozen work of a training's pairs.

    Args:
        folder: of the cache.
        sources: the training's pairs, by part.

    Raises:
        UserError: no cache, an unfinished or incomplete one, or one of other pairs.
    """

    def __init__(self, folder: Path, sources: Mapping[str, PairSource]) -> None:
        self.folder, self.card = folder, read_card(folder)
        if not self.card.complete:
            raise UserError(f"data.cache={folder}: not finished")
        mine = fingerprints(sources)
        for part, there in self.card.data.items():
            if there != mine[part]:
                raise UserError(
                    f"data.{part}: the cache {folder} is of other pairs ({there[:12]}, these are "
                    f"{mine[part][:12]}); make a cache of its own"
                )
        _check_files(folder, self.card)
        self.rows = {part: CachedRows(folder, self.card, part) for part in PARTS}
        self.texts = CachedTexts(folder, self.card)

    def check_model(self, files: Mapping[str, str]) -> None:
        """Refuse a model whose frozen parts are others.

        Args:
            files: as `protocols.CachedWork.frozen_files` gives them.

        Raises:
            UserError: with the files that differ.
        """
        names = dict.fromkeys([*self.card.files, *files])
        changed = [name for name in names if self.card.files.get(name) != files.get(name)]
        if changed:
            raise UserError(
                f"model: the cache {self.folder} is of another model; these files of its frozen "
                f"parts differ: {', '.join(changed)}"
            )


def fingerprints(sources: Mapping[str, PairSource]) -> dict[str, str]:
    """Of each part's pairs.

    Raises:
        UserError: one has no end.
    """
    for part, source in sources.items():
        if is_endless(source):
            raise UserError(f"data.{part}: {STREAM}")
    return {part: source.fingerprint() for part, source in sources.items()}


def _check_files(folder: Path, card: CacheCard) -> None:
    """All shards are there, at their sizes."""
    for name, about in card.shards.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != about["bytes"]:
            raise UserError(
                f"{file}: missing, or not as it was written; remove it if it is there, and the "
                "python -m sdpo_exp.prepare that made the cache makes it again"
            )
