"""PickScore: the cosine under a tuning of CLIP ViT-H/14, in transformers' layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import files, weights
from sdpo_exp.metrics.frozen import TokenizedScorer
from sdpo_exp.metrics.text_cache import TextCache

_END_OF_TEXT = 49407
# What old configurations say; transformers then pools at the highest id, which is the end of text.
_OLD_END_OF_TEXT = 2


class PickScore(TokenizedScorer):
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
    SOURCE = "yuvalkirstain/PickScore_v1"
    FILES = files.MODEL
    TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    CONTEXT = 77

    def __init__(
        self, model: CLIPModel, tokenizer: CLIPTokenizer, device: torch.device | str = "cpu"
    ) -> None:
        if tokenizer.eos_token_id != _END_OF_TEXT:
            raise UserError(
                f"PickScore: a tokenizer that ends text with id {tokenizer.eos_token_id} "
                f"is not CLIP's ({_END_OF_TEXT})"
            )
        super().__init__(tokenizer, int(model.config.vision_config.image_size), device)
        self._model = model.to(self._device)
        self._texts = TextCache(self._encode)

    @classmethod
    def from_pretrained(
        cls,
        source: str = SOURCE,
        revision: str | None = None,
        tokenizer: str = TOKENIZER,
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
        folder = files.locate_folder(source, revision, cls.FILES)
        file = files.locate_file(str(folder), None, files.WEIGHTS)
        words = files.locate_tokenizer(tokenizer)
        scorer = cls.from_state_dict(
            weights.read(file),
            weights.pretrained(CLIPConfig, folder),
            weights.pretrained(CLIPTokenizer, words),
            device,
        )
        scorer.origin = files.origin_with_tokenizer(source, file, tokenizer, words)
        return scorer

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
        words = self._tokens(prompts)
        found = self._model.get_text_features(
            input_ids=words["input_ids"], attention_mask=words["attention_mask"]
        )
        return F.normalize(embedding(found), dim=-1)

    def _measure(self, batch: Tensor, prompts: Sequence[str]) -> Tensor:
        found = self._model.get_image_features(pixel_values=batch)
        return (F.normalize(embedding(found), dim=-1) * self._texts(prompts)).sum(-1)


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
