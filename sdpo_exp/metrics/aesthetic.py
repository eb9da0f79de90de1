"""LAION's aesthetic score: an affine map of OpenAI's CLIP ViT-L/14 image embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from sdpo_exp import hub
from sdpo_exp.errors import UserError
from sdpo_exp.metrics import files, weights
from sdpo_exp.metrics.affine_head import affine_head
from sdpo_exp.metrics.frozen import FrozenScorer

HEAD_FILE = "sac+logos+ava1-l14-linearMSE.pth"
HEAD_SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
_HEAD_PAGE = "https://github.com/christophschuhmann/improved-aesthetic-predictor"
_HEAD_KEY = "metric.aesthetic.head"
_SOURCE = "openai/clip-vit-large-patch14"
# The text tower, which this score has no use for.
_UNUSED = (r"text_model\..*", r"text_projection\.weight", "logit_scale", weights.POSITION_IDS)


class AestheticScore(FrozenScorer):
    """Raw output of the head, about 1 to 10 and mostly 5 to 6.5; shown as it is.

    Args:
        vision: OpenAI's tower, frozen, float32, in eval mode.
        head: likewise, from embeddings (B, D) of unit length to (B, 1).
        device: where to compute; both are moved there.

    Raises:
        UserError: there is no such device.
    """

    name = "aesthetic"
    display_scale = 1.0

    def __init__(
        self,
        vision: CLIPVisionModelWithProjection,
        head: nn.Module,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(int(vision.config.image_size), device)
        self._vision, self._head = vision.to(self._device), head.to(self._device)

    @classmethod
    def from_pretrained(
        cls,
        head: str | None = None,
        source: str = _SOURCE,
        revision: str | None = None,
        head_sha256: str | None = HEAD_SHA256,
        device: torch.device | str = "cpu",
    ) -> AestheticScore:
        """The released model.

        Args:
            head: the file `sac+logos+ava1-l14-linearMSE.pth` of improved-aesthetic-predictor, or
                the folder that it is in; no hub repository is known to hold it.
            source: hub id or folder of OpenAI's CLIP with `config.json` and the weights.
            revision: of a hub id.
            head_sha256: what the head's file must have; None: another head is taken, too.
            device: where to compute.

        Raises:
            UserError: one of the two cannot be had, or is not the released one.
        """
        head_file = _locate_head(head, head_sha256)
        folder = files.locate_folder(source, revision, files.MODEL)
        file = files.locate_file(str(folder), None, files.WEIGHTS)
        config = weights.pretrained(CLIPConfig, folder)
        config.vision_config.projection_dim = config.projection_dim
        scorer = cls.from_state_dict(
            weights.read(file), weights.read(head_file), config.vision_config, device
        )
        scorer.origin = {**files.origin(source, file, head_file), "head": head}
        return scorer

    @classmethod
    def absent(
        cls,
        head: str | None = None,
        source: str = _SOURCE,
        revision: str | None = None,
        head_sha256: str | None = HEAD_SHA256,
        **_: Any,
    ) -> str | None:
        """Why `from_pretrained` would fail, a line per thing that is absent, or None."""
        wrong_head = None
        try:
            _locate_head(head, head_sha256)
        except UserError as error:
            wrong_head = str(error)
        tower = files.absent("metric.aesthetic.source", source, revision, files.MODEL)
        return files.together(wrong_head, tower)

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Any],
        head_state: Mapping[str, Any],
        config: CLIPVisionConfig,
        device: torch.device | str = "cpu",
    ) -> AestheticScore:
        """From a whole `CLIPModel`'s weights in transformers' layout, and the head's `layers.*`.

        Raises:
            UserError: they do not fit, or the configuration would give wrong scores.
        """
        weights.expect("aesthetic score", config, hidden_act="quick_gelu", layer_norm_eps=1e-5)
        vision = weights.build(
            lambda: CLIPVisionModelWithProjection(config), state, "aesthetic score's CLIP", _UNUSED
        )
        head = weights.build(
            lambda: nn.ModuleDict({"layers": affine_head(config.projection_dim)}),
            head_state,
            "aesthetic score's head",
        )
        return cls(vision, head["layers"], device)

    def cut_prompts(self, prompts: Sequence[str]) -> int:
        """How many of the prompts are cut: none, for none is read."""
        del prompts
        return 0

    def _measure(self, batch: Tensor, prompts: Sequence[str]) -> Tensor:
        del prompts
        found = self._vision(pixel_values=batch).image_embeds
        return self._head(F.normalize(found, dim=-1)).squeeze(-1)


def _locate_head(head: str | None, sha256: str | None) -> Path:
    """The head's file, small enough to be looked at whole before a run begins."""
    if head is None or hub.local_path(head) is None:
        given = (
            f"{_HEAD_KEY}: a value is required"
            if head is None
            else f"{_HEAD_KEY}={head}: no such file"
        )
        raise UserError(
            f"{given}; fetch {HEAD_FILE} from {_HEAD_PAGE} and give {_HEAD_KEY}=/path/to/file"
        )
    file = files.locate_file(head, None, [HEAD_FILE])
    if sha256 is not None:
        files.check_sha256(file, sha256)
    return file
