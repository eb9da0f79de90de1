"""One score per prompt, gathered over processes: what means, intervals and win rates start from."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class PerPromptScore(Metric):
    """The mean score of each of n prompts, over its images and over all processes.

    The states have one fixed length in every process, so a process without any image, uneven
    shares and repeated items are all right: they are summed, never concatenated. No model lives in
    here; scores come in, and a copy of the metric weighs 16 bytes per prompt.

    Args:
        n: prompts of the set; an image's index is its prompt's.

    Raises:
        ValueError: n is below 1.
    """

    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        self.n = n
        self.add_state("total", torch.zeros(n, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(n, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, index: Tensor, score: Tensor) -> None:
        """Add images.

        Args:
            index: their prompts' positions in the set, integers (B,) in 0..n-1, repeats allowed.
            score: floating (B,); summed in float64.

        Raises:
            ValueError: another shape or kind of numbers, or an index outside the set.
        """
        if index.dim() != 1 or index.shape != score.shape:
            raise ValueError(
                "index and score must be (B,) both, got "
                f"{tuple(index.shape)} and {tuple(score.shape)}"
            )
        if index.is_floating_point() or not score.is_floating_point():
            raise ValueError(
                f"index must be integers and score floating, got {index.dtype} and {score.dtype}"
            )
        index = index.to(self.count.device, torch.int64)
        if len(outside := index[(index < 0) | (index >= self.n)]):
            raise ValueError(f"index {int(outside[0])} is outside the {self.n} prompts")
        self.total.index_add_(0, index, score.detach().to(self.total))
        self.count.index_add_(0, index, torch.ones_like(index))

    def compute(self) -> Tensor:
        """Mean scores float64 (n,), of one prompt (); nan for a prompt without an image."""
        return self.total / self.count
