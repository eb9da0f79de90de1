"""The embedded world's flow model: a joint-attention transformer that predicts velocity.

The shape is that of Stable Diffusion 3 and its kin, at 32 px: diffusers' `SD3Transformer2DModel`
over pixel-unshuffled images, the tiny CLIP text encoder, `FlowMatchEulerDiscreteScheduler`. The
folder layout is a diffusers pipeline's (`transformer/`, `text_encoder/`, `tokenizer/`,
`scheduler/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor, nn

from sdpo_exp.models.flow_process import USUAL_SHIFTS, FlowProcess
from sdpo_exp.models.pixel_backbone import Base, PixelBackbone
from sdpo_exp.models.tiny import WIDTH, TinyBackbone, build_text_encoder, build_tokenizer
from sdpo_exp.models.tiny_pipeline import PixelShuffleFlowPipeline
from sdpo_exp.types import Conditioning, Geometry

_HERE = Path(__file__).parent
_STEPS = 1000  # what the transformer is told is 1000 t
# Of Stable Diffusion 3. What a caption decides, it decides in the strongest noise: of images this
# small and plain the rest can be seen at t = 0.9 already, where unshifted times are rare (1.4 %).
_SHIFT = 3.0


class TinyFlowBackbone(PixelBackbone):
    """Denoiser, text encoder and forward process: a transformer that predicts noise minus image.

    Args:
        pretrained: a folder in the layout above; None takes weights that ship with the package.
        process: the distribution of training times; None: the base's own, logit-normal and
            shifted by 3.
        base: which of the shipped weights.

    Raises:
        UserError: the folder is missing or incomplete.
    """

    SHIPPED: ClassVar[Mapping[Base, Path]] = {"unfinished": _HERE / "tiny_flow_base"}
    PARTS: ClassVar[tuple[str, ...]] = ("transformer", "text_encoder", "tokenizer", "scheduler")
    PIPELINE: ClassVar[Any] = PixelShuffleFlowPipeline
    NETWORK: ClassVar[Any] = SD3Transformer2DModel
    SCHEDULER: ClassVar[Any] = FlowMatchEulerDiscreteScheduler
    FIRST_WEIGHT: ClassVar[str] = "pos_embed.proj.weight"

    def __init__(
        self,
        pretrained: str | None = None,
        process: FlowProcess | None = None,
        base: Base = "unfinished",
    ) -> None:
        super().__init__(pretrained, base)
        if process is not None:
            self.process = process.completed(*USUAL_SHIFTS)

    def _process(self) -> FlowProcess:
        return FlowProcess("logit_normal", shift="static", shift_factor=_SHIFT)

    def encode_prompts(
        self, prompts: Sequence[str], geometry: Sequence[Geometry] = ()
    ) -> Conditioning:
        """`{"text": (N, 16, 64), "pooled": (N, 64)}`."""
        del geometry
        found = self._read(prompts)
        return {"text": found.last_hidden_state, "pooled": found.pooler_output}

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Velocity (N, 12, 16, 16) of `network` at times t (N,) in (0, 1)."""
        dtype = self.base_dtype(network)
        return network(
            hidden_states=x_t.to(dtype),
            timestep=_STEPS * t,
            encoder_hidden_states=cond["text"].to(dtype),
            pooled_projections=cond["pooled"].to(dtype),
        ).sample


def open_pixel_model(folder: Path) -> PixelBackbone:
    """The embedded world's model of a folder, of the kind whose network is there.

    Raises:
        UserError: the folder is missing or incomplete.
    """
    network, *_ = TinyFlowBackbone.PARTS
    kind = TinyFlowBackbone if (folder / network).is_dir() else TinyBackbone
    return kind(str(folder))


def build_tiny_flow(vocabulary: Sequence[str]) -> TinyFlowBackbone:
    """The architecture with random weights from torch's current seed.

    Args:
        vocabulary: the words of the world's captions; other words become `<unk>`.
    """
    tokenizer = build_tokenizer(vocabulary)
    return TinyFlowBackbone.from_parts(
        build_transformer(),
        build_text_encoder(tokenizer),
        tokenizer,
        FlowMatchEulerDiscreteScheduler(num_train_timesteps=_STEPS, shift=_SHIFT),
    )


def build_transformer() -> SD3Transformer2DModel:
    """2.3 M parameters: four joint blocks of width 128 over 64 image and 16 text tokens."""
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=12,
        out_channels=12,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=128,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
