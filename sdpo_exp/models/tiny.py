"""The tiny text-to-image model of the embedded world, in the public on-disk format.

A pixel-space diffusion model at 32 px: pixel-unshuffle stands in for the VAE, a two-layer CLIP
text encoder reads word-level captions, and a diffusers UNet predicts v. The folder layout is that
of a diffusers pipeline (`unet/`, `text_encoder/`, `tokenizer/`, `scheduler/`), so the code paths
are the ones that real checkpoints take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from sdpo_exp.models.forward_process import VPProcess
from sdpo_exp.models.pixel_backbone import MAX_TOKENS, Base, PixelBackbone
from sdpo_exp.models.tiny_pipeline import PixelShufflePipeline
from sdpo_exp.types import Conditioning

_HERE = Path(__file__).parent
PARTS = ("unet", "text_encoder", "tokenizer", "scheduler")
WIDTH = 64


class TinyBackbone(PixelBackbone):
    """Denoiser, text encoder and forward process of the embedded world: a UNet that predicts v.

    Args:
        pretrained: a folder in the layout above; None takes weights that ship with the package.
        base: which of these.

    Raises:
        UserError: the folder is missing or incomplete.
    """

    SHIPPED: ClassVar[Mapping[Base, Path]] = {"unfinished": _HERE / "tiny_base"}
    PARTS: ClassVar[tuple[str, ...]] = PARTS
    PIPELINE: ClassVar[Any] = PixelShufflePipeline
    NETWORK: ClassVar[Any] = UNet2DConditionModel
    SCHEDULER: ClassVar[Any] = DDPMScheduler
    FIRST_WEIGHT: ClassVar[str] = "conv_in.weight"

    def _hold(self, denoiser: nn.Module, *parts: Any) -> None:
        super()._hold(nn.Module.to(denoiser, memory_format=torch.channels_last), *parts)

    def _process(self) -> VPProcess:
        config = self.scheduler.config
        return VPProcess(self.scheduler.alphas_cumprod, config.prediction_type)

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """v-prediction (N, 12, 16, 16) of `network` at integer timesteps t (N,)."""
        dtype = self.base_dtype(network)
        x_t = x_t.to(dtype).contiguous(memory_format=torch.channels_last)
        return network(x_t, t, encoder_hidden_states=cond["text"].to(dtype)).sample


def build_tiny(vocabulary: Sequence[str]) -> TinyBackbone:
    """The architecture with random weights from torch's current seed.

    Args:
        vocabulary: the words of the world's captions; other words become `<unk>`.
    """
    return _around(build_unet(), vocabulary)


def build_tiny_wide_attention(vocabulary: Sequence[str]) -> TinyBackbone:
    """The same of the first base, which attends at both resolutions."""
    return _around(build_unet(("CrossAttn", "CrossAttn")), vocabulary)


def _around(unet: UNet2DConditionModel, vocabulary: Sequence[str]) -> TinyBackbone:
    tokenizer = build_tokenizer(vocabulary)
    text = build_text_encoder(tokenizer)
    return TinyBackbone.from_parts(unet, text, tokenizer, build_scheduler())


def build_unet(levels: tuple[str, str] = ("", "CrossAttn")) -> UNet2DConditionModel:
    """About a million parameters. The time embedding also gets a pooled text embedding: with it
    the tiny model learns its captions in half the steps.

    Args:
        levels: kinds of block at 16 x 16 and 8 x 8. Attention over 256 places costs as much as all
            the rest, and shapes are learnt without it.
    """
    fine, coarse = levels
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=12,
        out_channels=12,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=(f"{fine}DownBlock2D", f"{coarse}DownBlock2D"),
        up_block_types=(f"{coarse}UpBlock2D", f"{fine}UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """Two layers of width 64 over at most 16 tokens."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """Word-level, lower-case words split at white space, `<bos> words <eos>` padded to 16."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    table = {word: i for i, word in enumerate([*special, *sorted(set(vocabulary))])}
    tokenizer = Tokenizer(WordLevel(table, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def build_scheduler() -> DDPMScheduler:
    """Linear betas 1e-4..0.02 over 1000 steps, v-prediction (epsilon learns no text this small)."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        clip_sample=False,
    )
