"""LAION's aesthetic score: an affine map of OpenAI's CLIP ViT-L/14 image embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPVisionConfig, CLIPVisionModelWithProjection

from sdpo_exp import hub
from sdpo_exp.errors import UserError
from sdpo_exp.metrics import weights
from sdpo_exp.metrics.affine_head import affine_head
from sdpo_exp.metrics.full_precision import full_precision
from sdpo_exp.metrics.preprocessing import pixels

HEAD_FILE = "sac+logos+ava1-l14-linearMSE.pth"
HEAD_SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"
_HEAD_PAGE = "https://github.com/christophschuhmann/improved-aesthetic-predictor"
# The text tower, which this score has no use for.
_UNUSED = (r"text_model\..*", r"text_projection\.weight", "logit_scale", weights.POSITION_IDS)


class AestheticScore:
    """Raw output of the head, about 1 to 10 and mostly 5 to 6.5; shown as it is.

    Args:
        vision: OpenAI's tower, frozen, float32, in eval mode.
        head: likewise, from embeddings (B, D) of unit length to (B, 1).
        device: where to compute; both are moved there.
    """

    name = "aesthetic"

    def __init__(
        self,
        vision: CLIPVisionModelWithProjection,
        head: nn.Module,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self._vision, self._head = vision.to(self._device), head.to(self._device)
        self._size = int(vision.config.image_size)

    @classmethod
    def from_pretrained(
        cls,
        head: str,
        source: str = "openai/clip-vit-large-patch14",
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> AestheticScore:
        """The released model.

        Args:
            head: the file `sac+logos+ava1-l14-linearMSE.pth` of improved-aesthetic-predictor, or
                the folder that it is in; no hub repository is known to hold it.
            source: hub id or folder of OpenAI's CLIP with `config.json` and the weights.
            revision: of a hub id.
            device: where to compute.

        Raises:
            UserError: one of the two cannot be had, or is not the released one.
        """
        if hub.local_path(head) is None:
            raise UserError(f"{head}: no such file; fetch {HEAD_FILE} from {_HEAD_PAGE}")
        head_file = weights.locate_file(head, None, [HEAD_FILE])
        weights.check_sha256(head_file, HEAD_SHA256)
        folder = weights.locate_folder(source, revision, [("config.json",), weights.WEIGHTS])
        file = weights.locate_file(str(folder), None, weights.WEIGHTS)
        config = weights.pretrained(CLIPConfig, folder)
        config.vision_config.projection_dim = config.projection_dim
        return cls.from_state_dict(
            weights.read(file), weights.read(head_file), config.vision_config, device
        )

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

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """See `Scorer.score`; the prompts change nothing."""
        batch = pixels(images, prompts, self._size)
        if not len(batch):
            return torch.empty(0)
        with full_precision(self._device):
            found = self._vision(pixel_values=batch.to(self._device)).image_embeds
            return self._head(F.normalize(found, dim=-1)).squeeze(-1).cpu()
