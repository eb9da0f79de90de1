"""Images of a few prompts along the training: what the losses do to the pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from PIL import Image

from sdpo_exp.bounds import Guidance, NonNegativeInt, PositiveInt
from sdpo_exp.callbacks.ema import PolicyEMA
from sdpo_exp.callbacks.steps import StepCallback, undisturbed, visit_progress
from sdpo_exp.callbacks.visit_pictures import SHOWN, VisitPictures
from sdpo_exp.errors import UserError
from sdpo_exp.evaluation.per_prompt import PerPromptScore
from sdpo_exp.evaluation.statistics import estimate, paired_change
from sdpo_exp.generation.drawing import DrawSettings, as_pictures, draw_batch
from sdpo_exp.generation.noise import Draw, Noise
from sdpo_exp.generation.precision import half_of
from sdpo_exp.protocols import PromptSet, Scorer
from sdpo_exp.terminal.progress import chunks
from sdpo_exp.training import PreferenceModule

_log = logging.getLogger(__name__)


class ImageScores(StepCallback):
    """Pictures of fixed prompts and noises, and means of scores, as `eval/<metric>` with `_se`.

    Every visit draws the same prompts from the same noises, so that the change since the base,
    `eval/<metric>_change` with its own `_se`, is a paired one. Step 0 (the base), each
    `every_n_steps`-th optimiser step and the last are visited. Ranks share the prompts. The
    training goes on as if nothing had happened.

    Args:
        prompts: what to draw; a few dozen. None: the data's first eight held-out captions.
        scorers: by name; None: the pictures alone.
        dirpath: of the run; the first images of each visit go to `plots/images_step=<k>.png` there,
            below those of the base, with captions.
        every_n_steps: optimiser steps between two visits.
        weights: of the policy as trained (`last`), or their average (`ema`).
        guidance, steps, negative_prompt, noise, height, width: as in `generation.DrawSettings`.
        seed: of the noise.
        batch: images at once.
    """

    def __init__(
        self,
        prompts: PromptSet | None = None,
        scorers: Mapping[str, Scorer] | None = None,
        dirpath: str = ".",
        every_n_steps: PositiveInt = 60,
        weights: Literal["last", "ema"] = "last",
        guidance: Guidance = 2.0,
        steps: PositiveInt = 8,
        negative_prompt: str | None = None,
        noise: Noise = "prompt",
        height: PositiveInt | None = None,
        width: PositiveInt | None = None,
        seed: NonNegativeInt = 0,
        batch: PositiveInt = 32,
    ) -> None:
        super().__init__(every_n_steps)
        self._prompts, self._scorers = prompts, dict(scorers or {})
        self._pictures = VisitPictures(Path(dirpath) / "plots")
        self._weights, self._batch, self._seed = weights, batch, seed
        self._settings = DrawSettings(
            guidance, steps, negative_prompt, noise, height=height, width=width
        )
        chosen = prompts.prompts() if prompts is not None else ()
        self._draws = [Draw(p.text, p.index, seed) for p in chosen]
        self._base: dict[str, list[float]] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the data's captions, where no prompts were chosen.

        Raises:
            UserError: there are none.
        """
        del pl_module, stage
        if self._prompts is not None:
            return
        captions = trainer.datamodule.held_out_captions(SHOWN)  # type: ignore[attr-defined]
        if not captions:
            raise UserError(
                "callbacks.images: data.validation has no caption to draw; give "
                "prompts@callbacks.images.prompts=file callbacks.images.prompts.path=<file>"
            )
        self._draws = [Draw(text, index, self._seed) for index, text in enumerate(captions)]

    def on_start(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Judge the base, or, in a resumed run, where it goes on.

        Raises:
            UserError: `weights=ema` without the callback that averages them.
        """
        if self._weights == "ema" and _ema_of(trainer) is None:
            raise UserError(
                "callbacks.images.weights=ema: nothing is averaged; give "
                "callbacks=[default,ema,images]"
            )
        self._visit(trainer, module)

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Visit at the optimiser steps that are due, and at the last."""
        if self.due(trainer, at_end=True):
            self._visit(trainer, module)

    def state_dict(self) -> dict[str, Any]:
        """The base's scores, which the changes are against, and its pictures."""
        return {"base": self._base, "drawn": self._drawn(), "shown": self._pictures.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember them, if they are of the same prompts, drawn and scored in the same way."""
        if state_dict["drawn"] == self._drawn():
            self._base = state_dict["base"]
            self._pictures.load(state_dict.get("shown"))
        else:
            _log.warning(
                "callbacks.images: prompts, scorers or settings changed since the base was drawn; "
                "no eval/*_change and no row of the base from here on"
            )

    def _drawn(self) -> str:
        """Everything that the base's scores depend on but the base."""
        return repr(
            (
                self._prompts.fingerprint() if self._prompts is not None else self._captions(),
                [(draw.index, draw.seed) for draw in self._draws],
                sorted(vars(self._settings).items()),
                [(s.name, dict(getattr(s, "origin", {}))) for s in self._scorers.values()],
            )
        )

    def _visit(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        with undisturbed(module.policy), self._averaged(trainer, module):
            values, shown = self._scores(trainer, module)
        if trainer.global_step == 0:
            self._base = values
        row: dict[str, float] = {}
        for name, scores in values.items():
            row |= _named(f"eval/{name}", estimate(scores))
            if len(self._base.get(name, ())) == len(scores):
                row |= _named(f"eval/{name}_change", paired_change(self._base[name], scores))
        module.report(row)
        if trainer.is_global_zero and shown:
            mine = self._captions()[trainer.global_rank :: trainer.world_size]
            self._pictures.show(trainer, shown, mine[: len(shown)])

    def _captions(self) -> list[str]:
        return [draw.prompt for draw in self._draws]

    @contextmanager
    def _averaged(self, trainer: L.Trainer, module: PreferenceModule) -> Iterator[None]:
        ema = _ema_of(trainer) if self._weights == "ema" else None
        with ema.applied(module) if ema is not None and trainer.global_step else nullcontext():
            yield

    def _scores(
        self, trainer: L.Trainer, module: PreferenceModule
    ) -> tuple[dict[str, list[float]], list[Image.Image]]:
        """Scores by metric, of all ranks' images, and this rank's first images."""
        pipeline = module.backbone.pipeline()
        states = {s.name: PerPromptScore(len(self._draws)) for s in self._scorers.values()}
        mine = range(trainer.global_rank, len(self._draws), trainer.world_size)
        shown: list[Image.Image] = []
        with visit_progress(trainer, "images", len(mine), "image") as progress:
            for where in chunks(mine, self._batch):
                draws = [self._draws[i] for i in where]
                with _drawing(trainer, pipeline):
                    pictures = as_pictures(draw_batch(pipeline, draws, self._settings))
                shown += pictures[: SHOWN - len(shown)]
                for scorer in self._scorers.values():
                    scores = scorer.score(pictures, [draw.prompt for draw in draws])
                    states[scorer.name].update(torch.tensor(list(where)), scores)
                progress.advance(len(where))
        device = trainer.strategy.root_device
        return {
            name: state.to(device).compute().reshape(-1).tolist() for name, state in states.items()
        }, shown


def _named(name: str, found: Any) -> dict[str, float]:
    return {name: found.mean, f"{name}_se": found.standard_error}


def _ema_of(trainer: L.Trainer) -> PolicyEMA | None:
    found = [c for c in trainer.callbacks if isinstance(c, PolicyEMA)]  # type: ignore[attr-defined]
    return found[0] if found else None


def _drawing(trainer: L.Trainer, pipeline: Any) -> AbstractContextManager[Any]:
    """The training's own autocast; where it has none, one that reconciles text and denoiser.

    Text encoders may be of half precision to save memory, under a float32 denoiser.
    """
    kind, half = pipeline.device.type, half_of(pipeline)
    if half is None or torch.is_autocast_enabled(kind):
        return trainer.precision_plugin.forward_context()
    return torch.autocast(kind, dtype=half)
