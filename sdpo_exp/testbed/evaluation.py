"""Base against tuned on the same captions and noises, judged by the exact checker."""

from __future__ import annotations

import numpy as np

from sdpo_exp.bounds import NonNegativeInt, PositiveFloat, PositiveInt
from sdpo_exp.errors import UserError
from sdpo_exp.generation.drawing import DrawSettings, draw_in_batches
from sdpo_exp.generation.noise import Draw
from sdpo_exp.protocols import Backbone
from sdpo_exp.terminal.progress import QUIET, Progress
from sdpo_exp.testbed.attributes import ATTRIBUTES, SPLITS, Split, split_scenes
from sdpo_exp.testbed.captions import caption
from sdpo_exp.testbed.checker import CheckerResult, check
from sdpo_exp.types import ModelScores

_BATCH = 64


class ExactReward:
    """One image for each of the first n captions of a split, from frozen noise.

    Args:
        split: which captions; choose settings on "validation", report on "test".
        n: images; each has a caption of its own, so they are independent.
        guidance: classifier-free guidance; 1 is the conditional model alone.
        steps: solver steps.
        seed: of the noise; image i starts from what (seed, i) gives, for every model.

    Raises:
        UserError: an unknown split, or it has fewer captions than n.
    """

    def __init__(
        self,
        split: Split = "test",
        n: PositiveInt = 256,
        guidance: PositiveFloat = 2.0,
        steps: PositiveInt = 8,
        seed: NonNegativeInt = 0,
    ) -> None:
        if split not in SPLITS:
            raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if n > len(split_scenes(split)):
            raise UserError(
                f"evaluation.n={n}: the {split} split has {len(split_scenes(split))} captions"
            )
        self.split, self.n, self.guidance = split, n, guidance
        self.steps, self.seed = steps, seed

    @property
    def description(self) -> str:
        """What the numbers are means over."""
        return f"{self.n} images of {self.split} captions, guidance {self.guidance:g}"

    def __call__(self, backbone: Backbone) -> ModelScores:
        """Scores and images of one model."""
        scenes = split_scenes(self.split)[: self.n]
        prompts = [caption(scene) for scene in scenes]
        draws = [Draw(prompt, index, self.seed) for index, prompt in enumerate(prompts)]
        settings = DrawSettings(self.guidance, self.steps)
        drawn = draw_in_batches(backbone.pipeline(), draws, settings, _BATCH)
        with Progress("images", self.n, "image", quiet=QUIET) as progress:
            pictures = []
            for part in drawn:
                pictures += [np.asarray(picture) for _, picture in part]
                progress.advance(len(part))
        pixels = np.stack(pictures)
        # What is judged is what can be looked at: the 8-bit image.
        return ModelScores(prompts, _columns(check(pixels, scenes)), pixels)


def _columns(result: CheckerResult) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {"reward": result.reward, "accuracy": result.accuracy}
    columns |= dict(zip(ATTRIBUTES, result.correct.T, strict=True))
    columns |= {"exact": result.exact, "cleanliness": result.cleanliness}
    return {name: values.astype(np.float64) for name, values in columns.items()}
