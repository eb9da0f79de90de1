"""The tiny text-to-image model of the embedded world, in the public on-disk format.

A pixel-space diffusion model at 32 px: pixel-unshuffle stands in for the VAE, a two-layer CLIP
text encoder reads word-level captions, and a diffusers UNet predicts v. The folder layout is that
of a diffusers pipeline (`unet/`, `text_encoder/`, `tokenizer/`, `scheduler/`), so the code paths
are the ones that real checkpoints take.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from sdpo_exp.errors import UserError
from sdpo_exp.models import tiny_pipeline
from sdpo_exp.models.forward_process import VPProcess
from sdpo_exp.models.lora import merged
from sdpo_exp.models.tiny_pipeline import PixelShufflePipeline
from sdpo_exp.protocols import NoiseDraw
from sdpo_exp.types import Conditioning, Geometry

EMBEDDED_WEIGHTS = Path(__file__).parent / "tiny_base"
PARTS = ("unet", "text_encoder", "tokenizer", "scheduler")
MAX_TOKENS = 16
WIDTH = 64
UNSHUFFLE = 2


class TinyBackbone:
    """Denoiser, text encoder and forward process of the embedded world.

    Args:
        pretrained: a folder in the layout above; None takes the weights that ship with the
            package.

    Raises:
        UserError: the folder is missing or incomplete.
    """

    def __init__(self, pretrained: str | None = None) -> None:
        folder = EMBEDDED_WEIGHTS if pretrained is None else Path(pretrained)
        _check_folder(folder)
        unet = UNet2DConditionModel.from_pretrained(
            folder / "unet",
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,  # the other way wants accelerate, and warns without it
        )
        text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
        scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        self._hold(unet, text, tokenizer, scheduler)

    @classmethod
    def from_parts(
        cls,
        denoiser: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerFast,
        scheduler: DDPMScheduler,
    ) -> TinyBackbone:
        """A backbone of parts in memory."""
        backbone = cls.__new__(cls)
        backbone._hold(denoiser, text_encoder, tokenizer, scheduler)
        return backbone

    def _hold(
        self,
        denoiser: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerFast,
        scheduler: DDPMScheduler,
    ) -> None:
        self.denoiser = denoiser.to(memory_format=torch.channels_last)
        self.text_encoder = text_encoder.requires_grad_(False).eval()
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.process = VPProcess(scheduler.alphas_cumprod, scheduler.config.prediction_type)

    def to(self, device: torch.device) -> None:
        """Move the text encoder; the denoiser moves with the module that trains it."""
        self.text_encoder.to(device)

    def encode_images(self, pixels: Tensor, draw: NoiseDraw | None = None) -> Tensor:
        """(N, 3, 32, 32) in [-1, 1] -> (N, 12, 16, 16); orthonormal, so errors keep their size."""
        del draw
        return functional.pixel_unshuffle(pixels, UNSHUFFLE)

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Exact inverse of `encode_images`."""
        return functional.pixel_shuffle(latents, UNSHUFFLE)

    def encode_prompts(
        self, prompts: Sequence[str], geometry: Sequence[Geometry] = ()
    ) -> Conditioning:
        """`{"text": (N, 16, 64)}`, the encoder's last hidden states."""
        del geometry
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        device = self.text_encoder.device
        return {"text": self.text_encoder(tokens.input_ids.to(device)).last_hidden_state}

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """v-prediction (N, 12, 16, 16) of `network` at integer timesteps t (N,)."""
        dtype = _base_dtype(network)
        x_t = x_t.to(dtype).contiguous(memory_format=torch.channels_last)
        return network(x_t, t, encoder_hidden_states=cond["text"].to(dtype)).sample

    def pipeline(self, network: nn.Module | None = None) -> PixelShufflePipeline:
        """A diffusers pipeline around `network`, by default the denoiser; it shares the parts.

        It computes in float32: of a network in half precision it gets a copy.
        """
        network = network or self.denoiser
        if _base_dtype(network) != torch.float32:
            network = nn.Module.to(copy.deepcopy(network), torch.float32)
        pipeline = PixelShufflePipeline(network, self.text_encoder, self.tokenizer, self.scheduler)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def save(self, folder: Path) -> None:
        """Write a diffusers pipeline folder, which loads with or without this package.

        Without it: `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`, which runs
        the folder's `pipeline.py`. Adapters are merged into the weights.
        """
        self.pipeline(merged(self.denoiser)).save_pretrained(folder)
        shutil.copyfile(tiny_pipeline.__file__, folder / "pipeline.py")
        index_file = folder / "model_index.json"
        index = json.loads(index_file.read_text())
        index["_class_name"] = ["pipeline", index["_class_name"]]
        index_file.write_text(json.dumps(index, indent=2) + "\n")


def _base_dtype(network: nn.Module) -> torch.dtype:
    """Of the weights, whatever adapters they carry."""
    return network.get_parameter("conv_in.weight").dtype


def build_tiny(vocabulary: Sequence[str]) -> TinyBackbone:
    """The architecture with random weights from torch's current seed.

    Args:
        vocabulary: the words of the world's captions; other words become `<unk>`.
    """
    tokenizer = build_tokenizer(vocabulary)
    return TinyBackbone.from_parts(
        build_unet(), build_text_encoder(tokenizer), tokenizer, build_scheduler()
    )


def build_unet() -> UNet2DConditionModel:
    """1.1 M parameters. The time embedding also gets a pooled text embedding: with it the tiny
    model learns its captions in half the steps."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=12,
        out_channels=12,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
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


def _check_folder(folder: Path) -> None:
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"model.pretrained={folder}: no such model folder, or it lacks {', '.join(missing)}. "
            "Give a folder with unet/, text_encoder/, tokenizer/ and scheduler/, or leave "
            "model.pretrained=null for the weights that ship with the package."
        )
