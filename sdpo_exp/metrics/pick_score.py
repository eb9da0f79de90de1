"""PickScore: the cosine under a tuning of CLIP ViT-H/14, in transformers' layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import files, weights
from sdpo_exp.metrics.device import pick_device
from sdpo_exp.metrics.full_precision import full_precision
from sdpo_exp.metrics.preprocessing import pixels
from sdpo_exp.metrics.text_cache import TextCache
from sdpo_exp.metrics.text_length import count_longer

_CONTEXT = 77
_END_OF_TEXT = 49407
# What old configurations say; transformers then pools at the highest id, which is the end of text.
_OLD_END_OF_TEXT = 2
_SOURCE = "yuvalkirstain/PickScore_v1"
_TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


class PickScore:
    """Raw cosine, about 0.20 to 0.22; shown times 100, which is also the model's logit scale.

    Args:
        model: frozen, float32, in eval mode.
        tokenizer: transformers' own; open_clip's gives other ids.
        device: where to compute; the model is moved there.

    Raises:
        UserError: the tokenizer is not CLIP's, or there is no such device.
    """

    name = "pickscore"
    display_scale = 100.0

    def __init__(
        self, model: CLIPModel, tokenizer: CLIPTokenizer, device: torch.device | str = "cpu"
    ) -> None:
        if tokenizer.eos_token_id != _END_OF_TEXT:
            raise UserError(
                f"PickScore: a tokenizer that ends text with id {tokenizer.eos_token_id} "
                f"is not CLIP's ({_END_OF_TEXT})"
            )
        self._device = pick_device(device)
        self._model, self._tokenizer = model.to(self._device), tokenizer
        self._size = int(model.config.vision_config.image_size)
        self._texts = TextCache(self._encode)
        self.image_size: int | None = self._size
        self.origin: Mapping[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        source: str = _SOURCE,
        revision: str | None = None,
        tokenizer: str = _TOKENIZER,
        device: torch.device | str = "cpu",
    ) -> PickScore:
        """The released model.

        Args:
            source: hub id or folder with `config.json` and the weights.
            revision: of a hub id.
            tokenizer: hub id or folder of CLIP's tokenizer.
            device: where to compute.

        Raises:
            UserError: one of the two cannot be had, or is another model's.
        """
        folder = files.locate_folder(source, revision, files.MODEL)
        file = files.locate_file(str(folder), None, files.WEIGHTS)
        words = files.locate_tokenizer(tokenizer)
        scorer = cls.from_state_dict(
            weights.read(file),
            weights.pretrained(CLIPConfig, folder),
            weights.pretrained(CLIPTokenizer, words),
            device,
        )
        scorer.origin = {
            **files.origin(source, file),
            "tokenizer": files.tokenizer_origin(tokenizer, words),
        }
        return scorer

    @classmethod
    def absent(
        cls,
        source: str = _SOURCE,
        revision: str | None = None,
        tokenizer: str = _TOKENIZER,
        **_: Any,
    ) -> str | None:
        """Why `from_pretrained` would fail, a line per thing that is absent, or None."""
        return files.together(
            files.absent("metric.pickscore.source", source, revision, files.MODEL),
            files.absent_tokenizer("metric.pickscore.tokenizer", tokenizer),
        )

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Any],
        config: CLIPConfig,
        tokenizer: CLIPTokenizer,
        device: torch.device | str = "cpu",
    ) -> PickScore:
        """From weights in transformers' `CLIPModel` layout.

        Raises:
            UserError: they do not fit, or the configuration would give wrong scores.
        """
        _check(config)
        dropped = [weights.POSITION_IDS]
        model = weights.build(lambda: CLIPModel(config), state, "PickScore", dropped)
        return cls(model, tokenizer, device)

    def _encode(self, prompts: list[str]) -> Tensor:
        ids = self._tokenizer(
            prompts,
            padding="max_length",
            truncation=True,
            max_length=_CONTEXT,
            return_tensors="pt",
        ).to(self._device)
        found = self._model.get_text_features(
            input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]
        )
        return F.normalize(embedding(found), dim=-1)

    def cut_prompts(self, prompts: Sequence[str]) -> int:
        """How many of the prompts have more than 77 tokens, ends included, and are cut."""
        return count_longer(self._tokenizer, prompts, _CONTEXT)

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        """See `Scorer.score`."""
        batch = pixels(images, prompts, self._size)
        if not len(batch):
            return torch.empty(0)
        with full_precision(self._device):
            found = self._model.get_image_features(pixel_values=batch.to(self._device))
            return (F.normalize(embedding(found), dim=-1) * self._texts(prompts)).sum(-1).cpu()


def embedding(features: Any) -> Tensor:
    """The projected embedding: what transformers 4 returns itself, and 5 as `pooler_output`."""
    return features if isinstance(features, Tensor) else features.pooler_output


def _check(config: CLIPConfig) -> None:
    for part in (config.text_config, config.vision_config):
        weights.expect("PickScore", part, hidden_act="gelu", layer_norm_eps=1e-5)
    if config.text_config.eos_token_id not in (_OLD_END_OF_TEXT, _END_OF_TEXT):
        raise UserError(
            f"PickScore: the configuration has eos_token_id={config.text_config.eos_token_id}, "
            f"it must be {_END_OF_TEXT}, or {_OLD_END_OF_TEXT} as in old ones"
        )
