"""What a model's folder shows without torch: whether it is whole, of the right family, and fits.

So a mistake is told before anything is loaded. A backbone's class says in `FAMILY` what its folders
are like: a call with literal arguments of a class that is a `ModelFiles`, which the check of a
configuration reads from source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sdpo_exp.errors import UserError
from sdpo_exp.models.checkpoint_folder import missing_parts, read_json
from sdpo_exp.models.target_names import ATTENTION

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class ModelFiles(Protocol):
    """A family of models as its folders show it; none of this imports torch.

    `model` are the configuration's keys below `model`, such as `vae` and `variant`.
    """

    @property
    def denoiser(self) -> str:
        """What is tuned, for messages: `UNet` or `transformer`."""

    @property
    def lora_targets(self) -> Sequence[str]:
        """Ends of names that LoRA adapts where none are given."""

    def missing(self, folder: Path, model: Mapping[str, Any]) -> Sequence[str]:
        """What a folder lacks of a whole model."""

    def mistakes(self, folder: Path, model: Mapping[str, Any], resolution: int) -> Sequence[str]:
        """Why a whole folder is not of this family, or images of a size do not fit it."""

    def layers(self, folder: Path) -> Sequence[str]:
        """Names of the denoiser's matrices and kernels; empty where no header tells."""


class Family(NamedTuple):
    """A family of pipelines in diffusers' layout.

    Attributes:
        name: of our class, for messages.
        parts: folders of a checkpoint.
        text_encoders: those of them whose states the denoiser reads, side by side.
        latent_scale: that its denoisers expect, where no VAE's configuration says it.
        part: the folder of the denoiser.
        network: its class in diffusers.
        text_width: its configuration's key for the width of the text states.
        added_conditions: its `addition_embed_type`.
        patch: latents per token in each direction, where it takes them packed into channels.
        lora_targets: as in `ModelFiles`.
    """

    name: str
    parts: tuple[str, ...]
    text_encoders: tuple[str, ...]
    latent_scale: float
    part: str = "unet"
    network: str = "UNet2DConditionModel"
    text_width: str = "cross_attention_dim"
    added_conditions: str | None = None
    patch: int = 1
    lora_targets: tuple[str, ...] = ATTENTION

    @property
    def denoiser(self) -> str:
        """`UNet` or `transformer`."""
        return {"unet": "UNet"}.get(self.part, self.part)

    @property
    def text_parts(self) -> tuple[str, ...]:
        """Folders of the tokenizers and text encoders."""
        return tuple(p for p in self.parts if p not in (self.part, "vae", "scheduler"))

    def parts_needed(self, vae: str | None) -> tuple[str, ...]:
        """The folders that a checkpoint must have, beside a separate VAE if one is named."""
        return tuple(part for part in self.parts if vae is None or part != "vae")

    def missing(self, folder: Path, model: Mapping[str, Any]) -> list[str]:
        """The parts that `folder` lacks, or lacks the weights of."""
        return missing_parts(folder, self.parts_needed(model["vae"]), model["variant"])

    def mistakes(self, folder: Path, model: Mapping[str, Any], resolution: int) -> list[str]:
        """Another family or task, or a resolution that the latents do not divide."""
        own = Path(model["vae"]).expanduser() if model["vae"] else folder
        vae = next((p for p in (own / "vae", own, folder / "vae") if _has_config(p)), None)
        if vae is None:
            return []
        block = block_size(read_json(vae / "config.json"), self.patch)
        found = (self.mismatch(folder, vae), resolution_misfit(resolution, block))
        return [problem for problem in found if problem is not None]

    def mismatch(self, folder: Path, vae: Path) -> str | None:
        """Why the denoiser of `folder` is of another family, or of another task; None: it fits.

        Args:
            folder: with the denoiser and the text encoders.
            vae: with the VAE's configuration.
        """
        config = read_json(folder / self.part / "config.json")
        encoders = [read_json(folder / name / "config.json") for name in self.text_encoders]
        told = f"model.pretrained: its {self.denoiser}"
        advice = "Choose the model=... that it belongs to."
        if (kind := config.get("_class_name", self.network)) != self.network:
            return f"{told} is a {kind}, {self.name} has {self.network}. {advice}"
        added, width = config.get("addition_embed_type"), config.get(self.text_width)
        text = sum(encoder["hidden_size"] for encoder in encoders)
        if added != self.added_conditions or width != text:
            return (
                f"{told} is not one of {self.name}: it has added conditions {added!r} and reads "
                f"text of width {width}, where there are {self.added_conditions!r} and {text}. "
                f"{advice}"
            )
        channels, made = config.get("in_channels"), self._channels(read_json(vae / "config.json"))
        if channels != made:
            return (
                f"{told} takes {channels} channels and its VAE makes {made}; inpainting and "
                "editing models cannot be tuned here"
            )
        return None

    def layers(self, folder: Path) -> list[str]:
        """Names in the headers of the denoiser's safetensors files."""
        files = sorted((folder / self.part).glob("*.safetensors"))
        return [name for file in files for name in layers_of(file)]

    def _channels(self, vae: Mapping[str, Any]) -> int:
        return int(vae.get("latent_channels", 4)) * self.patch**2


def _has_config(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def layers_of(file: Path) -> list[str]:
    """Names of the matrices and kernels in the header of a safetensors file."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(size))
    return [
        name.removesuffix(".weight")
        for name, entry in header.items()
        if name.endswith(".weight") and len(entry["shape"]) > 1
    ]


def block_size(vae: Mapping[str, Any], patch: int = 1) -> int:
    """Pixels per latent in each direction, of a VAE's configuration, times latents per token."""
    return int(patch * 2 ** (len(vae["block_out_channels"]) - 1))


def resolution_misfit(resolution: int, block: int) -> str | None:
    """Why images of a size cannot be encoded, or None."""
    if resolution % block == 0:
        return None
    return (
        f"resolution={resolution}: the model works in blocks of {block} pixels; give a multiple of "
        f"{block}, best the size that the model was made for"
    )


def check_vae(vae: AutoencoderKL, vae_folder: Path, folder: Path, family: Family) -> None:
    """Refuse a separate VAE whose latents are scaled for another family.

    Args:
        vae, vae_folder: as loaded, and where from.
        folder: of the model, whose own VAE's configuration says what its denoiser expects.
        family: whose denoisers' scale counts where that configuration is not there.

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
            f"{vae.config.scaling_factor}, the {family.denoiser} of {folder} expects {expected}: "
            "it belongs to another family"
        )
