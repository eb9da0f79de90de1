"""From pair sources to batches with the exact effective batch, on any number of devices."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from sdpo_exp.bounds import NonNegativeFloat, NonNegativeInt, PositiveInt, UnitInterval
from sdpo_exp.data.cached import PairCache
from sdpo_exp.data.holdout import too_few
from sdpo_exp.data.keyed import KeyedPairs, OnBadRow, Sealed, collate, collate_sealed, is_endless
from sdpo_exp.data.sampler import BatchLayout, OrdersPairs, StepSampler, fixed_batches
from sdpo_exp.data.skipped import SkippedRows
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.protocols import PairSource, PairTransform
from sdpo_exp.types import PairBatch, PairKey, SkippedRow

_log = logging.getLogger(__name__)
_FIXED_SEED = 0


class PairDataModule(L.LightningDataModule):
    """Training stream and held-out pairs.

    Args:
        train, validation: pair sources.
        micro_batch: pairs per device and forward pass; memory decides it, results do not depend
            on it (but for the microbatch scope of the safeguard).
        effective_batch: pairs per optimiser step over all devices. Accumulation follows from it.
        max_steps: optimiser steps of the run.
        seed: of the shuffle, the prompt dropout and the transform.
        prompt_dropout: share of pairs trained with the empty prompt, for guidance.
        num_workers: processes that read pairs; 0 reads in the main process. Each works with one
            thread and stays for the whole run.
        transform: from a source's images to pixels; null where the source gives pixels.
        on_bad_row: `error` stops at a row that cannot be used; `skip` lets the next good row stand
            in for it and counts it.
        max_aspect_gap: a pair whose images differ more in shape is a bad row: the larger of the
            two ratios of width to height over the smaller, minus 1; null: any shapes.
        validation_pairs: pairs of the validation loader, the first of `validation`; 0: no loader.
        prefetch_factor: micro-batches that each worker reads ahead.
        cache: a folder of `sdpo_exp.prepare`, read in the place of images.
    """

    def __init__(
        self,
        train: PairSource,
        validation: PairSource,
        micro_batch: PositiveInt,
        effective_batch: PositiveInt,
        max_steps: PositiveInt,
        seed: NonNegativeInt = 0,
        prompt_dropout: UnitInterval = 0.0,
        num_workers: NonNegativeInt = 0,
        transform: PairTransform | None = None,
        on_bad_row: OnBadRow = "error",
        max_aspect_gap: NonNegativeFloat | None = None,
        validation_pairs: NonNegativeInt = 0,
        prefetch_factor: PositiveInt = 2,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.micro_batch, self.effective_batch = micro_batch, effective_batch
        self.max_steps, self.seed = max_steps, seed
        self.prompt_dropout, self.num_workers = prompt_dropout, num_workers
        self.transform, self.on_bad_row = transform, on_bad_row
        self.max_aspect_gap = max_aspect_gap
        self.validation_pairs, self.prefetch_factor = validation_pairs, prefetch_factor
        self._skipped = SkippedRows()
        sources = {"train": train, "validation": validation}
        self.cache = None if cache is None else PairCache(Path(cache), sources)
        if isinstance(train, OrdersPairs):
            _log.info("%s", train.told_with(effective_batch * max_steps))

    def setup(self, stage: str) -> None:
        """Derive the accumulation from the device count; no validation loop without pairs.

        Raises:
            UserError: the effective batch is not a whole number of micro-batches, or there are
                fewer validation pairs than asked for.
        """
        del stage
        self.check_held_out(self.validation_pairs, "data.validation_pairs")
        if self.trainer is not None:
            self.trainer.accumulate_grad_batches = accumulation(
                self.effective_batch, self.micro_batch, self.trainer.world_size
            )
            if not self.validation_pairs:
                self.trainer.limit_val_batches = 0  # no loop over an empty list

    def train_dataloader(self) -> DataLoader:
        """The training stream of this rank, from the trainer's current step on."""
        trainer = self.trainer
        assert trainer is not None, "the training stream belongs to a trainer"
        layout = BatchLayout(
            self.micro_batch,
            trainer.accumulate_grad_batches,
            trainer.global_rank,
            trainer.world_size,
        )
        size = None if is_endless(self.train) else len(self.train)
        order = self.train.order(self.seed) if isinstance(self.train, OrdersPairs) else None
        sampler = StepSampler(size, self.seed, layout, self.max_steps, trainer.global_step, order)
        return self._loader(self._keyed(self.train, self.seed, self.prompt_dropout), sampler)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """This rank's share of the first `validation_pairs`; no loader where there are none.

        Every rank has its own pairs, none twice and none left out, in equally many micro-batches
        as far as that is possible.

        Raises:
            UserError: there are fewer pairs than devices.
        """
        if not self.validation_pairs:
            return []
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size)
            if self.trainer is not None
            else (0, 1)
        )
        if self.validation_pairs < world:
            raise UserError(
                f"data.validation_pairs={self.validation_pairs}: fewer than the {world} devices"
            )
        batches = fixed_batches(self.validation_pairs, self.micro_batch, rank, world)
        return self._loader(self._fixed(self.validation_pairs), batches)

    def held_out(self, pairs: int) -> list[PairBatch]:
        """The first `pairs` held-out pairs in micro-batches, always under the same keys.

        Raises:
            UserError: there are fewer held-out pairs, or a bad one among them.
        """
        self.check_held_out(pairs, "callbacks.probe.pairs")
        source = self._fixed(pairs)
        rows = [source.read(PairKey(0, i, i)) for i in range(pairs)]
        size = self.micro_batch
        batches = [collate(rows[i : i + size]) for i in range(0, pairs, size)]
        for batch in batches:
            self._skipped.add(batch.skipped)
        return batches

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Open a loader's batch, count its bad rows, and raise what a worker could not.

        Raises:
            UserError: reading the batch met a mistake of the user's.
        """
        del dataloader_idx
        if isinstance(batch, Sealed):
            batch = batch.content
        if isinstance(batch, UserError):
            raise batch
        if isinstance(batch, PairBatch):
            self._skipped.add(batch.skipped)
        return batch

    def skipped_rows(self) -> list[SkippedRow]:
        """Bad rows that this rank has gone on without, each once."""
        return self._skipped.rows()

    def teardown(self, stage: str) -> None:
        """Say which rows were skipped."""
        del stage
        if self._skipped.rows():
            _log.warning("%s", self._skipped.summary())

    def _fixed(self, pairs: int) -> KeyedPairs:
        """The first `pairs` held-out rows, with their prompts, alike whatever the run's seed."""
        return self._keyed(self.validation, _FIXED_SEED, 0.0, stride=pairs)

    def _keyed(
        self, source: PairSource, seed: int, prompt_dropout: float, stride: int = 1
    ) -> KeyedPairs:
        part = "train" if source is self.train else "validation"
        stored = None if self.cache is None else self.cache.rows[part]
        return KeyedPairs(
            source,
            seed,
            prompt_dropout,
            self.transform,
            self.on_bad_row,
            self.max_aspect_gap,
            stride,
            stored,
        )

    def _loader(self, pairs: KeyedPairs, batches: Iterable[Sequence[PairKey]]) -> DataLoader:
        # The workers' one thread each is torch's own doing.
        return DataLoader(
            pairs,
            batch_sampler=batches,  # type: ignore[arg-type]
            collate_fn=collate_sealed,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            prefetch_factor=self.prefetch_factor if self.num_workers else None,
        )

    def check_held_out(self, pairs: int, key: str) -> None:
        """Refuse a number of held-out pairs that there are not.

        Args:
            pairs: that are asked for.
            key: of the configuration, which asks.

        Raises:
            UserError: there are fewer, or the held-out source has no end.
        """
        there = self.held_out_pairs()
        if there is None:
            raise UserError("data.validation: an endless stream cannot be held out")
        if problem := too_few(key, pairs, there):
            raise UserError(problem)

    def held_out_pairs(self) -> int | None:
        """How many there are; None where the source has no end."""
        return None if is_endless(self.validation) else len(self.validation)

    def held_out_captions(self, n: int) -> list[str]:
        """The first n distinct captions of the held-out pairs; fewer where there are no more.

        Rows that cannot be read are passed over; no more than 64 n rows are looked at.
        """
        found: dict[str, None] = {}
        for index in range(min(self.held_out_pairs() or 0, 64 * n)):
            if len(found) == n:
                break
            with suppress(BadRow):
                found |= {self.validation[index].prompt: None}
            found.pop("", None)
        return list(found)

    def fingerprint(self) -> str:
        """Hash of the training source."""
        return self.train.fingerprint()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must share, for its stream of pairs to continue."""
        return {
            "seed": self.seed,
            "effective_batch": self.effective_batch,
            "data fingerprint": self.fingerprint(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to continue another stream.

        Raises:
            UserError: seed, effective batch or data differ from the checkpoint's.
        """
        mine = self.state_dict()
        changed = [f"{k}: {state_dict[k]} -> {mine[k]}" for k in mine if state_dict[k] != mine[k]]
        if changed:
            raise UserError(
                "resume: the checkpoint was made with other settings, so its stream of pairs "
                f"cannot continue ({'; '.join(changed)}). Give the same values, or start anew."
            )


def accumulation(effective_batch: int, micro_batch: int, world: int) -> int:
    """Micro-batches per optimiser step and rank.

    Raises:
        UserError: effective_batch is not a multiple of micro_batch * world.
    """
    per_pass = micro_batch * world
    if effective_batch % per_pass:
        share = effective_batch // world
        fits = [m for m in range(1, share + 1) if effective_batch % (m * world) == 0]
        advice = f"data.micro_batch={max(m for m in fits if m <= micro_batch)}" if fits else ""
        nearest = max(1, round(effective_batch / per_pass)) * per_pass
        raise UserError(
            f"effective_batch={effective_batch} is not a whole number of passes of "
            f"data.micro_batch={micro_batch} on {world} device(s). "
            f"Set {advice + ' or ' if advice else ''}effective_batch={nearest}."
        )
    return effective_batch // per_pass
