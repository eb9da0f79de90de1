"""A world small enough for unit tests: a two-layer denoiser on 3 x 8 x 8 images, random pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from sdpo_exp.data.datamodule import PairDataModule
from sdpo_exp.models.forward_process import VPProcess
from sdpo_exp.models.reference import FrozenReference
from sdpo_exp.models.tuning import FullTuning
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.safeguard import PreserveWinner
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Conditioning, PairRow


class SmallDenoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.embed = nn.Linear(4, 8)

    def forward(self, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        time = (t.float() / 1000).view(-1, 1, 1, 1).expand(-1, 1, *x_t.shape[2:])
        hidden = self.first(torch.cat([x_t, time.to(x_t)], dim=1))
        return self.last(torch.tanh(hidden + self.embed(text)[:, :, None, None]))


class SmallBackbone:
    """The `Backbone` protocol and no more."""

    def __init__(self, seed: int = 0, prediction_type: Any = "epsilon") -> None:
        torch.manual_seed(seed)
        self.denoiser = SmallDenoiser()
        self.process = VPProcess(torch.linspace(0.9999, 0.001, 1000), prediction_type)

    def to(self, device: torch.device) -> None:
        del device

    def encode_images(self, pixels: Tensor, draw: Any) -> Tensor:
        return pixels

    def encode_prompts(self, prompts: Sequence[str], geometry: Any) -> Conditioning:
        rows = [[float(b) / 255 for b in hashlib.sha256(p.encode()).digest()[:4]] for p in prompts]
        return {"text": torch.tensor(rows)}

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        return network(x_t, t, cond["text"])

    def save(self, folder: Path) -> None:
        raise NotImplementedError


class RandomPairs:
    """Winner and loser share most of their pixels, as real pairs do."""

    def __init__(self, size: int = 20, seed: int = 0) -> None:
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> PairRow:
        generator = torch.Generator().manual_seed(self.seed * 10_000 + index)
        winner = torch.rand(3, 8, 8, generator=generator) * 2 - 1
        noise = torch.rand(3, 8, 8, generator=generator) * 2 - 1
        return PairRow(winner, 0.8 * winner + 0.2 * noise, f"pair {index}")

    def fingerprint(self) -> str:
        return f"random-{self.size}-{self.seed}"


def small_module(**changes: Any) -> PreferenceModule:
    parts: dict[str, Any] = {
        "backbone": SmallBackbone(),
        "objective": DPO(beta=200.0),
        "safeguard": PreserveWinner(mu=0.9, scope="pair"),
        "reference": FrozenReference(),
        "tuning": FullTuning(),
        "optimizer": partial(torch.optim.AdamW, lr=1e-3),
        "warmup_steps": 2,
    }
    return PreferenceModule(**{**parts, **changes})


def small_data(**changes: Any) -> PairDataModule:
    parts: dict[str, Any] = {
        "train": RandomPairs(20),
        "validation": RandomPairs(16, seed=1),
        "micro_batch": 4,
        "effective_batch": 8,
        "max_steps": 6,
    }
    return PairDataModule(**{**parts, **changes})


def small_trainer(folder: Path, callbacks: Sequence[Any] = (), **changes: Any) -> L.Trainer:
    options: dict[str, Any] = {
        "max_steps": 6,
        "max_epochs": -1,
        "accelerator": "cpu",
        "devices": 1,
        "gradient_clip_val": 1.0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "use_distributed_sampler": False,
        "default_root_dir": folder,
    }
    return L.Trainer(callbacks=list(callbacks), **{**options, **changes})


class Recorder(L.Callback):
    """Keeps every micro-batch's record and every row that was logged."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.keys: list[list[Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        flush = pl_module._flush

        def keep() -> None:
            row = dict(pl_module._row)
            if row:
                self.rows.append((trainer.global_step, row))
            flush()

        pl_module._flush = keep

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.records.append(outputs["record"])
        self.keys.append(list(batch.keys))
