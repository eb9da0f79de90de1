"""Pairs from a folder of image files: `winner/` and `loser/` with equal names, and captions."""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from sdpo_exp.bounds import HalfOpenUnit, PositiveInt, Template
from sdpo_exp.data.columns import Part
from sdpo_exp.data.folder_files import no_folder, read_folder
from sdpo_exp.data.rows import checked_caption, decode_named, edges
from sdpo_exp.data.templates import check_template, template_mark, with_template
from sdpo_exp.types import ImagePair

_log = logging.getLogger(__name__)


class FolderPairs:
    """Pairs of a folder, by name.

    Args:
        path: folder with `winner` and `loser` (or `w` and `l`) below it.
        holdout, part: split by a hash of the caption: `train` and `validation` share no caption.
        max_samples: stop after so many pairs; null: all.
        template: what prompts are made of, such as `a photo of {caption}`; null: captions.

    Raises:
        UserError: no such folder, images without partner, pairs without caption, or no pair left.
    """

    def __init__(
        self,
        path: str,
        holdout: HalfOpenUnit = 0.0,
        part: Part = "all",
        max_samples: PositiveInt | None = None,
        template: Template | None = None,
    ) -> None:
        check_template(template)
        self.path, self.template = path, template
        self.pairs = read_folder(path, holdout, part)[:max_samples]
        side = "" if part == "all" else f" for part={part}"
        self.description = f"{path}: {len(self.pairs):,} pair{'s'[: len(self.pairs) != 1]}{side}"
        _log.info("%s", self.description)

    @classmethod
    def absent(cls, path: str, **_: Any) -> str | None:
        """Why the data cannot be had, in one sentence, or None; loads nothing."""
        return None if Path(path).expanduser().is_dir() else no_folder(path)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> ImagePair:
        """Pair `index`.

        Raises:
            BadRow: it cannot be used.
            IndexError: outside 0..len-1.
        """
        if not 0 <= index < len(self.pairs):
            raise IndexError(f"pair {index} of {len(self.pairs)}")
        pair, name = self.pairs[index], self.row_name(index)
        prompt = checked_caption(pair.caption, name)
        winner = decode_named(pair.winner, name, "winner", None)
        loser = decode_named(pair.loser, name, "loser", None)
        return with_template(ImagePair(winner, loser, prompt), self.template)

    def row_name(self, index: int) -> str:
        """`<path> pair <name>`."""
        return f"{self.path} pair {self.pairs[index].winner.stem}"

    def fingerprint(self) -> str:
        """sha256 over captions and, of every image, byte length and first and last 64 bytes.

        In the order of the files' names, which are not covered themselves. Computed once.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(template_mark(self.template))
        for pair in self.pairs:
            digest.update(pair.caption.encode() + b"\0")
            digest.update(edges(pair.winner, "", None) + edges(pair.loser, "", None))
        return digest.hexdigest()
