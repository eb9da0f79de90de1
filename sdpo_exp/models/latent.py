"""What latent families share: a frozen VAE and text encoders around a UNet or a transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import diffusers
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from torch import Tensor, nn

from sdpo_exp import hub
from sdpo_exp.bounds import PositiveInt
from sdpo_exp.errors import UserError
from sdpo_exp.models import checkpoint_folder, lora
from sdpo_exp.models.families import check_vae
from sdpo_exp.models.frozen_work import EmptyPrompt, FrozenWork
from sdpo_exp.models.vae_latents import Latents, Loading, VaeDtype, vae_dtype_on
from sdpo_exp.protocols import ForwardProcess
from sdpo_exp.types import Conditioning

TextDtype = Literal["float32", "bfloat16", "float16"]


class LatentBackbone(FrozenWork):
    """A denoiser in the latent space of a VAE, loaded from a pipeline folder in diffusers' layout.

    A family declares `FAMILY` (a call with literal arguments, which is read without importing the
    file) and its pipeline's class, and implements `_process`, `_load_text`, `_encode_text`,
    `_text_parts` and `_predict`; `latent_unet.LatentUNet` has what families with a UNet share.

    Args:
        pretrained: hub id or folder.
        revision: branch, tag or commit of a hub id.
        variant: of the weight files, such as fp16.
        vae: hub id or folder of another VAE; None: the checkpoint's own.
        latents: `sample` the VAE's posterior, as published, with noise that belongs to the pair,
            or take its `mode`.
        empty_prompt: `encoded`, as published, or `zeros`, as SDXL's stock pipeline has it.
        vae_dtype: `auto`: float16 on CUDA for a VAE whose configuration allows it (`force_upcast`
            false, as in sdxl-vae-fp16-fix), else float32.
        text_dtype: of the frozen text encoders.
        encode_batch: images per pass of the VAE, and prompts per pass of the text encoders; on the
            CPU they pass one by one.
        loading: of the denoiser, the VAE and the text encoders: `on_demand` when first asked for.

    Raises:
        UserError: a part cannot be had or does not fit; the message names it.
    """

    PIPELINE: ClassVar[type[DiffusionPipeline]]
    denoiser: nn.Module
    _device: torch.device | None = None

    def __init__(
        self,
        pretrained: str,
        revision: str | None = None,
        variant: str | None = None,
        vae: str | None = None,
        latents: Latents = "sample",
        empty_prompt: EmptyPrompt = "encoded",
        vae_dtype: VaeDtype = "auto",
        text_dtype: TextDtype = "float32",
        encode_batch: PositiveInt = 8,
        loading: Loading = "at_once",
    ) -> None:
        parts = self.FAMILY.parts_needed(vae)
        self.folder = checkpoint_folder.locate_model(
            "model.pretrained", pretrained, revision, variant, parts
        )
        self.origin = {"pretrained": pretrained, "commit": hub.commit(self.folder)}
        self._variant, self._text_dtype = variant, getattr(torch, text_dtype)
        self._latents, self._empty_prompt = latents, empty_prompt
        self._encode_batch, self._vae_dtype = encode_batch, vae_dtype
        self._vae_folder = checkpoint_folder.locate_vae(vae) if vae else self.folder / "vae"
        self._vae_variant = None if vae else variant
        if problem := self.FAMILY.mismatch(self.folder, self._vae_folder):
            raise UserError(problem)
        scheduler = checkpoint_folder.read_json(self.folder / "scheduler/scheduler_config.json")
        self.scheduler_class = _scheduler_class(scheduler, self.folder)
        self.scheduler_config = scheduler
        self.process = self._process()
        if loading == "at_once":
            self.denoiser = self._load_denoiser()
            self.vae = self._load_vae()
            self._load_text(self._text_dtype)

    @classmethod
    def absent(
        cls,
        pretrained: str,
        revision: str | None = None,
        variant: str | None = None,
        vae: str | None = None,
        **_: Any,
    ) -> str | None:
        """Why the model or its separate VAE cannot be had; None where nothing speaks against it."""
        found = [
            checkpoint_folder.absent_model(
                "model.pretrained", pretrained, revision, cls.FAMILY.parts_needed(vae),
                "model.pretrained=/path/to/folder", variant,
            )
        ]  # fmt: skip
        if vae is not None:
            found.append(
                checkpoint_folder.absent_model(
                    "model.vae", vae, None, (), "model.vae=/path/to/vae (null: the model's own)"
                )
            )
        return "\n".join(filter(None, found)) or None

    # -- loading --------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """A part that is loaded when it is first asked for."""
        if name == "denoiser":
            self.denoiser = self._load_denoiser()
        elif name == "vae":
            self.vae = self._load_vae()
        elif name in self.FAMILY.text_parts and "_text_dtype" in vars(self):
            self._load_text(self._text_dtype)
        if name not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        if self._device is not None and name != "denoiser":
            self.to(self._device)
        return vars(self)[name]

    def _load_denoiser(self) -> nn.Module:
        kind = getattr(diffusers, self.FAMILY.network)
        network: nn.Module = checkpoint_folder.load_part(
            kind, self.folder / self.FAMILY.part, torch.float32, self._variant
        )
        return network

    def _load_vae(self, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
        vae: AutoencoderKL = checkpoint_folder.load_part(
            AutoencoderKL, self._vae_folder, dtype, self._vae_variant
        )
        if self._vae_dtype == "float16" and vae.config.force_upcast:
            raise UserError(
                f"model.vae_dtype=float16: the VAE of {self._vae_folder} overflows in float16 "
                "(force_upcast in its configuration). Take model.vae_dtype=auto, or a VAE made "
                "for it, such as model.vae=madebyollin/sdxl-vae-fp16-fix for SDXL."
            )
        check_vae(vae, self._vae_folder, self.folder, self.FAMILY)
        return vae.requires_grad_(False).eval()

    def _load_text(self, dtype: torch.dtype) -> None:
        """Set the tokenizers and the frozen text encoders, from `self.folder`."""
        raise NotImplementedError

    # -- the Backbone protocol ------------------------------------------------------------------

    def to(self, device: torch.device) -> None:
        """Move the frozen parts, each in its dtype."""
        self._device = device
        if "vae" in vars(self):
            # The plain method: diffusers' own warns about layers to keep in float32; none here.
            nn.Module.to(self.vae, device, vae_dtype_on(self.vae, self._vae_dtype, device))
        if any(name in vars(self) for name in self.FAMILY.text_parts):
            for encoder in self._text_encoders():
                encoder.to(device)

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Prediction (N, C, h, w) of `network` at t (N,), which are the process's."""
        # Half-precision weights outside autocast take inputs of their own dtype only.
        dtype = next(network.parameters()).dtype
        cast = {
            name: rows.to(dtype) if rows.is_floating_point() else rows
            for name, rows in cond.items()
        }
        return self._predict(network, x_t.to(dtype), t, cast)

    def pipeline(self) -> DiffusionPipeline:
        """The family's diffusers pipeline around the denoiser as it is; it shares the parts."""
        return self._pipeline(self.denoiser, self.vae, self._text_parts())

    def save(self, folder: Path) -> None:
        """Write a complete pipeline folder in safetensors, adapters merged.

        Frozen parts are read again from the base in float32: what is written was never rounded.
        """
        network = lora.merged(self.denoiser)
        vae, text = self._load_vae(), self._fresh_text_parts()
        self._pipeline(network, vae, text).save_pretrained(folder, safe_serialization=True)

    def save_lora(self, folder: Path) -> None:
        """Write the adapters alone as `pytorch_lora_weights.safetensors`, rank and alpha with them.

        Raises:
            ValueError: the denoiser has no adapters.
        """
        lora.write_adapters(self.denoiser, folder, self.FAMILY.part)

    # -- what a family implements ---------------------------------------------------------------

    def _process(self) -> ForwardProcess:
        """Of `self.scheduler_config`, which is the checkpoint's own."""
        raise NotImplementedError

    def _predict(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """`denoise`, of inputs in the network's own dtype."""
        raise NotImplementedError

    def _text_parts(self) -> dict[str, Any]:
        """Tokenizers and text encoders by the names that the pipeline gives them."""
        raise NotImplementedError

    def _text_encoders(self) -> list[Any]:
        return [part for part in self._text_parts().values() if isinstance(part, nn.Module)]

    def _fresh_text_parts(self) -> dict[str, Any]:
        kept = dict(self._text_parts())
        self._load_text(torch.float32)
        fresh = self._text_parts()
        for name, part in kept.items():
            setattr(self, name, part)
        return fresh

    def _pipeline(self, network: nn.Module, vae: nn.Module, text: Any) -> DiffusionPipeline:
        scheduler = self.scheduler_class.from_config(self.scheduler_config)
        parts = {self.FAMILY.part: network, "vae": vae, "scheduler": scheduler, **text}
        pipeline = self.PIPELINE(**parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _scheduler_class(config: dict[str, Any], folder: Path) -> Any:
    name = config.get("_class_name", "DDPMScheduler")
    found = getattr(diffusers, name, None)
    if found is None:
        raise UserError(f"{folder}/scheduler: diffusers has no scheduler {name}")
    return found
