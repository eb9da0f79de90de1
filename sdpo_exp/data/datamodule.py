"""From pair sources to batches with the exact effective batch, on any number of devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sdpo_exp.bounds import NonNegativeInt, PositiveInt, UnitInterval
from sdpo_exp.data.sampler import BatchLayout, StepSampler
from sdpo_exp.errors import UserError
from sdpo_exp.protocols import PairSource
from sdpo_exp.randomness import Stream, draw_uniform
from sdpo_exp.types import Geometry, PairBatch, PairKey, PairRow


class KeyedPairs(Dataset[tuple[PairRow, PairKey]]):
    """A source read by `PairKey`; drops a pair's prompt by the pair's own random number."""

    def __init__(self, source: PairSource, seed: int, prompt_dropout: float = 0.0) -> None:
        self.source, self.seed, self.prompt_dropout = source, seed, prompt_dropout

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: PairKey) -> tuple[PairRow, PairKey]:
        row = self.source[key.row]
        if self.prompt_dropout:
            draw = draw_uniform(self.seed, [key], Stream.PROMPT_DROPOUT)
            if float(draw) < self.prompt_dropout:
                row = row._replace(prompt="")
        return row, key


def collate(rows: Sequence[tuple[PairRow, PairKey]]) -> PairBatch:
    """Stack rows to a `PairBatch`."""
    return PairBatch(
        winner=torch.stack([row.winner for row, _ in rows]),
        loser=torch.stack([row.loser for row, _ in rows]),
        prompts=[row.prompt for row, _ in rows],
        keys=[key for _, key in rows],
        geometry=[row.geometry or _uncropped(row.winner) for row, _ in rows],
        skipped=[],
    )


def _uncropped(pixels: Tensor) -> Geometry:
    height, width = pixels.shape[-2:]
    return Geometry(height, width, 0, 0, height, width)


class PairDataModule(L.LightningDataModule):
    """Training stream and held-out pairs.

    Args:
        train, validation: pair sources.
        micro_batch: pairs per device and forward pass; memory decides it, results do not depend
            on it (but for the microbatch scope of the safeguard).
        effective_batch: pairs per optimiser step over all devices. Accumulation follows from it.
        max_steps: optimiser steps of the run.
        seed: of the shuffle and the prompt dropout.
        prompt_dropout: share of pairs trained with the empty prompt, for guidance.
        num_workers: processes that read pairs; 0 reads in the main process.
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
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.micro_batch, self.effective_batch = micro_batch, effective_batch
        self.max_steps, self.seed = max_steps, seed
        self.prompt_dropout, self.num_workers = prompt_dropout, num_workers

    def setup(self, stage: str) -> None:
        """Derive the accumulation from the device count.

        Raises:
            UserError: the effective batch is not a whole number of micro-batches.
        """
        del stage
        if self.trainer is not None:
            self.trainer.accumulate_grad_batches = accumulation(
                self.effective_batch, self.micro_batch, self.trainer.world_size
            )

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
        sampler = StepSampler(
            len(self.train), self.seed, layout, self.max_steps, trainer.global_step
        )
        dataset = KeyedPairs(self.train, self.seed, self.prompt_dropout)
        return DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def held_out(self, pairs: int) -> list[PairBatch]:
        """The first `pairs` held-out pairs in micro-batches, always under the same keys.

        Raises:
            UserError: there are fewer held-out pairs.
        """
        if pairs > len(self.validation):
            raise UserError(
                f"the probe asks for {pairs} held-out pairs, the data has {len(self.validation)}: "
                "lower callbacks.probe.pairs"
            )
        rows = [(self.validation[i], PairKey(0, i, i)) for i in range(pairs)]
        size = self.micro_batch
        return [collate(rows[i : i + size]) for i in range(0, pairs, size)]

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
