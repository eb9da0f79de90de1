"""A tiny Ovis-U1 folder in the released layout: language model, visual tokenizer, visual table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2Tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
HIDDEN, VOCABULARY, VISUAL_VOCABULARY = 32, 300, 64
SIDE = 56  # of the position table, and of the smallest picture that the ViT is given


def byte_symbols() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE, in the order of the bytes."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def settings() -> dict[str, Any]:
    """config.json of the release, its numbers shrunk."""
    llm = {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "torch_dtype": "bfloat16",
        "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "vocab_size": VOCABULARY, "max_position_embeddings": 40_960, "rope_theta": 1_000_000,
        "rope_scaling": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": True,
        "attention_bias": False, "use_sliding_window": False, "sliding_window": None,
        "max_window_layers": 28,
    }  # fmt: skip
    backbone = {
        "model_type": "aimv2", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_channels": 3, "image_size": SIDE, "patch_size": 14,
        "rms_norm_eps": 1e-5, "qkv_bias": False, "use_bias": False, "hidden_stride": 2,
        "window_size": 112, "fullatt_block_indexes": None, "temporal_patch_size": 1,
        "preserve_original_pe": True, "interpolate_pe_method": "two_dim", "disable_rope": False,
        "min_pixels": SIDE**2, "max_pixels": (2 * SIDE) ** 2,
    }  # fmt: skip
    visual = {
        "model_type": "aimv2_visual_tokenizer", "vocab_size": VISUAL_VOCABULARY,
        "tokenize_function": "softmax", "tau": 1.0, "hidden_stride": 2, "backbone_config": backbone,
    }  # fmt: skip
    return {
        "model_type": "ovis_u1", "architectures": ["OvisU1"], "hidden_size": HIDDEN,
        "multimodal_max_length": 4496, "conversation_formatter_class": "Qwen3ConversationFormatter",
        "llm_config": llm, "visual_tokenizer_config": visual,
    }  # fmt: skip


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the text side, written down by hand."""
    found: dict[str, tuple[int, ...]] = {
        "llm.model.embed_tokens.weight": (VOCABULARY, 32),
        "llm.model.norm.weight": (32,),
        "vte.weight": (VISUAL_VOCABULARY, 32),
        "visual_tokenizer.head.0.weight": (60, 128),
        "visual_tokenizer.head.1.weight": (60,),
        "visual_tokenizer.head.1.bias": (60,),
    }
    layer = {
        "input_layernorm": (32,), "post_attention_layernorm": (32,),
        "self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32),
        "self_attn.o_proj": (32, 32), "self_attn.q_norm": (16,), "self_attn.k_norm": (16,),
        "mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64),
    }  # fmt: skip
    for number in range(2):
        found |= {f"llm.model.layers.{number}.{name}.weight": size for name, size in layer.items()}
    vit = {
        "preprocessor.patchifier.proj.weight": (32, 3, 14, 14),
        "preprocessor.patchifier.proj.bias": (32,),
        "preprocessor.patchifier.norm.weight": (32,),
        "preprocessor.pos_embed": (1, 16, 32),
        "trunk.blocks.0.attn.qkv.weight": (96, 32),
        "trunk.blocks.0.attn.proj.weight": (32, 32),
        "trunk.blocks.0.norm_1.weight": (32,),
        "trunk.blocks.0.norm_2.weight": (32,),
        "trunk.blocks.0.mlp.fc1.weight": (48, 32),
        "trunk.blocks.0.mlp.fc2.weight": (32, 48),
        "trunk.blocks.0.mlp.fc3.weight": (48, 32),
        "trunk.post_trunk_norm.weight": (32,),
    }
    return found | {f"visual_tokenizer.backbone.{name}": size for name, size in vit.items()}


def weights() -> dict[str, Tensor]:
    """Random tensors of those shapes, the same at every call; norms lie around 1."""
    draw = torch.Generator().manual_seed(0)
    made = {name: torch.randn(size, generator=draw) for name, size in sorted(shapes().items())}
    return {
        name: (1 + 0.2 * tensor) if _is_norm(name) else tensor * 0.2
        for name, tensor in made.items()
    }


def _is_norm(name: str) -> bool:
    return "norm" in name or name.endswith("head.1.weight")


def write(
    folder: Path,
    tensors: Mapping[str, Tensor] | None = None,
    config: Mapping[str, Any] | None = None,
    shards: int = 2,
) -> Path:
    """Write the folder, with tensors of a generator that the text side does not read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or settings()))
    pixels = {"min_pixels": SIDE**2, "max_pixels": (2 * SIDE) ** 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels | {"patch_size": 14}))
    write_tokenizer(folder)
    state = dict(weights() if tensors is None else tensors)
    state.setdefault("visual_generator.backbone.img_in.bias", torch.zeros(4))
    if shards == 1:
        save_file(state, folder / "model.safetensors")
        return folder
    table = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: state[name] for name in sorted(state)[number::shards]}
        save_file(part, folder / file)
        table |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_tokenizer(folder: Path) -> None:
    """Byte-level BPE without merges: an id per byte, and Qwen3's special tokens."""
    vocabulary = {symbol: number for number, symbol in enumerate(byte_symbols())}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    tokenizer.save_pretrained(folder)


def write_older_tokenizer(folder: Path) -> None:
    """The same in the files that came before tokenizer.json."""
    vocabulary = {symbol: number for number, symbol in enumerate(byte_symbols())}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {
        str(256 + number): {
            "content": token, "lstrip": False, "normalized": False, "rstrip": False,
            "single_word": False, "special": "think" not in token,
        }
        for number, token in enumerate(SPECIAL)
    }  # fmt: skip
    chosen = {
        "tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added,
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "add_prefix_space": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(chosen))
