"""Ovis-U1, text to image and editing: a native Yak transformer, a frozen VAE and text side.

Loaded from a folder in the released layout, and written back to one. No code of the folder is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from sdpo_exp import hub
from sdpo_exp.bounds import PositiveInt
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.models import checkpoint_folder, lora, ovis_files
from sdpo_exp.models.flow_process import FlowProcess, Shift
from sdpo_exp.models.frozen_work import VaeWork
from sdpo_exp.models.ovis_conditions import (
    EditConditions,
    edit_conditions,
    padded,
    pixels_of,
    states,
    stretched,
    velocity,
)
from sdpo_exp.models.ovis_files import BACKBONE, CONFIG, GENERATOR, OvisU1Files
from sdpo_exp.models.ovis_pipeline import OvisU1Pipeline
from sdpo_exp.models.ovis_text.encoder import OvisTextEncoder
from sdpo_exp.models.vae_latents import (
    Latents,
    Loading,
    VaeDtype,
    vae_dtype_on,
)
from sdpo_exp.models.yak.checkpoint import VAE, read_config, read_prefix, write_prefixed
from sdpo_exp.models.yak.config import YakConfig
from sdpo_exp.models.yak.network import YakTransformer
from sdpo_exp.protocols import NoiseDraw
from sdpo_exp.types import Conditioning, Geometry

TextDtype = Literal["float32", "bfloat16"]
_KEY = "model.pretrained"
_PARTS = ("denoiser", "vae", "text_encoder")


class OvisU1(VaeWork):
    """Ovis-U1 as a text-to-image model whose Yak transformer is tuned.

    Args:
        pretrained: hub id or folder in the released layout.
        revision: branch, tag or commit of a hub id.
        latents: `sample` the VAE's posterior, with noise that belongs to the pair, or its `mode`.
        vae_dtype: `auto`: float16 on CUDA where the VAE's configuration allows it, else float32.
        text_dtype: of the frozen language model and ViT; the released model's is bfloat16.
        encode_batch: images per pass of the VAE.
        process: of the training's times; shifts by resolution that it leaves out (None) are the
            checkpoint's own. None: logit-normal(0, 1), shifted as the sampler's times are. What
            Ovis-U1 itself was trained with is not published.
        loading: of transformer, VAE and text side: `on_demand` when first asked for.

    Raises:
        UserError: a part cannot be had or does not fit; the message names it.
    """

    FAMILY = OvisU1Files()
    denoiser: YakTransformer
    text_encoder: OvisTextEncoder
    _device: torch.device | None = None

    def __init__(
        self,
        pretrained: str,
        revision: str | None = None,
        latents: Latents = "sample",
        vae_dtype: VaeDtype = "auto",
        text_dtype: TextDtype = "bfloat16",
        encode_batch: PositiveInt = 8,
        process: FlowProcess | None = None,
        loading: Loading = "at_once",
    ) -> None:
        self.folder = hub.locate(pretrained, "model", revision, ovis_files.wanted)
        self.origin = {"pretrained": pretrained, "commit": hub.commit(self.folder)}
        self._latents, self._vae_dtype, self._encode_batch = latents, vae_dtype, encode_batch
        self._text_dtype = getattr(torch, text_dtype)
        self._config = config = read_config(self.folder)
        self.process = (process or _usual_process(config)).completed(
            config.base_shift, config.max_shift
        )
        if loading == "at_once":
            for part in _PARTS:
                getattr(self, part)

    def __getattr__(self, name: str) -> Any:
        """A part that is loaded when it is first asked for."""
        if name not in _PARTS or "_config" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        part = vars(self)[name] = getattr(self, f"_load_{name}")()
        if self._device is not None and name != "denoiser":
            self.to(self._device)
        return part

    def _load_denoiser(self) -> YakTransformer:
        network = YakTransformer(self._config)
        _load(network, read_prefix(self.folder, BACKBONE), self.folder, BACKBONE)
        return network

    def _load_vae(self) -> AutoencoderKL:
        return _load_vae(self.folder)

    def _load_text_encoder(self) -> OvisTextEncoder:
        encoder = OvisTextEncoder.from_folder(self.folder, self._text_dtype)
        if encoder.width != (read := self._config.context_in_dim):
            raise UserError(
                f"{self.folder}: its text side makes states of width {encoder.width}, "
                f"its generator reads {read}"
            )
        return encoder

    @classmethod
    def absent(cls, pretrained: str, revision: str | None = None, **_: Any) -> str | None:
        """Why the model cannot be had; None where nothing speaks against it."""
        files, path = cls.FAMILY, hub.local_path(pretrained)
        if path is not None and (lacks := files.missing(path)):
            return f"{_KEY}={pretrained}: the folder lacks {', '.join(lacks)} of Ovis-U1"
        reason = hub.absence(pretrained, "model", revision, lambda at: not files.missing(at))
        return None if reason is None else f"{_KEY}: {reason}; or {_KEY}=/path/to/folder"

    # -- the Backbone protocol ------------------------------------------------------------------

    def to(self, device: torch.device) -> None:
        """Move the frozen parts, each in its dtype."""
        self._device = device
        if "vae" in vars(self):
            nn.Module.to(self.vae, device, vae_dtype_on(self.vae, self._vae_dtype, device))
        if "text_encoder" in vars(self):
            self.text_encoder.to(device)

    def encode_prompts(self, prompts: Sequence[str], geometry: Sequence[Geometry]) -> Conditioning:
        """`text` (N, L, width), and `mask` (N, L) where texts differ in length.

        The blank image beside a prompt has the size of the pair's. An empty prompt is the model's
        own request for any image, which guidance leads away from.
        """
        return self.conditions(self.encode_texts(prompts, geometry), geometry)

    # -- the CachedWork protocol ----------------------------------------------------------------

    @torch.no_grad()
    def posterior(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> float32 mean and deviation (N, 2, 4, h, w) of the VAE.

        Raises:
            UserError: height or width is no multiple of 16.
        """
        for side in pixels.shape[-2:]:
            if side % 16:
                raise UserError(f"resolution={side}: give a multiple of 16 for Ovis-U1")
        return super().posterior(pixels)

    def encode_texts(
        self, prompts: Sequence[str], geometry: Sequence[Geometry]
    ) -> list[dict[str, Tensor]]:
        """`text` (L_i, width) of each prompt beside a blank image of its size."""
        asked = list(map(_kind_of, prompts, geometry))
        rows: dict[int, Tensor] = {}
        for size, kind in dict.fromkeys(asked):
            chosen = [i for i, one in enumerate(asked) if one == (size, kind)]
            found = states(self.text_encoder, [prompts[i] for i in chosen], size, kind)
            rows |= zip(chosen, found, strict=True)
        return [{"text": rows[i]} for i in range(len(prompts))]

    def conditions(
        self, texts: Sequence[Mapping[str, Tensor]], geometry: Sequence[Geometry]
    ) -> Conditioning:
        """Texts side by side, padded where they differ in length."""
        del geometry
        return padded([text["text"] for text in texts])

    def frozen_files(self) -> dict[str, str]:
        """sha256 by name of the folder's files: one holds all parts."""
        return checkpoint_folder.hashes(self.folder, (".",), called="model")

    @cached_property
    def _stored_vae_config(self) -> Mapping[str, Any]:
        config = checkpoint_folder.read_json(self.folder / CONFIG)
        found: Mapping[str, Any] = config[GENERATOR]["vae_config"]
        return found

    @torch.no_grad()
    def encode_edits(
        self, instructions: Sequence[str], sources: Sequence[Image.Image], draw: NoiseDraw
    ) -> EditConditions:
        """Conditions of edits, which `denoise` takes, each with a row per instruction.

        No data of this package has pairs of edits yet: training does not call it.

        Args:
            instructions: N of them.
            sources: N pictures whose edit size is one; the edited images have it, too.
            draw: as for `encode_images`, of the sources' posterior.

        Raises:
            UserError: sources of several sizes, or a placeholder in an instruction.
        """
        pictures = stretched(sources)
        pixels = pixels_of(pictures).to(self.vae.device)
        source = self.encode_images(pixels, draw)
        return edit_conditions(self.text_encoder, instructions, pictures, source)

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Velocity (N, 4, h, w) of `network` at times t (N,) in (0, 1), of either task."""
        assert isinstance(network, YakTransformer)
        return velocity(network, x_t, t, cond)

    def pipeline(self) -> OvisU1Pipeline:
        """A text-to-image sampler around the denoiser as it is; it shares the parts."""
        return OvisU1Pipeline(self.denoiser, self.vae, self.text_encoder)

    def save(self, folder: Path) -> None:
        """Write a folder in the released layout with the tuned transformer, adapters merged.

        The transformer's tensors are float32, for half precision would round away most of what
        tuning changed; all others are the base's, and so are the other files.
        """
        state = lora.merged(self.denoiser).state_dict()
        named = {f"{BACKBONE}{name}": tensor.cpu() for name, tensor in state.items()}
        write_prefixed(self.folder, folder, named, torch.float32)

    def save_lora(self, folder: Path) -> None:
        """Write the adapters alone, with peft's configuration in the file's metadata.

        Raises:
            ValueError: the denoiser has no adapters.
        """
        lora.write_adapters(self.denoiser, folder, "transformer")


def _kind_of(
    prompt: str, place: Geometry
) -> tuple[tuple[int, int], Literal["t2i", "unconditional"]]:
    return (place.height, place.width), "t2i" if prompt else "unconditional"


def _usual_process(config: YakConfig) -> FlowProcess:
    shift: Shift = "resolution" if config.timestep_shift else "none"
    return FlowProcess("logit_normal", shift=shift, base_shift=None, max_shift=None)


def _load(module: nn.Module, state: dict[str, Tensor], folder: Path, prefix: str) -> None:
    """Strictly; what does not fit is named."""
    try:
        module.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise UserError(f"{folder}: {prefix}*: {' '.join(lines)}") from None


def _load_vae(folder: Path) -> AutoencoderKL:
    content = checkpoint_folder.read_json(folder / CONFIG)
    words = content[GENERATOR].get("vae_config")
    try:
        vae: AutoencoderKL = AutoencoderKL.from_config(words)
    except Exception as error:
        raise UserError(
            f"{folder / CONFIG}: vae_config describes no VAE ({first_line(error)})"
        ) from None
    _load(vae, read_prefix(folder, VAE), folder, VAE)
    return vae.requires_grad_(False).eval()
