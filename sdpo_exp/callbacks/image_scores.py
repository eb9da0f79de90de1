"""Images of a few prompts along the training, scored: what the losses do to the pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from PIL import Image

from sdpo_exp.bounds import Guidance, NonNegativeInt, PositiveInt
from sdpo_exp.callbacks.ema import PolicyEMA
from sdpo_exp.callbacks.steps import StepCallback, undisturbed
from sdpo_exp.errors import UserError
from sdpo_exp.generation.drawing import DrawSettings, as_pictures, draw_batch
from sdpo_exp.generation.grid import make_grid
from sdpo_exp.generation.noise import Draw, Noise
from sdpo_exp.per_prompt import PerPromptScore
from sdpo_exp.protocols import PromptSet, Scorer
from sdpo_exp.statistics import estimate, paired_change
from sdpo_exp.training import PreferenceModule

_log = logging.getLogger(__name__)
_SHOWN = 8


class ImageScores(StepCallback):
    """Means over images of fixed prompts and noises, as `eval/<metric>` with `_se`.

    Every visit draws the same prompts from the same noises, so that the change since the base,
    `eval/<metric>_change` with its own `_se`, is a paired one. Step 0 (the base), each
    `every_n_steps`-th optimiser step and the last are visited. Ranks share the prompts. The
    training goes on as if nothing had happened.

    Args:
        prompts: what to draw; a few dozen.
        scorers: by name.
        dirpath: of the run; the first images of each visit go to `plots/images_step=<k>.png` there.
        every_n_steps: optimiser steps between two visits.
        weights: of the policy as trained (`last`), or their average (`ema`).
        guidance, steps, negative_prompt, noise, height, width: as in `generation.DrawSettings`.
        seed: of the noise.
        batch: images at once.

    Raises:
        UserError: no scorers.
    """

    def __init__(
        self,
        prompts: PromptSet,
        scorers: Mapping[str, Scorer],
        dirpath: str,
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
        if not scorers:
            raise UserError("callbacks.images.scorers: none chosen")
        self._prompts, self._scorers = prompts, dict(scorers)
        self._folder, self._weights, self._batch = Path(dirpath) / "plots", weights, batch
        self._settings = DrawSettings(
            guidance, steps, negative_prompt, noise, height=height, width=width
        )
        self._draws = [Draw(p.text, p.index, seed) for p in prompts.prompts()]
        self._base: dict[str, list[float]] = {}

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
        """The base's scores, which the changes are against."""
        return {"base": self._base, "drawn": self._drawn()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember them, if they are of the same prompts, drawn and scored in the same way."""
        if state_dict["drawn"] == self._drawn():
            self._base = state_dict["base"]
        else:
            _log.warning(
                "callbacks.images: prompts, scorers or settings changed since the base was drawn; "
                "no eval/*_change from here on"
            )

    def _drawn(self) -> str:
        """Everything that the base's scores depend on but the base."""
        return repr(
            (
                self._prompts.fingerprint(),
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
        if trainer.is_global_zero:
            self._show(trainer, shown)

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
        for start in range(0, len(mine), self._batch):
            where = list(mine[start : start + self._batch])
            draws = [self._draws[i] for i in where]
            with _drawing(trainer, pipeline):
                pictures = as_pictures(draw_batch(pipeline, draws, self._settings))
            shown += pictures[: _SHOWN - len(shown)]
            for scorer in self._scorers.values():
                scores = scorer.score(pictures, [draw.prompt for draw in draws])
                states[scorer.name].update(torch.tensor(where), scores)
        device = trainer.strategy.root_device
        return {name: state.to(device).compute().tolist() for name, state in states.items()}, shown

    def _show(self, trainer: L.Trainer, pictures: Sequence[Image.Image]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"images_step={trainer.global_step}.png"
        make_grid({f"step {trainer.global_step}": pictures}).save(path)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("eval/images", [str(path)], step=trainer.global_step)


def _named(name: str, found: Any) -> dict[str, float]:
    return {name: found.mean, f"{name}_se": found.standard_error}


def _ema_of(trainer: L.Trainer) -> PolicyEMA | None:
    found = [c for c in trainer.callbacks if isinstance(c, PolicyEMA)]  # type: ignore[attr-defined]
    return found[0] if found else None


@contextmanager
def _drawing(trainer: L.Trainer, pipeline: Any) -> Iterator[None]:
    """The training's own autocast; where it has none, one that reconciles text and denoiser.

    Text encoders may be of half precision to save memory, under a float32 denoiser.
    """
    parts = [p for p in pipeline.components.values() if isinstance(p, torch.nn.Module)]
    halves: set[Any] = {p.dtype for p in parts if p is not getattr(pipeline, "vae", None)}
    halves -= {torch.float32}
    kind = pipeline.device.type
    if not halves or torch.is_autocast_enabled(kind):
        with trainer.precision_plugin.forward_context():
            yield
        return
    with torch.autocast(kind, dtype=next(iter(halves))):
        yield
