"""ImageReward's network in plain tensor operations on the original names; heads are 64 wide."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]
WIDTH, INNER, PATCH, SIDE = 128, 96, 16, 32
TEXT, TEXT_INNER, POSITIONS = 192, 80, 40
LAYERS = 2


def random_state(words: int, seed: int = 0) -> dict[str, Tensor]:
    """All names of the original at small sizes, those that are not used included."""
    shapes: dict[str, tuple[int, ...]] = {
        "blip.visual_encoder.cls_token": (1, 1, WIDTH),
        "blip.visual_encoder.pos_embed": (1, (SIDE // PATCH) ** 2 + 1, WIDTH),
        "blip.visual_encoder.patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "blip.visual_encoder.patch_embed.proj.bias": (WIDTH,),
        "blip.text_encoder.embeddings.word_embeddings.weight": (words, TEXT),
        "blip.text_encoder.embeddings.position_embeddings.weight": (POSITIONS, TEXT),
    }

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    norm("blip.visual_encoder.norm", WIDTH)
    norm("blip.text_encoder.embeddings.LayerNorm", TEXT)
    for i in range(LAYERS):
        block = f"blip.visual_encoder.blocks.{i}"
        norm(f"{block}.norm1", WIDTH)
        norm(f"{block}.norm2", WIDTH)
        linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        linear(f"{block}.attn.proj", WIDTH, WIDTH)
        linear(f"{block}.mlp.fc1", INNER, WIDTH)
        linear(f"{block}.mlp.fc2", WIDTH, INNER)
        layer = f"blip.text_encoder.encoder.layer.{i}"
        for kind, source in (("attention", TEXT), ("crossattention", WIDTH)):
            linear(f"{layer}.{kind}.self.query", TEXT, TEXT)
            linear(f"{layer}.{kind}.self.key", TEXT, source)
            linear(f"{layer}.{kind}.self.value", TEXT, source)
            linear(f"{layer}.{kind}.output.dense", TEXT, TEXT)
            norm(f"{layer}.{kind}.output.LayerNorm", TEXT)
        linear(f"{layer}.intermediate.dense", TEXT_INNER, TEXT)
        linear(f"{layer}.output.dense", TEXT, TEXT_INNER)
        norm(f"{layer}.output.LayerNorm", TEXT)
    sizes = (TEXT, 1024, 128, 64, 16, 1)
    for n, out, into in zip((0, 2, 4, 6, 7), sizes[1:], sizes[:-1], strict=True):
        linear(f"mlp.layers.{n}", out, into)
    linear("blip.vision_proj", 256, WIDTH)
    linear("blip.text_proj", 256, TEXT)
    generator = torch.Generator().manual_seed(seed)
    state = {name: _draw(name, shape, generator) for name, shape in shapes.items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(POSITIONS)[None]
    return state


def _draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith("weight") and len(shape) == 1:
        return 1 + 0.2 * noise
    return noise * (1.0 / math.sqrt(shape[-1]) if name.endswith("weight") else 0.1)


def reward(
    state: State,
    pixels: Tensor,
    ids: list[int],
    text_heads: int = TEXT // 64,
    vision_eps: float = 1e-6,
    causal: bool = False,
) -> Tensor:
    """The standardised reward of one image (3, s, s) under the ids of one text, unpadded."""
    image = _image(state, pixels, vision_eps)
    text = _text(state, ids, image, text_heads, causal)
    value = text[0]
    for n in (0, 2, 4, 6, 7):
        value = _linear(state, f"mlp.layers.{n}", value)
    return (value[0] - 0.16717362830052426) / 1.0333394966054072


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool = False) -> Tensor:
    parts = []
    chunks = (x.chunk(heads, -1) for x in (q, k, v))
    for q_h, k_h, v_h in zip(*chunks, strict=True):
        logits = q_h @ k_h.T / math.sqrt(q_h.shape[-1])
        if causal:
            logits = logits + torch.full_like(logits, -math.inf).triu(1)
        parts.append(logits.softmax(-1) @ v_h)
    return torch.cat(parts, -1)


def _image(state: State, pixels: Tensor, eps: float) -> Tensor:
    root = "blip.visual_encoder"
    kernel = state[f"{root}.patch_embed.proj.weight"].reshape(WIDTH, -1)
    patches = F.unfold(pixels[None], PATCH, stride=PATCH)[0].T
    x = patches @ kernel.T + state[f"{root}.patch_embed.proj.bias"]
    x = torch.cat([state[f"{root}.cls_token"][0], x]) + state[f"{root}.pos_embed"][0]
    for i in range(LAYERS):
        block = f"{root}.blocks.{i}"
        normed = _norm(state, f"{block}.norm1", x, eps)
        q, k, v = _linear(state, f"{block}.attn.qkv", normed).chunk(3, -1)
        x = x + _linear(state, f"{block}.attn.proj", _attend(q, k, v, WIDTH // 64))
        inner = F.gelu(_linear(state, f"{block}.mlp.fc1", _norm(state, f"{block}.norm2", x, eps)))
        x = x + _linear(state, f"{block}.mlp.fc2", inner)
    return _norm(state, f"{root}.norm", x, eps)


def _text(state: State, ids: list[int], image: Tensor, heads: int, causal: bool) -> Tensor:
    root = "blip.text_encoder"
    words = state[f"{root}.embeddings.word_embeddings.weight"][ids]
    places = state[f"{root}.embeddings.position_embeddings.weight"][: len(ids)]
    x = _norm(state, f"{root}.embeddings.LayerNorm", words + places, 1e-12)
    for i in range(LAYERS):
        layer = f"{root}.encoder.layer.{i}"
        for kind in ("attention", "crossattention"):
            source = x if kind == "attention" else image
            name = f"{layer}.{kind}"
            q = _linear(state, f"{name}.self.query", x)
            k, v = (_linear(state, f"{name}.self.{part}", source) for part in ("key", "value"))
            seen = _attend(q, k, v, heads, causal and kind == "attention")
            x = _added(state, f"{name}.output", seen, x)
        inner = F.gelu(_linear(state, f"{layer}.intermediate.dense", x))
        x = _added(state, f"{layer}.output", inner, x)
    return x


def _added(state: State, name: str, x: Tensor, residual: Tensor) -> Tensor:
    return _norm(state, f"{name}.LayerNorm", _linear(state, f"{name}.dense", x) + residual, 1e-12)
