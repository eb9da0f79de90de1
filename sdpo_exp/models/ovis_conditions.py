"""What Ovis-U1's transformer is asked beside the latents: text states, and an edit's source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sdpo_exp.errors import UserError
from sdpo_exp.models.ovis_text.encoder import OvisTextEncoder
from sdpo_exp.models.ovis_text.image_rows import stretched_for_edit
from sdpo_exp.models.ovis_text.prompts import Kind
from sdpo_exp.models.yak.latents import PATCH, grid_ids, pack, text_ids, unpack
from sdpo_exp.models.yak.network import YakTransformer
from sdpo_exp.types import Conditioning


class EditConditions(NamedTuple):
    """The three that an edit's guidance weighs, each for `velocity`.

    Attributes:
        instructed: the instruction beside the source, whose tokens are seen.
        uninstructed: the request for any image beside the source, whose tokens are seen.
        bare: the request for any image beside a blank one; no source.
    """

    instructed: Conditioning
    uninstructed: Conditioning
    bare: Conditioning


def velocity(network: YakTransformer, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
    """Velocity (N, C, h, w) of `network` for latents (N, C, h, w) at times t (N,) in 0..1.

    Args:
        network: a `YakTransformer`, with or without adapters.
        x_t: noisy latents.
        t: float32; half precision would round 1000 t.
        cond: `text` (N, L, width) and, where rows differ in length, `mask` bool (N, L); of an edit
            `source` as well, clean latents (N, C, H, W) of the image to edit, of any size.
    """
    dtype = network.dtype
    text, (height, width) = cond["text"].to(dtype), x_t.shape[-2:]
    rows, columns = height // PATCH, width // PATCH
    cond_img = cond_img_ids = None
    if (source := cond.get("source")) is not None:
        down, across = (side // PATCH for side in source.shape[-2:])
        cond_img = pack(source.to(dtype))
        cond_img_ids = grid_ids(down, across, len(source), axis0=1.0, device=x_t.device)
    tokens = network(
        pack(x_t.to(dtype)),
        grid_ids(rows, columns, len(x_t), device=x_t.device),
        text,
        text_ids(text.shape[1], len(text), text.device),
        t,
        cond_img=cond_img,
        cond_img_ids=cond_img_ids,
        txt_mask=cond.get("mask"),
    )
    return unpack(tokens, height, width)


def states(
    encoder: OvisTextEncoder, prompts: Sequence[str], size: tuple[int, int], kind: Kind
) -> list[Tensor]:
    """Text states (L_i, width) of prompts beside a blank image of `size` (height, width).

    A prompt that comes twice is encoded once; its states depend on nothing but itself and the size.

    Raises:
        UserError: a prompt has a placeholder of its own.
    """
    distinct = list(dict.fromkeys(prompts))
    encoded = dict(zip(distinct, encoder.encode(distinct, size, kind), strict=True))
    return [encoded[prompt] for prompt in prompts]


def padded(rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """States (L_i, width) as `text` (N, L, width), with `mask` (N, L) where lengths differ."""
    text = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = [len(row) for row in rows]
    if len(set(lengths)) == 1:
        return {"text": text}
    places = torch.arange(text.shape[1])
    return {"text": text, "mask": (places < torch.tensor(lengths)[:, None]).to(text.device)}


def stretched(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Pictures to edit at the size at which they condition, which is the edited picture's too.

    Raises:
        UserError: they end at several sizes, or one is too narrow.
    """
    found = [stretched_for_edit(picture) for picture in pictures]
    if len(sizes := {picture.size for picture in found}) > 1:
        told = " and ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise UserError(f"image: pictures of one call end at one size, these at {told}")
    return found


def edit_sources(
    image: Image.Image | Sequence[Image.Image], prompts: int, asked: tuple[int | None, int | None]
) -> list[Image.Image]:
    """A picture per prompt, as they condition.

    Args:
        image: one for all prompts, or one per prompt.
        prompts: how many there are.
        asked: height and width that the user gave; None: not given.

    Raises:
        UserError: other sizes than the pictures' edit size, or several of these.
        ValueError: as many pictures as prompts are needed.
    """
    given = [image] * prompts if isinstance(image, Image.Image) else list(image)
    if len(given) != prompts:
        raise ValueError(f"{len(given)} images for {prompts} prompts")
    found = stretched(given)
    width, height = found[0].size
    if any(side not in (None, own) for side, own in zip(asked, (height, width), strict=True)):
        raise UserError(
            f"height, width: an edit of this image is {height}x{width}, by the model's own rule; "
            "leave them out"
        )
    return found


def pixels_of(pictures: Sequence[Image.Image]) -> Tensor:
    """Float32 pixels (N, 3, H, W) in [-1, 1] of RGB pictures of one size."""
    content = np.stack([np.asarray(picture, dtype=np.float32) for picture in pictures])
    return torch.from_numpy(content).permute(0, 3, 1, 2) / 127.5 - 1


def edit_conditions(
    encoder: OvisTextEncoder,
    instructions: Sequence[str],
    pictures: Sequence[Image.Image],
    source: Tensor,
) -> EditConditions:
    """Conditions of edits, a row per instruction.

    Args:
        encoder: of the text.
        instructions: N of them; outer blanks do not count.
        pictures: N, from `stretched`.
        source: (N, C, h, w) clean latents of the pictures, noise-free at every time.

    Raises:
        UserError: an instruction has a placeholder of its own.
    """
    asked = encoder.encode(instructions, pictures, "edit")
    unasked = encoder.encode([""] * len(pictures), pictures, "unconditional")
    width, height = pictures[0].size
    nothing = states(encoder, [""] * len(pictures), (height, width), "unconditional")
    seen = {"source": source}
    return EditConditions(padded(asked) | seen, padded(unasked) | seen, padded(nothing))
