"""What Stable Diffusion's families share: a UNet, and the checkpoint's own betas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler
from torch import Tensor, nn

from sdpo_exp.models import unet_file
from sdpo_exp.models.forward_process import VPProcess
from sdpo_exp.models.latent import LatentBackbone
from sdpo_exp.types import Conditioning


class LatentUNet(LatentBackbone):
    """A UNet in the latent space of a VAE; a family adds `_unet_arguments` to what the base asks.

    What the UNet predicts (epsilon or v) and its betas are the checkpoint's own scheduler
    configuration.

    Args:
        pretrained: hub id or folder.
        unet: a file or folder of other UNet weights (`unet.pth`, safetensors, diffusers' `unet/`).
        options: `LatentBackbone`'s, by name.

    Raises:
        UserError: a part cannot be had or does not fit; the message names it.
    """

    def __init__(self, pretrained: str, *, unet: str | None = None, **options: Any) -> None:
        self._unet = unet
        super().__init__(pretrained, **options)
        self.origin = {**self.origin, "unet": unet}

    @classmethod
    def absent(
        cls,
        pretrained: str,
        revision: str | None = None,
        variant: str | None = None,
        vae: str | None = None,
        unet: str | None = None,
        **_: Any,
    ) -> str | None:
        """Why the model, its VAE or its UNet's weights cannot be had; None: nothing against it."""
        found = [super().absent(pretrained, revision, variant, vae)]
        if unet is not None and not Path(unet).expanduser().exists():
            found.append(f"model.unet={unet}: no such file or folder")
        return "\n".join(filter(None, found)) or None

    def _process(self) -> VPProcess:
        noise = DDPMScheduler.from_config(self.scheduler_config)
        return VPProcess(noise.alphas_cumprod, noise.config.prediction_type)

    def _load_denoiser(self) -> nn.Module:
        network = super()._load_denoiser()
        if self._unet is not None:
            unet_file.load_into(network, Path(self._unet).expanduser())
        return network

    def _predict(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        prediction: Tensor = network(x_t, t, **self._unet_arguments(cond)).sample
        return prediction

    def _unet_arguments(self, cond: Conditioning) -> dict[str, Any]:
        raise NotImplementedError
