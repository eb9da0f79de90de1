"""Histograms of lambda reach the loggers that take them, at their step, and cost others nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sdpo_exp.callbacks.lambda_histogram import LambdaHistogram
from tests.harness import Recorder, small_data, small_module, small_trainer


class Listener(CSVLogger):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.heard: list[tuple[str, list[float], int]] = []

    def log_histogram(self, key: str, values: list[float], step: int) -> None:
        self.heard.append((key, values, step))


def fit(folder: Path, logger: Any, every: int = 2) -> tuple[LambdaHistogram, Recorder]:
    callback, recorder = LambdaHistogram(every_n_steps=every), Recorder()
    trainer = small_trainer(folder, [callback, recorder], max_steps=4, logger=logger)
    trainer.fit(small_module(), datamodule=small_data(micro_batch=4))
    return callback, recorder


def test_a_histogram_is_of_all_pairs_of_its_step(tmp_path: Path) -> None:
    listener = Listener(tmp_path)
    _, recorder = fit(tmp_path, listener)
    assert [(key.split("/")[1], step) for key, _, step in listener.heard] == [
        ("lambda_histogram", 2),
        ("would_be_histogram", 2),
        ("lambda_histogram", 4),
        ("would_be_histogram", 4),
    ]
    expected = torch.cat([record.lambda_safe for record in recorder.records[2:4]])
    assert listener.heard[0][1] == pytest.approx(expected.tolist())
    assert len(expected) == 8


def test_tensorboard_gets_histograms_too(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit(tmp_path, TensorBoardLogger(tmp_path, name="tb", version=""))
    read = events.EventAccumulator(str(tmp_path / "tb"), {"histograms": 0}).Reload()
    told = read.Histograms("safeguard/lambda_histogram")
    assert [event.step for event in told] == [2, 4]
    assert told[0].histogram_value.num == 8


def test_nothing_is_collected_where_nobody_listens(tmp_path: Path) -> None:
    callback, _ = fit(tmp_path, CSVLogger(tmp_path), every=100)
    assert callback._records == []
