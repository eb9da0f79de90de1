"""Base and tuned images of a few prompts, to look at: of any model, scored or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from sdpo_exp.bounds import Guidance, NonNegativeInt, PositiveInt
from sdpo_exp.errors import UserError
from sdpo_exp.generation.drawing import DrawSettings, draw_in_batches
from sdpo_exp.generation.noise import Draw, Noise
from sdpo_exp.generation.precision import drawing_autocast
from sdpo_exp.protocols import Backbone, PromptSet, Scorer
from sdpo_exp.terminal.progress import QUIET, Progress
from sdpo_exp.types import ModelScores


class PromptImages:
    """One image for each of a few prompts, from noise that (seed, prompt's index) gives.

    On CUDA the denoiser runs under bfloat16 autocast.

    Args:
        prompts: which; None: captions, to be given by `take_captions`.
        scorers: by name; None: none, so that there is something to look at and nothing to compare.
        n: the first n prompts, or all where there are fewer.
        batch: images at once.
        guidance, steps, negative_prompt, noise, height, width: as in `DrawSettings`.
        seed: of the noise.

    Raises:
        UserError: a scorer cannot judge the prompts, or two have one name.
    """

    def __init__(
        self,
        prompts: PromptSet | None = None,
        scorers: Mapping[str, Scorer] | None = None,
        n: PositiveInt = 8,
        guidance: Guidance = 7.5,
        steps: PositiveInt = 20,
        seed: NonNegativeInt = 0,
        negative_prompt: str | None = None,
        noise: Noise = "prompt",
        height: PositiveInt | None = None,
        width: PositiveInt | None = None,
        batch: PositiveInt = 4,
    ) -> None:
        self._scorers, self._seed, self._batch = list((scorers or {}).values()), seed, batch
        names = [scorer.name for scorer in self._scorers]
        if len(set(names)) < len(names):
            raise UserError(f"evaluation.scorers: two are named alike ({', '.join(sorted(names))})")
        self._settings = DrawSettings(
            guidance, steps, negative_prompt, noise, height=height, width=width
        )
        self._what, self._draws = "held-out {} of the data", list[Draw]()
        self._noun = "caption"
        self.captions_wanted = n if prompts is None else 0
        if prompts is not None:
            self._what, self._noun = f"{{}} of {prompts.name}", "prompt"
            self._take([(p.text, p.index) for p in prompts.prompts()[:n]])

    def take_captions(self, captions: Sequence[str]) -> None:
        """Draw these; at most `captions_wanted` are asked for.

        Raises:
            UserError: there is none, or a scorer cannot judge one.
        """
        if not captions:
            raise UserError(
                "evaluation=prompts: data.validation has no caption to draw; give a prompt set, "
                "such as prompts@evaluation.prompts=file evaluation.prompts.path=<file>"
            )
        self._take([(text, index) for index, text in enumerate(captions)])

    def _take(self, prompts: Sequence[tuple[str, int]]) -> None:
        texts = [text for text, _ in prompts]
        for scorer in self._scorers:
            refuses = getattr(scorer, "refuses", None)
            if refuses is not None and (reason := refuses(texts)):
                raise UserError(f"evaluation.scorers: {reason}")
        self._draws = [Draw(text, index, self._seed) for text, index in prompts]

    @property
    def description(self) -> str:
        """What the pictures show and how they were drawn."""
        count, how = len(self._draws), self._settings
        what = self._what.format(self._noun if count == 1 else f"{self._noun}s")
        return (
            f"{count} {what}, {how.steps} steps, guidance {how.guidance:g}, noise seed {self._seed}"
        )

    def __call__(self, backbone: Backbone) -> ModelScores:
        """Images of one model, and their scores by each scorer's name, if there are any."""
        pipeline = backbone.pipeline()
        pictures: list[Image.Image] = []
        drawn = draw_in_batches(pipeline, self._draws, self._settings, self._batch)
        with (
            drawing_autocast(pipeline),
            Progress("images", len(self._draws), "image", quiet=QUIET) as progress,
        ):
            for part in drawn:
                pictures += [picture for _, picture in part]
                progress.advance(len(part))
        prompts = [draw.prompt for draw in self._draws]
        scores = {s.name: self._scored(s, pictures, prompts) for s in self._scorers}
        return ModelScores(prompts, scores, np.stack([np.asarray(p) for p in pictures]))

    def _scored(
        self, scorer: Scorer, pictures: Sequence[Image.Image], prompts: Sequence[str]
    ) -> np.ndarray:
        parts = []
        for start in range(0, len(prompts), self._batch):
            end = start + self._batch
            parts.append(scorer.score(pictures[start:end], prompts[start:end]).numpy())
        return np.concatenate(parts).astype(np.float64)
