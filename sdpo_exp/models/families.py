"""What tells the families of latent models apart, and whether a model's parts belong together.

By their configurations, and without torch: so a mistake is told before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sdpo_exp.errors import UserError
from sdpo_exp.models.checkpoint_folder import read_json

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class Family(NamedTuple):
    """A family of pipelines in diffusers' layout.

    Attributes:
        name: of our class, for messages.
        parts: folders of a checkpoint.
        text_encoders: those of them whose states the UNet reads, side by side.
        added_conditions: `addition_embed_type` of its UNets.
        latent_scale: that its UNets expect, where no VAE's configuration says it.
    """

    name: str
    parts: tuple[str, ...]
    text_encoders: tuple[str, ...]
    added_conditions: str | None
    latent_scale: float


STABLE_DIFFUSION = Family(
    name="StableDiffusion",
    parts=("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    text_encoders=("text_encoder",),
    added_conditions=None,
    latent_scale=0.18215,
)
SDXL = Family(
    name="StableDiffusionXL",
    parts=(
        *("unet", "vae", "text_encoder", "text_encoder_2"),
        *("tokenizer", "tokenizer_2", "scheduler"),
    ),
    text_encoders=("text_encoder", "text_encoder_2"),
    added_conditions="text_time",
    latent_scale=0.13025,
)


def unet_mismatch(
    unet: Mapping[str, Any], latent_channels: int, text_width: int, family: Family
) -> str | None:
    """Why a UNet is of another family, or of another task; None where it is one of these.

    Args:
        unet: its configuration.
        latent_channels: that the VAE makes.
        text_width: of the text states, all encoders side by side.
        family: that it should be one of.
    """
    found, width = unet.get("addition_embed_type"), unet.get("cross_attention_dim")
    if found != family.added_conditions or width != text_width:
        return (
            f"model.pretrained: its UNet is not one of {family.name}: it has added conditions "
            f"{found!r} and reads text of width {width}, where there are "
            f"{family.added_conditions!r} and {text_width}. Choose the model=... that it belongs "
            "to."
        )
    if unet.get("in_channels") != latent_channels:
        return (
            f"model.pretrained: its UNet takes {unet.get('in_channels')} channels and its VAE "
            f"makes {latent_channels}; inpainting and editing models cannot be tuned here"
        )
    return None


def block_size(vae: Mapping[str, Any]) -> int:
    """Pixels per latent in each direction, of a VAE's configuration."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def resolution_misfit(resolution: int, block: int) -> str | None:
    """Why images of a size cannot be encoded, or None."""
    if resolution % block == 0:
        return None
    return (
        f"resolution={resolution}: the VAE works in blocks of {block} pixels; give a multiple of "
        f"{block}, best the size that the model was made for"
    )


def check_vae(vae: AutoencoderKL, vae_folder: Path, folder: Path, family: Family) -> None:
    """Refuse a separate VAE whose latents are scaled for another family.

    Args:
        vae, vae_folder: as loaded, and where from.
        folder: of the model, whose own VAE's configuration says what its UNet expects.
        family: whose UNets' scale counts where that configuration is not there.

    Raises:
        UserError: another scale.
    """
    own = folder / "vae" / "config.json"
    if vae_folder == own.parent:
        return
    scale = family.latent_scale
    expected = read_json(own).get("scaling_factor", scale) if own.is_file() else scale
    if vae.config.scaling_factor != expected:
        raise UserError(
            f"model.vae: the VAE of {vae_folder} scales its latents by "
            f"{vae.config.scaling_factor}, the UNet of {folder} expects {expected}: it belongs to "
            "another family"
        )
