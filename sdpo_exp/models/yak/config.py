"""Sizes of a Yak network and of its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# What the class that reads a released `config.json` takes where a key is absent; in all others
# it has the release's own value.
_WHERE_ABSENT = {"context_in_dim": 3072, "timestep_shift": False}


@dataclass(frozen=True)
class YakConfig:
    """The defaults are those of Ovis-U1-3B.

    Attributes:
        hidden_size: D, width of every stream.
        num_heads: of the blocks; the text refiner has twice as many.
        mlp_ratio: inner width of the blocks' MLPs over D; the refiner's is always 4.
        depth: double-stream blocks.
        depth_single_blocks: single-stream blocks.
        axes_dim: channels of a head that rotate with each of the three position axes.
        theta: base of the rotary frequencies.
        qkv_bias: whether the double blocks' q, k, v have a bias; the others always have one.
        guidance_embed: whether a guidance scale is an input.
        vec_in_dim: width of the pooled text vector, which is the refiner's own, so D.
        context_in_dim: C, width of the text states.
        in_channels, out_channels: of an image token, 4 latent channels x 2 x 2.
        timestep_shift: whether the sampler's times are shifted by the number of tokens.
        base_shift, max_shift: mu at 256 and at 4096 tokens.

    Raises:
        ValueError: sizes that do not fit together; the message names them.
    """

    hidden_size: int = 1536
    num_heads: int = 12
    mlp_ratio: float = 4
    depth: int = 6
    depth_single_blocks: int = 12
    axes_dim: tuple[int, ...] = (16, 56, 56)
    theta: float = 10_000
    qkv_bias: bool = True
    guidance_embed: bool = False
    vec_in_dim: int = 1536
    context_in_dim: int = 4096
    in_channels: int = 16
    out_channels: int = 16
    timestep_shift: bool = True
    base_shift: float = 0.5
    max_shift: float = 1.15

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes_dim", tuple(self.axes_dim))
        width, heads = self.hidden_size, self.num_heads
        if heads < 1 or width % (2 * heads):
            raise ValueError(
                f"hidden_size {width} is not a multiple of 2 x num_heads = {2 * heads}, the "
                "number of heads of the text refiner"
            )
        if len(self.axes_dim) != 3 or any(size < 2 or size % 2 for size in self.axes_dim):
            raise ValueError(f"axes_dim must be three even sizes, got {self.axes_dim}")
        if sum(self.axes_dim) != self.head_dim:
            raise ValueError(
                f"axes_dim {self.axes_dim} must sum to the head's size "
                f"hidden_size / num_heads = {self.head_dim}, not {sum(self.axes_dim)}"
            )
        if self.vec_in_dim != width:
            raise ValueError(
                f"vec_in_dim {self.vec_in_dim} must equal hidden_size {width}: the pooled text "
                "vector is the refiner's own"
            )

    @property
    def head_dim(self) -> int:
        """h, channels of one head of the blocks."""
        return self.hidden_size // self.num_heads

    @property
    def mlp_size(self) -> int:
        """Inner width of the blocks' MLPs, rounded down."""
        return int(self.hidden_size * self.mlp_ratio)

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> YakConfig:
        """Read the `visual_generator_config` of a released `config.json`.

        Absent keys have the defaults of the class that it was written by, which are not all the
        release's: `context_in_dim` 3072, `timestep_shift` false. Keys that are not ours (among
        them `txt_type` and `checkpoint`, which change nothing) are ignored.

        Raises:
            ValueError: sizes that do not fit together.
        """
        names = {field.name for field in fields(cls)}
        given = {key: value for key, value in mapping.items() if key in names}
        return cls(**{**_WHERE_ABSENT, **given})
