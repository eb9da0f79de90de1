"""The body of `sdpo_exp.make_pairs`: usable images, their pairs, the table, and the account."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.make_pairs.usable import usable_images
from sdpo_exp.cli.make_pairs.writing import Images, PairToWrite, write_pairs
from sdpo_exp.cli.printed import command, word
from sdpo_exp.data.ranked_columns import RankedColumns, find_columns
from sdpo_exp.data.ranked_images import RankedImage
from sdpo_exp.data.rankings import PairingRule, pair_up, ranking_draw
from sdpo_exp.data.skipped import SkippedRows
from sdpo_exp.data.stored_cells import StoredCells, open_cells
from sdpo_exp.errors import UserError

_log = logging.getLogger(__name__)


@dataclass
class Account:
    """What became of the images.

    Attributes:
        images: that were usable.
        prompts: rankings with at least one of them.
        alone: rankings with no second one.
        paired: rankings that gave a pair.
        ties, narrow, beyond: pairs that were none, by `PairedRanking`'s reasons.
        pairs: of the table.
        skipped: bad rows.
    """

    images: int = 0
    prompts: int = 0
    alone: int = 0
    paired: int = 0
    ties: int = 0
    narrow: int = 0
    beyond: int = 0
    pairs: int = 0
    skipped: SkippedRows = field(default_factory=SkippedRows)

    def lines(self) -> Iterator[str]:
        """For the terminal."""
        images, prompts = counted(self.images, "image"), counted(self.prompts, "prompt")
        yield f"{images} of {prompts}: {counted(self.pairs, 'pair')} of {self.paired:,} prompts"
        left = {
            f"{counted(self.ties, 'tie')} (images of equal value)": self.ties,
            f"{counted(self.narrow, 'pair')} below min_gap": self.narrow,
            f"{counted(self.beyond, 'pair')} beyond max_pairs_per_prompt": self.beyond,
            f"{counted(self.alone, 'prompt')} with one image alone": self.alone,
        }
        yield f"left out: {', '.join(text for text, count in left.items() if count) or 'nothing'}"
        if self.skipped.rows():
            yield self.skipped.summary()


def counted(count: int, what: str) -> str:
    """`1 pair`, `2 pairs`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def columns_of(config: DictConfig, table: StoredCells) -> RankedColumns:
    """The table's columns by what they hold.

    Raises:
        UserError: one cannot be found.
    """
    given: Any = OmegaConf.to_container(config.columns)
    return find_columns(given, table.columns, str(config.path))


def output_of(config: DictConfig) -> Path:
    """Where the table goes.

    Raises:
        UserError: something is there that is not to be replaced.
    """
    output = Path(config.output).expanduser()
    if output.is_dir() or (output.exists() and not config.overwrite):
        raise UserError(
            f"output={config.output} is there already; give another name, or overwrite=true"
        )
    return output


def make_pairs_of(config: DictConfig) -> None:
    """Make `config.output`, complete or not at all, and say what it is made of.

    Raises:
        UserError: a row cannot be used, no pair is left, or the output cannot be written.
    """
    output = output_of(config)  # another cell of a sweep may have made it
    table = open_cells(Path(config.path).expanduser())
    columns = columns_of(config, table)
    _log.info("%s: %s (%s)", config.path, counted(len(table), "row"), columns)
    images = Images(table, columns, config.images)
    images.check()
    account = Account()
    usable = usable_images(table, columns, config.on_bad_row, config.num_workers, account.skipped)
    rule = PairingRule(config.pairs, config.min_gap, config.max_pairs_per_prompt)
    pairs = paired(usable, rule, config.seed, account)
    if not pairs:
        raise UserError(f"{config.path}: no pair; {'; '.join(account.lines())}")
    write_pairs(output, images, pairs, _about(config))
    for line in account.lines():
        _log.info("%s", line)
    kept = "images in it" if config.images == "bytes" else "images as paths"
    _log.info("%s: %s, %s", config.output, counted(len(pairs), "pair"), kept)
    onward = ("model=sd15", "data=hf_pairs", word("data.train.path", output))
    _log.info("\ntrain on it: %s", command("train", *onward))


def paired(
    images: Sequence[RankedImage], rule: PairingRule, seed: int, account: Account
) -> list[PairToWrite]:
    """Pairs of all rankings, in the order in which these begin in the table; counted on the way."""
    rankings: dict[Hashable, list[RankedImage]] = defaultdict(list)
    for image in images:
        rankings[image.ranking].append(image)
    account.images, account.prompts = len(images), len(rankings)
    found = []
    for ranking, members in rankings.items():
        made = pair_up([m.value for m in members], rule, ranking_draw(seed, ranking))
        found += [PairToWrite(members[p.better], members[p.worse], p.gap) for p in made.pairs]
        account.alone += len(members) == 1
        account.paired += bool(made.pairs)
        account.ties += made.ties
        account.narrow += made.narrow
        account.beyond += made.beyond
    account.pairs = len(found)
    return found


def _about(config: DictConfig) -> str:
    """The command's values, which the table keeps."""
    kept = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return json.dumps(OmegaConf.to_container(kept, resolve=True))
