"""The Yak transformer under the parameter names of the released weights."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sdpo_exp.models.target_names import YAK
from sdpo_exp.models.yak.blocks import DoubleBlock, FinalLayer, SingleBlock
from sdpo_exp.models.yak.config import YakConfig
from sdpo_exp.models.yak.layers import TIME_CHANNELS, Embedder, sinusoid
from sdpo_exp.models.yak.refiner import TextRefiner
from sdpo_exp.models.yak.rope import rotation


class YakTransformer(nn.Module):
    """Predicts the velocity noise - image of packed latents from text states and a time.

    New weights are torch's defaults, but for the refiner's gates, which are closed, and its [CLS]
    row, which is nearly zero.

    Args:
        config: sizes; the released ones if None.
    """

    lora_targets: ClassVar[str] = YAK

    def __init__(self, config: YakConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or YakConfig()
        width = config.hidden_size
        self.img_in = nn.Linear(config.in_channels, width)
        self.time_in = Embedder(TIME_CHANNELS, width)
        self.vector_in = Embedder(config.vec_in_dim, width)
        if config.guidance_embed:
            self.guidance_in = Embedder(TIME_CHANNELS, width)
        self.txt_in = TextRefiner(config)
        self.double_blocks = nn.ModuleList(DoubleBlock(config) for _ in range(config.depth))
        self.single_blocks = nn.ModuleList(
            SingleBlock(config) for _ in range(config.depth_single_blocks)
        )
        self.final_layer = FinalLayer(config)
        self._checkpointing = False

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, whatever adapters they carry."""
        return self.txt_in.cls_token.dtype

    # -- how it is executed ---------------------------------------------------------------------

    def enable_gradient_checkpointing(self) -> None:
        """Recompute each block's activations in the backward pass."""
        self._checkpointing = True

    def disable_gradient_checkpointing(self) -> None:
        """Keep all activations."""
        self._checkpointing = False

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether blocks are recomputed where there is a backward pass."""
        return self._checkpointing

    def forward(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        guidance: Tensor | None = None,
        cond_img: Tensor | None = None,
        cond_img_ids: Tensor | None = None,
        txt_mask: Tensor | None = None,
    ) -> Tensor:
        """Velocity (B, n, out_channels) of the target's tokens.

        Args:
            img: (B, n, in_channels) noisy tokens.
            img_ids: float32 (B, n, 3) positions, (0, row, column).
            txt: (B, L, C) text states.
            txt_ids: float32 (B, L, 3) positions, zeros.
            timesteps: (B,) in 0..1, 1 is noise; float32, but for the official rounding (sampling).
            guidance: (B,) guidance scale, of a network with `guidance_embed` only.
            cond_img, cond_img_ids: (B, m, in_channels) clean tokens of an image to edit, of any
                size, and their positions, (1, row, column).
            txt_mask: bool (B, L), true where a row is text, at least once per batch row. What the
                other rows hold then changes nothing, so texts of several lengths make one batch.

        Raises:
            ValueError: a guidance scale that is missing, or tokens without positions.
        """
        count, length = img.shape[1], txt.shape[1]
        if cond_img is not None:
            if cond_img_ids is None:
                raise ValueError("cond_img needs cond_img_ids")
            img = torch.cat((img, cond_img), dim=1)
            img_ids = torch.cat((img_ids, cond_img_ids), dim=1)
        turn = rotation(
            torch.cat((txt_ids, img_ids), dim=1), self.config.axes_dim, self.config.theta
        )
        img = self.img_in(img)
        txt, cls = self._refine(txt, txt_mask)
        vec = self._global_vector(timesteps, guidance, cls, img.dtype)
        keys = None
        if txt_mask is not None:
            keys = F.pad(txt_mask, (0, img.shape[1]), value=True)[:, None, None]
        for block in self.double_blocks:
            img, txt = self._run(block, img, txt, vec, turn, keys)
        x = torch.cat((txt, img), dim=1)
        for block in self.single_blocks:
            x = self._run(block, x, vec, turn, keys)
        # The last layer works row by row, so condition rows can go before it.
        return self.final_layer(x[:, length : length + count], vec)

    def _refine(self, txt: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The text stream (B, L, D) and the pooled vector (B, D)."""
        if mask is not None:
            txt = txt.masked_fill(~mask[..., None], 0.0)
        x, condition, keys = self.txt_in.start(txt, mask)
        for block in self.txt_in.blocks:
            x = self._run(block, x, condition, keys)
        return x[:, 1:], x[:, 0]

    def _global_vector(
        self, timesteps: Tensor, guidance: Tensor | None, cls: Tensor, dtype: torch.dtype
    ) -> Tensor:
        vec = self.time_in(sinusoid(timesteps).to(dtype))
        if self.config.guidance_embed:
            if guidance is None:
                raise ValueError("this network has guidance_embed and needs a guidance scale")
            vec = vec + self.guidance_in(sinusoid(guidance).to(dtype))
        return vec + self.vector_in(cls)

    def _run(self, block: nn.Module, *inputs: Any) -> Any:
        if self._checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)
