"""ImageReward: a BLIP that reads prompt and image together, trained on rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BertTokenizer

from sdpo_exp.errors import UserError
from sdpo_exp.metrics import files, weights
from sdpo_exp.metrics.blip import BlipReward, BlipSizes, renamed
from sdpo_exp.metrics.frozen import TokenizedScorer

_MEAN, _STD = 0.16717362830052426, 1.0333394966054072
_UNUSED = (r"text\.embeddings\.position_ids", r"blip\.(vision|text)_proj\.(weight|bias)")


class ImageReward(TokenizedScorer):
    """Standardised reward, mostly -1 to 1.5; shown as it is. Prompts are cut at 35 tokens.

    Text embeddings cannot be kept: the text encoder looks at the image.

    Args:
        model: frozen, float32, in eval mode.
        tokenizer: bert-base-uncased, to which [DEC] and [ENC] are added as last words.
        device: where to compute; the model is moved there.

    Raises:
        UserError: the tokenizer has another vocabulary than the model, or there is no such device.
    """

    name = "imagereward"
    display_scale = 1.0
    SOURCE = "THUDM/ImageReward"
    FILES = (("ImageReward.pt",),)
    TOKENIZER = "google-bert/bert-base-uncased"
    CONTEXT = 35

    def __init__(
        self, model: BlipReward, tokenizer: BertTokenizer, device: torch.device | str = "cpu"
    ) -> None:
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        tokenizer.add_tokens(["[ENC]"], special_tokens=True)
        words = int(model.text.config.vocab_size)
        if len(tokenizer) != words:
            raise UserError(
                f"ImageReward: the tokenizer has {len(tokenizer)} words with [DEC] and [ENC], the "
                f"model {words}; give bert-base-uncased's"
            )
        super().__init__(tokenizer, int(model.vision.config.image_size), device)
        self._model = model.to(self._device)

    @classmethod
    def from_pretrained(
        cls,
        source: str = SOURCE,
        revision: str | None = None,
        tokenizer: str = TOKENIZER,
        device: torch.device | str = "cpu",
    ) -> ImageReward:
        """The released model.

        Args:
            source: hub id or folder with `ImageReward.pt`, or that file.
            revision: of a hub id.
            tokenizer: hub id or folder of bert-base-uncased's tokenizer.
            device: where to compute.

        Raises:
            UserError: one of the two cannot be had, or is another model's.
        """
        file = files.locate_file(source, revision, cls.FILES[0])
        words = files.locate_tokenizer(tokenizer)
        scorer = cls.from_state_dict(
            weights.read(file), weights.pretrained(BertTokenizer, words), device=device
        )
        scorer.origin = files.origin_with_tokenizer(source, file, tokenizer, words)
        return scorer

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Any],
        tokenizer: BertTokenizer,
        config: BlipSizes | None = None,
        device: torch.device | str = "cpu",
    ) -> ImageReward:
        """From weights in the original layout; `config` None: the sizes that they have.

        Raises:
            UserError: they do not fit.
        """
        ours = renamed(state)
        sizes = config or BlipSizes.of(ours)
        model = weights.build(lambda: BlipReward(sizes), ours, "ImageReward", _UNUSED)
        return cls(model, tokenizer, device)

    def _measure(self, batch: Tensor, prompts: Sequence[str]) -> Tensor:
        words = self._tokens(prompts)
        reward = self._model(batch, words["input_ids"], words["attention_mask"])
        return (reward - _MEAN) / _STD
