"""Which checkpoints are written, and which are kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sdpo_exp.callbacks import checkpoint
from sdpo_exp.callbacks.checkpoint import StepCheckpoint
from tests.harness import small_data, small_module, small_trainer


def fit(folder: Path, saver: StepCheckpoint, **changes: Any) -> set[str]:
    steps = changes.pop("max_steps", 6)
    trainer = small_trainer(folder, [saver], max_steps=steps)
    trainer.fit(
        small_module(), datamodule=small_data(max_steps=steps), weights_only=True, **changes
    )
    return {path.stem for path in folder.glob("*.ckpt")}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"every_n_steps": 2}, {"step=6"}),
        ({"every_n_steps": 1, "keep_last": 3}, {"step=4", "step=5", "step=6"}),
        ({"every_n_steps": 4, "keep_last": 3}, {"step=4"}),
        ({"every_n_steps": 2, "keep_all": True}, {"step=2", "step=4", "step=6"}),
        ({"every_n_steps": 100}, set()),
    ],
)
def test_the_newest_are_kept_and_the_end_always(
    tmp_path: Path, options: Any, kept: set[str]
) -> None:
    assert fit(tmp_path, StepCheckpoint(str(tmp_path), **options)) == kept | {"last"}


def test_a_resumed_run_counts_its_own_files_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "step=1.ckpt").write_bytes(b"of another run")
    options: dict[str, Any] = {"every_n_steps": 2, "keep_last": 2}
    fit(tmp_path, StepCheckpoint(str(tmp_path), **options), max_steps=4)
    saver = StepCheckpoint(str(tmp_path), **options)
    kept = fit(tmp_path, saver, ckpt_path=tmp_path / "step=4.ckpt")
    assert kept == {"step=1", "step=4", "step=6", "last"}
    elsewhere = tmp_path / "elsewhere"
    fit(elsewhere, StepCheckpoint(str(elsewhere), **options), ckpt_path=tmp_path / "step=4.ckpt")
    assert (tmp_path / "step=4.ckpt").is_file()


def test_the_clock_asks_for_checkpoints_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Ticking(StepCheckpoint):
        def on_step(self, trainer: Any, module: Any) -> None:
            now[0] += 40
            super().on_step(trainer, module)

    saver = Ticking(str(tmp_path), every_n_minutes=2, keep_all=True)
    assert fit(tmp_path, saver) == {"step=3", "step=6", "last"}
