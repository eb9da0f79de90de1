"""Which image of one model is held against which image of another: by key, or by prompt."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sdpo_exp.errors import UserError

_NAMED = 5  # keys in a message
BY_PROMPT, BY_INDEX = "by prompt", "by index"


class PromptKey(NamedTuple):
    """A prompt: the name of its set and its position there."""

    set: str
    prompt: int


class ImageKey(NamedTuple):
    """An image: the prompt that it shows and the seed of the noise that it began with."""

    set: str
    prompt: int
    seed: int

    def __str__(self) -> str:
        return f"(set {self.set}, prompt {self.prompt}, seed {self.seed})"


class Score(NamedTuple):
    """What a metric says of an image; higher is better."""

    image: ImageKey
    value: float


class PairedScores(NamedTuple):
    """The images (n), and what a and b scored for each, both (n,) float64."""

    images: list[ImageKey]
    a: np.ndarray
    b: np.ndarray

    @property
    def signs(self) -> np.ndarray:
        """1 where b is above a, -1 where it is below, 0 where they are equal, (n,)."""
        # The order is compared and not the difference, which rounds to zero between tiny numbers.
        return (self.b > self.a).astype(float) - (self.b < self.a)

    def labels(self, table: Mapping[PromptKey, str], what: str) -> list[str]:
        """Those of the images' prompts (n).

        Raises:
            UserError: a prompt has none; `what` says what is missing.
        """
        prompts = [PromptKey(image.set, image.prompt) for image in self.images]
        for prompt in prompts:
            if prompt not in table:
                raise UserError(f"no {what} for prompt {prompt.prompt} of set {prompt.set}.")
        return [table[prompt] for prompt in prompts]

    def groups(self, clusters: Mapping[PromptKey, str] | None) -> np.ndarray:
        """Which cluster an image belongs to, numbered from 0, (n,); without clusters its prompt.

        Raises:
            UserError: a prompt has no cluster.
        """
        if clusters is None:
            prompts = [PromptKey(image.set, image.prompt) for image in self.images]
            return _codes(prompts)
        return _codes(self.labels(clusters, "cluster"))


@dataclass(frozen=True)
class PromptPairing:
    """Images that are paired because they show the same prompt.

    Attributes:
        a, b: the paired images' common keys, by the keys that they had. Set is "by prompt" or "by
            index", prompt the place among the common prompts, seed the place within a prompt.
        texts: of the common prompts; of those of a where they are paired by index.
        surplus: images of a and of b left over under a prompt that both have.
        unmatched: images of a and of b whose prompt the other does not have.
        by_index: no prompt is common, so the images are paired in the order given.
    """

    a: Mapping[ImageKey, ImageKey]
    b: Mapping[ImageKey, ImageKey]
    texts: Mapping[PromptKey, str]
    surplus: tuple[int, int]
    unmatched: tuple[int, int]
    by_index: bool


def pair_by_key(
    a: Sequence[Score], b: Sequence[Score], names: tuple[str, str] = ("a", "b")
) -> PairedScores:
    """Pair by set, prompt and seed, strictly: every image must be in both, once.

    Returns:
        The images in sorted order.

    Raises:
        UserError: no scores; an image twice, or in one of a and b only; a score that is no number.
            `names` are those of a and b in its message.
    """
    first, second = (_by_image(scores, name) for scores, name in zip((a, b), names, strict=True))
    _require_same(first, second, names)
    images = sorted(first)
    return PairedScores(images, *(np.array([s[i] for i in images]) for s in (first, second)))


def pair_by_prompt(a: Mapping[ImageKey, str], b: Mapping[ImageKey, str]) -> PromptPairing:
    """Pair as the public win-rate scripts do, which know no index and no seed.

    Prompts that both have are taken in sorted order, compared as they are written; under one prompt
    the first image of a meets the first of b, and so on, and what is left over is dropped. If no
    prompt is common, the first image of all meets the first, whatever they show. (Read in
    Diffusion-SDPO's pairwise evaluation.)

    Args:
        a, b: prompts of the images, in the order of their files.
    """
    first, second = _by_text(a), _by_text(b)
    common = sorted(first.keys() & second.keys())
    if not common:
        return _pair_by_place(a, b)
    keys: tuple[dict[ImageKey, ImageKey], dict[ImageKey, ImageKey]] = ({}, {})
    for number, text in enumerate(common):
        for place, pair in enumerate(zip(first[text], second[text], strict=False)):
            for found, image in zip(keys, pair, strict=True):
                found[image] = ImageKey(BY_PROMPT, number, place)
    shared = [sum(len(images[text]) for text in common) for images in (first, second)]
    return PromptPairing(
        *keys,
        texts={PromptKey(BY_PROMPT, number): text for number, text in enumerate(common)},
        surplus=(shared[0] - len(keys[0]), shared[1] - len(keys[1])),
        unmatched=(len(a) - shared[0], len(b) - shared[1]),
        by_index=False,
    )


def under_new_keys(scores: Iterable[Score], keys: Mapping[ImageKey, ImageKey]) -> list[Score]:
    """The scores of the images that have a new key, under it."""
    return [Score(keys[image], value) for image, value in scores if image in keys]


def some(keys: Collection[ImageKey]) -> str:
    """The first few of them, for a message."""
    ordered = sorted(keys)
    rest = len(ordered) - _NAMED
    shown = ", ".join(map(str, ordered[:_NAMED]))
    return f"{shown} and {rest} more" if rest > 0 else shown


def _pair_by_place(a: Mapping[ImageKey, str], b: Mapping[ImageKey, str]) -> PromptPairing:
    pairs = list(zip(a, b, strict=False))
    new = [ImageKey(BY_INDEX, number, 0) for number in range(len(pairs))]
    return PromptPairing(
        {image: key for (image, _), key in zip(pairs, new, strict=True)},
        {image: key for (_, image), key in zip(pairs, new, strict=True)},
        texts={PromptKey(k.set, k.prompt): a[i] for (i, _), k in zip(pairs, new, strict=True)},
        surplus=(len(a) - len(pairs), len(b) - len(pairs)),
        unmatched=(0, 0),
        by_index=True,
    )


def _by_text(texts: Mapping[ImageKey, str]) -> dict[str, list[ImageKey]]:
    found: dict[str, list[ImageKey]] = {}
    for image, text in texts.items():
        found.setdefault(text, []).append(image)
    return found


def _by_image(scores: Sequence[Score], name: str) -> dict[ImageKey, float]:
    if not scores:
        raise UserError(f"{name}: no scores to compare.")
    found: dict[ImageKey, float] = {}
    twice = []
    for image, value in scores:
        if image in found:
            twice.append(image)
        found[image] = float(value)
    if twice:
        raise UserError(f"{name}: scored more than once: {some(twice)}. Leave one score of each.")
    if broken := [image for image, value in found.items() if not np.isfinite(value)]:
        raise UserError(
            f"{name}: the score is not a finite number: {some(broken)}. Score these images again, "
            "or leave them out of both models."
        )
    return found


def _require_same(
    first: Mapping[ImageKey, float], second: Mapping[ImageKey, float], names: tuple[str, str]
) -> None:
    lone = [
        f"only in {name}: {some(keys)}"
        for name, keys in zip(
            names, (first.keys() - second.keys(), second.keys() - first.keys()), strict=True
        )
        if keys
    ]
    if lone:
        raise UserError(
            f"scores cannot be paired; {'; '.join(lone)}. Generate and score the same sets, "
            "prompts and seeds for both."
        )


def _codes(labels: Sequence[Hashable]) -> np.ndarray:
    position = {label: code for code, label in enumerate(dict.fromkeys(labels))}
    return np.array([position[label] for label in labels])
