"""The protocols that the rooms meet through. A new backbone or objective satisfies one of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from sdpo_exp.types import (
    Conditioning,
    Geometry,
    ImagePair,
    LossParts,
    ModelScores,
    ObjectiveOutput,
    PairErrors,
    PairKey,
    PairRow,
    PairWeights,
    Prompt,
    SafeguardOutput,
)

if TYPE_CHECKING:
    from PIL.Image import Image

NoiseDraw: TypeAlias = Callable[[Sequence[int]], Tensor]


class ForwardProcess(Protocol):
    """How images become noise, and what the model predicts.

    It may also have

    - `within(low, high)`: the same process, with timesteps drawn from `low` to below `high` only,
      or a ValueError that says why not; `timesteps.min` and `timesteps.max` need it;
    - `at(fractions)`: timesteps (B,) at fractions (B,) in [0, 1) of the schedule, for probe and
      validation, where the training draws from another distribution than the uniform one;
    - `pair_weights(t)`: w(t) (N,), with which the errors at timesteps t (N,) count, or None for 1.
    """

    def sample_timesteps(self, uniform: Tensor, shape: Sequence[int] = ()) -> Tensor:
        """Map uniform draws (B,) in [0, 1) to timesteps (B,); latents are of `shape` (C, h, w)."""

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of latents (N, C, h, w) under noise of the same shape at t (N,)."""

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model should predict, (N, C, h, w), in its own prediction space."""


class Backbone(Protocol):
    """A text-to-image model: a trainable denoiser and the frozen parts around it."""

    denoiser: nn.Module
    process: ForwardProcess

    def to(self, device: torch.device) -> None:
        """Move the frozen parts; the denoiser moves with the module that trains it."""

    def encode_images(self, pixels: Tensor, draw: NoiseDraw) -> Tensor:
        """Latents (N, C, h, w) of pixels (N, 3, H, W) in [-1, 1].

        `draw((C, h, w))` gives standard normal (N, C, h, w) for an encoder that samples its
        latents; one that does not leaves it alone.
        """

    def encode_prompts(self, prompts: Sequence[str], geometry: Sequence[Geometry]) -> Conditioning:
        """Conditioning of N prompts and image geometries: named tensors with N rows each."""

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Prediction (N, C, h, w) of `network`: the denoiser, or the reference's copy of it."""

    def pipeline(self) -> Any:
        """A diffusers pipeline that generates with the denoiser as it is; it shares the parts."""

    def save(self, folder: Path) -> None:
        """Write the model in its public on-disk format."""


@runtime_checkable
class CachedWork(Protocol):
    """What a backbone of latents also has, so that its frozen work can be done once and kept.

    Its `encode_images` and `encode_prompts` go through these, so that what is kept is what a
    training would have made itself.
    """

    def posterior(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> float32 mean and deviation (N, 2, C, h, w) of the VAE."""

    def latents_from(self, posterior: Tensor, draw: NoiseDraw) -> Tensor:
        """Latents (N, C, h, w) of posteriors (N, 2, C, h, w), without the VAE."""

    def encode_texts(
        self, prompts: Sequence[str], geometry: Sequence[Geometry]
    ) -> Sequence[Mapping[str, Tensor]]:
        """Named tensors of each prompt, without padding; of `geometry` only sizes count."""

    def conditions(
        self, texts: Sequence[Mapping[str, Tensor]], geometry: Sequence[Geometry]
    ) -> Conditioning:
        """Conditioning of N encoded prompts and geometries, without the text encoders."""

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of images of a size in pixels."""

    def frozen_files(self) -> Mapping[str, str]:
        """sha256 by name of the files that the frozen parts are loaded from."""


class ReferenceProvider(Protocol):
    """Where the reference prediction comes from."""

    def attach(self, denoiser: nn.Module) -> None:
        """Take the policy as it is before training."""

    def to(self, device: torch.device) -> None:
        """Move what the provider holds."""

    def network(self, policy: nn.Module) -> AbstractContextManager[nn.Module]:
        """The network to run for the reference, inside the context only."""

    def networks(self) -> Sequence[nn.Module]:
        """The networks that the provider holds beside the policy: none, or its copy."""


class Objective(Protocol):
    """A preference objective. One with closed-form weights also has `weights(errors)`."""

    def __call__(self, errors: PairErrors) -> ObjectiveOutput:
        """Per-pair loss and logits."""


class WeightedObjective(Objective, Protocol):
    """An objective of the form loss(L_w, L_l)."""

    def weights(self, errors: PairErrors) -> PairWeights:
        """Detached derivatives (a, b) of the per-pair loss."""


class Safeguard(Protocol):
    """Scales the loser's gradient; forward values never change."""

    def __call__(self, errors: PairErrors, weights: PairWeights | None) -> SafeguardOutput:
        """Guarded errors and lambda."""


class GradientRule(Protocol):
    """Writes the gradients of one micro-batch. `needs_parts` asks for `LossParts`."""

    needs_parts: bool

    def backward(
        self, loss: Tensor | LossParts, module: nn.Module, optimizer: torch.optim.Optimizer | None
    ) -> None:
        """Accumulate into `.grad` of the module's parameters."""


class PairSource(Protocol):
    """Ordered pairs without ties: `source[i]` is a pure function of i."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> PairRow | ImagePair:
        """Row i; raises `BadRow` where it cannot be read. An `ImagePair` needs a transform."""

    def fingerprint(self) -> str:
        """A hash that changes when any pair changes."""


class PairTransform(Protocol):
    """From stored images to pixels of one size."""

    def __call__(self, pair: ImagePair, seed: int, key: PairKey) -> PairRow:
        """Pixels; all that is random about them follows from (seed, key)."""


class Tuning(Protocol):
    """Decides what of the denoiser is trained, and how networks are executed."""

    def apply(self, denoiser: nn.Module) -> None:
        """Change `denoiser` in place."""

    def prepare(self, network: nn.Module) -> None:
        """Memory layout and compilation, in place; policy and reference get the same."""


class Evaluator(Protocol):
    """Generates from a model for fixed prompts and noises, and scores what comes out."""

    @property
    def description(self) -> str:
        """What the scores are means over, in a few words."""

    def __call__(self, backbone: Backbone) -> ModelScores:
        """Scores of one model; rows are the same prompts and noises for every model."""


class PromptSet(Protocol):
    """Prompts to generate from, in a fixed order."""

    @property
    def name(self) -> str:
        """Short and fit for a folder; a part of every image's key."""

    def prompts(self) -> Sequence[Prompt]:
        """All of them; `prompts()[i].index` is i unless the set was asked for a part only."""

    def fingerprint(self) -> str:
        """sha256 over the texts in order; a change of it makes images incomparable."""


class Scorer(Protocol):
    """A score of images under prompts, on the raw scale of its official script.

    It may also have `origin`, a mapping that says where its weights came from;
    `cut_prompts(prompts) -> int`, how many prompts it reads in part only; and a classmethod
    `refuses(prompts) -> str | None`, asked before anything is drawn.

    Attributes:
        name: of the metric, as in tables.
        display_scale: what printed numbers are multiplied by, and labelled with: 1 or 100.
        image_size: side in pixels of the square that the scorer crops images to; None: it takes
            images as they are. An image already cropped to that size scores the same.
    """

    name: str
    display_scale: float
    image_size: int | None

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """Scores float32 (B,) on the CPU, detached; row i follows from image i and prompt i alone.

        Args:
            images: B images of any size and mode.
            prompts: B prompts, byte for byte as generated from.

        Raises:
            ValueError: not as many prompts as images.
        """


OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
