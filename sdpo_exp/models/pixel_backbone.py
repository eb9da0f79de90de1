"""What the embedded world's models share: pixel-unshuffle for a VAE, a small text encoder.

A family names its network's class, its pipeline and its shipped weights; the folder layout is that
of a diffusers pipeline, so the code paths are the ones that real checkpoints take.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from sdpo_exp.errors import UserError
from sdpo_exp.models import tiny_pipeline
from sdpo_exp.models.lora import merged
from sdpo_exp.protocols import ForwardProcess, NoiseDraw
from sdpo_exp.types import Conditioning, Geometry

# Weights that ship with the package, by name: of a training that ended after minutes.
Base: TypeAlias = Literal["unfinished"]
MAX_TOKENS = 16
UNSHUFFLE = 2


class PixelBackbone:
    """A denoiser of pixel-unshuffled images, its text encoder and its forward process.

    Args:
        pretrained: a folder with `PARTS`; None takes weights that ship with the package.
        base: which of these.

    Attributes:
        SHIPPED: folders of the shipped weights.
        PARTS: folders of a checkpoint, the network's first.
        PIPELINE, NETWORK, SCHEDULER: classes of diffusers' kind.
        FIRST_WEIGHT: a weight of the network by name, whose dtype is the base's whatever adapters
            the network carries.

    Raises:
        UserError: the folder is missing or incomplete.
    """

    SHIPPED: ClassVar[Mapping[Base, Path]]
    PARTS: ClassVar[tuple[str, ...]]
    PIPELINE: ClassVar[Any]
    NETWORK: ClassVar[Any]
    SCHEDULER: ClassVar[Any]
    FIRST_WEIGHT: ClassVar[str]

    def __init__(self, pretrained: str | None = None, base: Base = "unfinished") -> None:
        folder = self.SHIPPED[base] if pretrained is None else Path(pretrained)
        _check_folder(folder, self.PARTS)
        network = self.NETWORK.from_pretrained(
            folder / self.PARTS[0],
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,  # the other way wants accelerate, and warns without it
        )
        text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
        self._hold(network, text, tokenizer, self.SCHEDULER.from_pretrained(folder / "scheduler"))

    @classmethod
    def from_parts(
        cls,
        denoiser: nn.Module,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerFast,
        scheduler: Any,
    ) -> Self:
        """A backbone of parts in memory."""
        backbone = cls.__new__(cls)
        backbone._hold(denoiser, text_encoder, tokenizer, scheduler)
        return backbone

    def _hold(
        self,
        denoiser: nn.Module,
        text_encoder: CLIPTextModel,
        tokenizer: PreTrainedTokenizerFast,
        scheduler: Any,
    ) -> None:
        self.denoiser = denoiser
        self.text_encoder = text_encoder.requires_grad_(False).eval()
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.process = self._process()

    def _process(self) -> ForwardProcess:
        """The forward process that the network was trained under."""
        raise NotImplementedError

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
        return {"text": self._read(prompts).last_hidden_state}

    def _read(self, prompts: Sequence[str]) -> Any:
        """What the text encoder makes of N prompts."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device))

    def denoise(self, network: nn.Module, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """Prediction (N, 12, 16, 16) of `network`."""
        raise NotImplementedError

    def pipeline(self, network: nn.Module | None = None) -> Any:
        """A diffusers pipeline around `network`, by default the denoiser; it shares the parts.

        It computes in float32: of a network in half precision it gets a copy.
        """
        network = network or self.denoiser
        if self.base_dtype(network) != torch.float32:
            network = nn.Module.to(copy.deepcopy(network), torch.float32)
        return self._around(network)

    def _around(self, network: nn.Module) -> Any:
        pipeline = self.PIPELINE(network, self.text_encoder, self.tokenizer, self.scheduler)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def save(self, folder: Path) -> None:
        """Write a diffusers pipeline folder, which loads with or without this package.

        Without it: `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`, which runs
        the folder's `pipeline.py`. Adapters are merged into the weights, which are float32.
        """
        self._write(self.pipeline(merged(self.denoiser)), folder)

    def save_half(self, folder: Path) -> None:
        """The same with float16 weights; the parts in memory are converted, too."""
        self.denoiser.half()
        self.text_encoder.half()
        self._write(self._around(self.denoiser), folder)

    @staticmethod
    def _write(pipeline: Any, folder: Path) -> None:
        pipeline.save_pretrained(folder)
        shutil.copyfile(tiny_pipeline.__file__, folder / "pipeline.py")
        index_file = folder / "model_index.json"
        index = json.loads(index_file.read_text())
        index["_class_name"] = ["pipeline", index["_class_name"]]
        index_file.write_text(json.dumps(index, indent=2) + "\n")

    @classmethod
    def base_dtype(cls, network: nn.Module) -> torch.dtype:
        """Of the weights, whatever adapters they carry."""
        return network.get_parameter(cls.FIRST_WEIGHT).dtype


def _check_folder(folder: Path, parts: Sequence[str]) -> None:
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise UserError(
            f"model.pretrained={folder}: no such model folder, or it lacks {', '.join(missing)}. "
            f"Give a folder with {'/, '.join(parts[:-1])}/ and {parts[-1]}/, or leave "
            "model.pretrained=null for the weights that ship with the package."
        )
