"""Whether the parts of a latent model belong together: told before they compute nonsense."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel

from sdpo_exp.errors import UserError
from sdpo_exp.models.checkpoint_folder import read_json


def check_unet(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text_width: int,
    family: str,
    added_conditions: str | None,
) -> None:
    """Refuse a UNet of another family, or of another task.

    Args:
        unet, vae: as loaded.
        text_width: of the text states, all encoders side by side.
        family: its name, for the message.
        added_conditions: `addition_embed_type` of the family's UNets.

    Raises:
        UserError: the UNet wants other conditions or latents.
    """
    found, width = unet.config.addition_embed_type, unet.config.cross_attention_dim
    if found != added_conditions or width != text_width:
        raise UserError(
            f"model.pretrained: its UNet is not one of {family}: it has added conditions {found!r} "
            f"and reads text of width {width}, where there are {added_conditions!r} and "
            f"{text_width}. Choose the model=... that it belongs to."
        )
    if unet.config.in_channels != vae.config.latent_channels:
        raise UserError(
            f"model.pretrained: its UNet takes {unet.config.in_channels} channels and its VAE "
            f"makes {vae.config.latent_channels}; inpainting and editing models cannot be tuned "
            "here"
        )


def check_vae(vae: AutoencoderKL, vae_folder: Path, folder: Path, family_scale: float) -> None:
    """Refuse a separate VAE whose latents are scaled for another family.

    Args:
        vae, vae_folder: as loaded, and where from.
        folder: of the model, whose own VAE's configuration says what its UNet expects.
        family_scale: what the family's UNets expect, where that configuration is not there.

    Raises:
        UserError: another scale.
    """
    own = folder / "vae" / "config.json"
    if vae_folder == own.parent:
        return
    expected = read_json(own).get("scaling_factor", family_scale) if own.is_file() else family_scale
    if vae.config.scaling_factor != expected:
        raise UserError(
            f"model.vae: the VAE of {vae_folder} scales its latents by "
            f"{vae.config.scaling_factor}, the UNet of {folder} expects {expected}: it belongs to "
            "another family"
        )
