"""Ovis-U1's conditions from prompts and pictures, without code from the model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeGuard

import torch
from accelerate import init_empty_weights
from PIL import Image
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.models import checkpoint_folder
from sdpo_exp.models.ovis_text.image_rows import blank, image_rows
from sdpo_exp.models.ovis_text.prompts import IMAGE_ATOM, IMAGE_END, IMAGE_START, Kind, token_ids
from sdpo_exp.models.ovis_text.settings import TextSettings, read_settings
from sdpo_exp.models.ovis_text.vit import VisualTokenizer
from sdpo_exp.models.ovis_text.weights import read_parts

_PREFIXES = ("llm.", "visual_tokenizer.", "vte.")
# Tied to the embedding, hence not in the release; conditions need no head.
_HEAD = ("llm.lm_head.weight",)
_BLANKS = 16  # sizes that are kept, about a megabyte each
_SPECIAL = ("<|im_start|>", "<|im_end|>")

Pictures = Sequence[Image.Image] | tuple[int, int]


def mark_row(mark: int, vocabulary: int) -> int:
    """Row of the visual table for a mark's id -301..-304.

    The rows begin one early, as in the released model: the first mark shares the row of the last
    visual word, and the table's last row serves nothing.
    """
    return vocabulary - 5 + IMAGE_START - mark


class OvisTextEncoder(nn.Module):
    """Qwen3, the visual tokenizer and the visual embedding table, frozen.

    Parameters have the names of the released checkpoint.

    Args:
        settings: of the folder.
        tokenizer: of the folder.
        angle_dtype: in which both transformers' rotation frequencies are kept. The released
            scripts cast the whole model, these frequencies too, so a half dtype is theirs.
    """

    def __init__(
        self,
        settings: TextSettings,
        tokenizer: Qwen2Tokenizer,
        angle_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.settings, self.tokenizer = settings, tokenizer
        self._blanks: dict[tuple[int, int], Tensor] = {}
        llm = Qwen3Model(Qwen3Config(**settings.llm))
        rotary = llm.rotary_emb.inv_freq
        rotary.copy_(rotary.to(angle_dtype))
        self.llm = _Headless(llm)
        self.visual_tokenizer = VisualTokenizer(settings.vit, settings.vocabulary, angle_dtype)
        self.vte = nn.Embedding(settings.vocabulary, llm.config.hidden_size)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        dtype: torch.dtype = torch.bfloat16,
        angle_dtype: torch.dtype | None = None,
    ) -> OvisTextEncoder:
        """The encoder of a folder in the released layout, on the CPU.

        Args:
            folder: with config.json, weights in safetensors (one file, or shards and an index),
                and the tokenizer's files. Weights of the generator are not read.
            dtype: of the weights and of all arithmetic but norms' and softmax' insides.
            angle_dtype: see the class; None: `dtype`.

        Raises:
            UserError: a file is missing or broken, or weights do not fit; the message names them.
        """
        settings = read_settings(folder)
        tokenizer = _tokenizer(folder)
        try:
            # Weights come from the files: none are drawn, and none held twice.
            with init_empty_weights(include_buffers=False):
                encoder = cls(settings, tokenizer, angle_dtype or dtype)
        except Exception as error:
            reason = first_line(error)
            raise UserError(f"{folder / 'config.json'}: describes no model ({reason})") from error
        shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
        state = read_parts(folder, _PREFIXES, shapes, dtype, ignored=_HEAD)
        encoder.load_state_dict(state, assign=True)
        return encoder.requires_grad_(False).eval()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.vte.weight.dtype

    @property
    def width(self) -> int:
        """Columns of a condition: twice the language model's."""
        return 2 * self.vte.embedding_dim

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], pictures: Pictures, kind: Kind) -> list[Tensor]:
        """Conditions (L_i, 2 hidden) in float32, one per prompt, each independent of the others.

        The left half is the last layer's output behind the final norm, the right half its input.
        L_i is the picture's tokens plus the text's; of a longer sequence the last 4,496 rows count.

        Args:
            prompts: empty ones for the unconditional kind.
            pictures: one for each prompt, or (height, width) in pixels of one blank for all. Those
                to be edited are given as they condition: `image_rows.stretched_for_edit`.
            kind: see `prompts.message`.

        Raises:
            UserError: a prompt has a placeholder of its own.
            ValueError: as many pictures as prompts are needed; or a prompt for the unconditional.
        """
        ids = [token_ids(prompt, kind, self._tokenize) for prompt in prompts]
        with torch.autocast(self.vte.weight.device.type, enabled=False):
            seen = self._all_seen(pictures, len(prompts))
            return [self._condition(row, picture) for row, picture in zip(ids, seen, strict=True)]

    def _all_seen(self, pictures: Pictures, count: int) -> list[Tensor]:
        if _is_size(pictures):
            return [self._blank(pictures)] * count if count else []
        given = [picture for picture in pictures if isinstance(picture, Image.Image)]
        if len(given) != count:
            raise ValueError(f"{len(given)} pictures for {count} prompts")
        return [self.see(picture) for picture in given]

    def _blank(self, size: tuple[int, int]) -> Tensor:
        """What is seen of a blank, which is the same for every prompt: computed once per size."""
        if size not in self._blanks:
            if len(self._blanks) == _BLANKS:
                del self._blanks[next(iter(self._blanks))]
            self._blanks[size] = self.see(blank(*size))
        return self._blanks[size]

    def _apply(self, *arguments: Any, **options: Any) -> Self:
        self._blanks.clear()  # another device or dtype sees anew
        return super()._apply(*arguments, **options)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """`nn.Module`'s; other weights see anew."""
        self._blanks.clear()
        return super().load_state_dict(*arguments, **options)

    @torch.no_grad()
    def see(self, picture: Image.Image) -> Tensor:
        """Visual embeddings (tokens, hidden) of one picture."""
        rows, grid = image_rows(picture, self.settings.rows)
        table = self.vte.weight
        return self.visual_tokenizer(rows.to(table), grid) @ table

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _condition(self, ids: list[int], picture: Tensor) -> Tensor:
        rows = self._embedded(ids, picture)[-self.settings.longest :]
        # One sequence at a time, causal and without padding: no mask is needed.
        output = self.llm.model(
            inputs_embeds=rows[None], output_hidden_states=True, use_cache=False
        )
        last, before = output.hidden_states[-1], output.hidden_states[-2]
        return torch.cat([last, before], dim=-1)[0].float()

    def _embedded(self, ids: list[int], picture: Tensor) -> Tensor:
        """(L, hidden): words' and marks' rows, with the picture in the place of its id."""
        at = ids.index(IMAGE_ATOM)
        device, vocabulary = self.vte.weight.device, self.settings.vocabulary
        words = self.llm.model.embed_tokens
        before, after = (
            words(torch.tensor(part, dtype=torch.long, device=device))
            for part in (ids[: at - 1], ids[at + 2 :])
        )
        start, end = (
            self.vte.weight[mark_row(mark, vocabulary), None] for mark in (IMAGE_START, IMAGE_END)
        )
        return torch.cat([before, start, picture, end, after])


class _Headless(nn.Module):
    """The language model under the name that the checkpoint's prefix gives it."""

    def __init__(self, model: Qwen3Model) -> None:
        super().__init__()
        self.model = model


def _is_size(pictures: Pictures) -> TypeGuard[tuple[int, int]]:
    return len(pictures) == 2 and all(isinstance(side, int) for side in pictures)


def _tokenizer(folder: Path) -> Qwen2Tokenizer:
    tokenizer = checkpoint_folder.load_part(Qwen2Tokenizer, folder)
    known = tokenizer.get_vocab()
    if absent := [token for token in _SPECIAL if token not in known]:
        raise UserError(f"{folder}: its tokenizer lacks {', '.join(absent)}; it is not Qwen3's")
    return tokenizer
