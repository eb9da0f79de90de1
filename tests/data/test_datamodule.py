"""A Pick-a-Pic table with flaws goes through training: the same pairs, whoever reads them."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_exp.data.datamodule import PairDataModule
from sdpo_exp.data.sampler import fixed_batches
from sdpo_exp.data.table import TablePairs
from sdpo_exp.data.transform import PairCrop
from sdpo_exp.errors import UserError
from sdpo_exp.types import PairBatch, PairKey
from tests.data.pictures import FLAWS, PICKAPIC, pickapic_rows, write_pickapic
from tests.harness import small_data, small_module, small_trainer
from tests.unet import unet_module

GOOD = 786  # 800 rows that are no ties, less 14 flaws


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> TablePairs:
    folder = tmp_path_factory.mktemp("pickapic")
    write_pickapic(folder / "pairs")
    return TablePairs(str(folder / "pairs"), PICKAPIC, cache_dir=str(folder / "cache"))


def data_of(pairs: TablePairs, **changes: Any) -> PairDataModule:
    parts: dict[str, Any] = {
        "train": pairs,
        "validation": pairs,
        "micro_batch": 8,
        "effective_batch": 16,
        "max_steps": 50,
        "transform": PairCrop(8, "random", "shared"),
        "max_aspect_gap": 0.2,
        "on_bad_row": "skip",
        "prompt_dropout": 0.2,
    }
    return PairDataModule(**{**parts, **changes})


class _Stage:
    """What a data module asks of its trainer."""

    def __init__(self, rank: int = 0, world: int = 1, step: int = 0) -> None:
        self.global_rank, self.world_size, self.global_step = rank, world, step
        self.accumulate_grad_batches = 1


def batches_of(data: PairDataModule, step: int = 0) -> list[PairBatch]:
    data.trainer = _Stage(step=step)  # type: ignore[assignment]
    data.setup("fit")
    return [data.on_before_batch_transfer(batch, 0) for batch in data.train_dataloader()]


def same(ours: list[PairBatch], theirs: list[PairBatch]) -> bool:
    def flat(batches: list[PairBatch]) -> tuple[torch.Tensor, list[Any]]:
        pixels = torch.cat([torch.cat([batch.winner, batch.loser], 1) for batch in batches])
        rest = [item for b in batches for item in zip(b.prompts, b.keys, b.geometry, strict=True)]
        return pixels, rest

    (ours_pixels, ours_rest), (theirs_pixels, theirs_rest) = flat(ours), flat(theirs)
    return torch.equal(ours_pixels, theirs_pixels) and ours_rest == theirs_rest


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_finds_counts_and_names_every_flaw(
    pairs: TablePairs, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_of(pairs, num_workers=workers)
    batches = batches_of(data)  # 50 steps of 16 = 800 = one epoch
    expected = {f"{pairs.path} row {row}": why for row, (_, why) in FLAWS.items()}
    told = {skipped.row: skipped.reason for skipped in data.skipped_rows()}
    assert len(data.skipped_rows()) == len(FLAWS) == 14
    assert {row: told[row][: len(expected[row])] for row in told} == expected
    trained = Counter(key.row for batch in batches for key in batch.keys)
    assert len(trained) == GOOD
    assert trained.total() == 800
    data.teardown("fit")
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert line.startswith("14 bad rows skipped; ")
    assert f"2 empty caption: {pairs.path} row " in line
    assert "3 not an image of a known format: " in line
    assert "2 damaged image: " in line


def test_workers_and_micro_batches_change_nothing(pairs: TablePairs) -> None:
    plain = batches_of(data_of(pairs, max_steps=6))
    assert same(plain, batches_of(data_of(pairs, max_steps=6, num_workers=2, prefetch_factor=3)))
    assert same(plain, batches_of(data_of(pairs, max_steps=6, micro_batch=2)))
    assert same(plain[8:], batches_of(data_of(pairs, max_steps=6), step=4))
    assert not same(plain, batches_of(data_of(pairs, max_steps=6, seed=1)))


def test_a_row_read_twice_is_counted_once(pairs: TablePairs) -> None:
    data = data_of(pairs, max_steps=100)
    batches = batches_of(data)
    # Rows 60 and 70 each meet another bad row behind them: 16 reports per epoch.
    assert sum(len(batch.skipped) for batch in batches) == 2 * 16
    assert len(data.skipped_rows()) == 14


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_reaches_the_user_as_words(
    pairs: TablePairs, tmp_path: Path, workers: int
) -> None:
    data = data_of(pairs, on_bad_row="error", num_workers=workers)
    with pytest.raises(UserError) as caught:
        small_trainer(tmp_path, max_steps=50).fit(small_module(), datamodule=data)
    words = str(caught.value)
    assert words.startswith(f"{pairs.path} row ")
    assert "data.on_bad_row=skip" in words
    assert "Traceback" not in words


def test_training_is_the_same_with_workers(pairs: TablePairs, tmp_path: Path) -> None:
    trained = []
    for workers in (0, 2):
        module = small_module()
        data = data_of(pairs, max_steps=6, num_workers=workers)
        small_trainer(tmp_path, max_steps=6).fit(module, datamodule=data)
        trained.append(torch.cat([p.detach().flatten() for p in module.policy.parameters()]))
    assert torch.equal(*trained)


def test_a_missing_transform_is_told(pairs: TablePairs, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.transform is missing"):
        small_trainer(tmp_path).fit(small_module(), datamodule=data_of(pairs, transform=None))


def test_held_out_pairs_follow_the_same_rules_under_fixed_keys(pairs: TablePairs) -> None:
    data, other = data_of(pairs, micro_batch=3), data_of(pairs, micro_batch=3, seed=5)
    batches = data.held_out(10)
    assert [len(batch.keys) for batch in batches] == [3, 3, 3, 1]
    places = [(key.epoch, key.position) for batch in batches for key in batch.keys]
    assert places == [(0, i) for i in range(10)]
    assert same(batches, other.held_out(10))
    assert all(prompt for batch in batches for prompt in batch.prompts)
    assert [skipped.row for skipped in data.skipped_rows()] == [f"{pairs.path} row 10"]
    rows = [key.row for batch in batches for key in batch.keys]
    assert len(set(rows)) == 10
    with pytest.raises(UserError, match=r"row 10: damaged"):
        data_of(pairs, on_bad_row="error").held_out(10)


@pytest.mark.parametrize("count", [1, 5, 8, 23, 64])
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 8])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_fixed_batches_share_out_every_row_once(count: int, micro_batch: int, world: int) -> None:
    shares = [fixed_batches(count, micro_batch, rank, world) for rank in range(world)]
    keys = [key for share in shares for batch in share for key in batch]
    assert sorted(keys) == [PairKey(0, i, i) for i in range(count)]
    assert all(0 < len(batch) <= micro_batch for share in shares for batch in share)
    passes = {len(share) for share in shares}
    assert max(passes) - min(passes) <= 1
    if micro_batch > 1 and count >= 2 * world:
        assert len(passes) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_the_validation_loader_is_the_first_pairs_whatever_the_layout(
    pairs: TablePairs, workers: int
) -> None:
    whole = data_of(pairs, validation_pairs=20, micro_batch=20).val_dataloader()
    (expected,) = (batch.content for batch in whole)
    data = data_of(pairs, validation_pairs=20, micro_batch=4, num_workers=workers)
    found: dict[int, torch.Tensor] = {}
    for rank in range(3):
        data.trainer = _Stage(rank, 3)  # type: ignore[assignment]
        for sealed in data.val_dataloader():
            batch = data.on_before_batch_transfer(sealed, 0)
            for key, winner in zip(batch.keys, batch.winner, strict=True):
                found[key.position] = winner
    assert sorted(found) == list(range(20))
    assert torch.equal(torch.stack([found[i] for i in range(20)]), expected.winner)


def test_without_validation_pairs_there_is_no_loader_and_too_many_are_told(
    pairs: TablePairs,
) -> None:
    assert data_of(pairs).val_dataloader() == []
    with pytest.raises(UserError, match=r"data.validation_pairs=900: the data has 800 held-out"):
        data_of(pairs, validation_pairs=900).setup("fit")
    data = data_of(pairs, validation_pairs=2)
    data.trainer = _Stage(2, 3)  # type: ignore[assignment]
    with pytest.raises(UserError, match="fewer than the 3 devices"):
        data.val_dataloader()


def test_resuming_with_other_pairs_is_refused(pairs: TablePairs, tmp_path: Path) -> None:
    write_pickapic(tmp_path / "other", pickapic_rows()[:200])
    other = TablePairs(str(tmp_path / "other"), PICKAPIC, cache_dir=str(tmp_path / "cache"))
    saved = data_of(pairs).state_dict()
    data_of(pairs).load_state_dict(saved)
    with pytest.raises(UserError, match="data fingerprint"):
        data_of(other).load_state_dict(saved)


def test_sources_of_pixels_need_nothing_new() -> None:
    batch = small_data().held_out(4)[0]
    assert batch.skipped == []
    assert [tuple(g) for g in batch.geometry] == [(8, 8, 0, 0, 8, 8)] * 4


def test_pixels_are_not_rounded_under_half_precision(tmp_path: Path) -> None:
    seen: list[PairBatch] = []
    module = unet_module(optimizer=partial(torch.optim.AdamW, lr=1e-2))
    step = module.training_step

    def watched(batch: PairBatch, batch_idx: int) -> Any:
        seen.append(batch)
        return step(batch, batch_idx)

    module.training_step = watched  # type: ignore[method-assign]
    data = small_data(max_steps=1)
    small_trainer(tmp_path, max_steps=1, precision="bf16-true").fit(module, datamodule=data)
    batch = seen[0]
    for key, winner in zip(batch.keys, batch.winner, strict=True):
        assert torch.equal(winner, data.train[key.row].winner)
        assert winner.dtype == torch.float32
