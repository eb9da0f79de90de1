"""Per-prompt means: by hand, as a torchmetrics state, and over two processes."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import start_processes
from torchmetrics import MetricCollection

from sdpo_exp.evaluation.per_prompt import PerPromptScore

NAN = float("nan")


def means(found: Tensor) -> list[float | None]:
    """As a list with None for nan, which compares."""
    return [None if value != value else value for value in found.tolist()]


def filled() -> PerPromptScore:
    metric = PerPromptScore(4)
    metric.update(torch.tensor([2, 0, 2]), torch.tensor([1.0, -3.0, 2.0]))
    metric.update(torch.tensor([2]), torch.tensor([6.0]))
    return metric


def test_means_by_hand() -> None:
    metric = filled()
    assert metric.compute().dtype == torch.float64
    assert means(metric.compute()) == [-3.0, None, 3.0, None]
    assert metric.count.tolist() == [1, 0, 3, 0]


def test_sums_are_float64_whatever_comes_in() -> None:
    metric = PerPromptScore(1)
    # 2^24 + 1 is no float32 number; its neighbours are two apart.
    metric.update(torch.tensor([0]), torch.tensor([2.0**24]))
    for _ in range(3):
        metric.update(torch.tensor([0], dtype=torch.int32), torch.tensor([1.0]).half())
    assert metric.compute().item() == (2**24 + 3) / 4


def test_it_keeps_no_graph() -> None:
    metric = PerPromptScore(1)
    metric.update(torch.tensor([0]), torch.ones(1, requires_grad=True))
    assert not metric.compute().requires_grad


@pytest.mark.parametrize("change", ["half", "bfloat16", "float"])
def test_a_change_of_precision_around_it_leaves_it_alone(change: str) -> None:
    around = torch.nn.ModuleDict({"score": filled(), "network": torch.nn.Linear(1, 1)})
    metric = getattr(around, change)()["score"]
    assert (metric.total.dtype, metric.count.dtype) == (torch.float64, torch.int64)
    assert means(metric.compute()) == [-3.0, None, 3.0, None]


@pytest.mark.parametrize(
    ("index", "score", "message"),
    [
        ([0, 4], [1.0, 1.0], "index 4 is outside the 4 prompts"),
        ([-1], [1.0], "index -1 is outside"),
        ([0, 1], [1.0], r"\(B,\) both, got \(2,\) and \(1,\)"),
        ([[0]], [[1.0]], r"\(B,\) both, got \(1, 1\)"),
        ([0.0], [1.0], "index must be integers"),
        ([0], [1], "score floating"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    index: object, score: object, message: str
) -> None:
    metric = PerPromptScore(4)
    with pytest.raises(ValueError, match=message):
        metric.update(torch.tensor(index), torch.tensor(score))
    assert metric.count.sum() == 0


def test_a_set_has_prompts() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        PerPromptScore(0)


def test_a_batch_may_be_empty() -> None:
    metric = PerPromptScore(2)
    metric.update(torch.empty(0, dtype=torch.int64), torch.empty(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert means(metric.compute()) == [None, None]


def test_it_is_reset() -> None:
    metric = filled()
    metric.reset()
    assert (metric.total.abs().sum(), metric.count.sum()) == (0, 0)
    metric.update(torch.tensor([1]), torch.tensor([5.0]))
    assert means(metric.compute()) == [None, 5.0, None, None]


def test_its_state_is_two_vectors_and_comes_back() -> None:
    metric = filled()
    assert metric.state_dict() == {}
    metric.persistent(True)
    other = PerPromptScore(4)
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    assert sorted(metric.state_dict()) == ["count", "total"]
    other.update(torch.tensor([0]), torch.tensor([1.0]))
    assert means(other.compute()) == [-1.0, None, 3.0, None]
    assert sum(value.nbytes for value in metric.state_dict().values()) == 16 * 4


def test_a_collection_and_its_clones_keep_their_own_numbers() -> None:
    both = MetricCollection({"clip": PerPromptScore(2), "aesthetic": PerPromptScore(2)})
    both["clip"].update(torch.tensor([0]), torch.tensor([1.0]))
    clone = both.clone(prefix="base/")
    both["aesthetic"].update(torch.tensor([0, 1]), torch.tensor([5.0, 6.0]))
    clone["clip"].update(torch.tensor([0]), torch.tensor([3.0]))
    found = {name: means(value) for name, value in both.compute().items()}
    assert found == {"clip": [1.0, None], "aesthetic": [5.0, 6.0]}
    assert means(clone["clip"].compute()) == [2.0, None]


# Uneven shares of five prompts; item 1 stands twice, as a sampler that fills up repeats it; the
# other process has nothing in the second case.
SHARES: dict[str, list[list[tuple[int, float]]]] = {
    "uneven": [[(0, 1.0), (1, 2.0), (4, 8.0)], [(1, 2.0)]],
    "one empty": [[(0, 1.0), (1, 2.0), (1, 2.0), (4, 8.0)], []],
}
EXPECTED = [1.0, 2.0, None, None, 8.0]


def gather(rank: int, folder: str) -> None:
    """One of two processes."""
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    warnings.simplefilter("ignore")
    for shares in SHARES.values():
        metric = PerPromptScore(5)
        for index, score in shares[rank]:
            metric.update(torch.tensor([index]), torch.tensor([score]))
        assert means(metric.compute()) == EXPECTED
        # Gathering does not change what a process holds.
        assert metric.count.sum() == len(shares[rank])
    (Path(folder) / f"done_{rank}").touch()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_gather_uneven_repeated_and_empty_shares(tmp_path: Path) -> None:
    start_processes(gather, args=(str(tmp_path),), nprocs=2, start_method="fork")
    assert {path.name for path in tmp_path.glob("done_*")} == {"done_0", "done_1"}
