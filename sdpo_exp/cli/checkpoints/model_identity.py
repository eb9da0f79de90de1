"""What identifies a pipeline, whatever it was loaded from: hashes of its networks' weights."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from sdpo_exp.errors import UserError
from sdpo_exp.generation.noise import denoiser_of

# Parts of a pipeline that no image depends on.
NOT_NEEDED = ("safety_checker", "feature_extractor", "image_encoder")


def weights_hash(network: nn.Module) -> str:
    """sha256 over names and values of a network's weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        plain = value.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(plain.view(torch.uint8).numpy()))
    return digest.hexdigest()


def hashes(pipeline: Any) -> dict[str, Any]:
    """Of the denoiser (`weights`), and of every network that an image depends on."""
    parts = {
        name: weights_hash(part)
        for name, part in pipeline.components.items()
        if isinstance(part, nn.Module) and name not in NOT_NEEDED
    }
    network = denoiser(pipeline)
    (name,) = (n for n, part in pipeline.components.items() if part is network)
    return {"weights": parts[name], "parts": parts}


def denoiser(pipeline: Any) -> Any:
    """The network that preference training changes.

    Raises:
        UserError: the pipeline has none.
    """
    network = denoiser_of(pipeline)
    if network is None:
        raise UserError(f"{type(pipeline).__name__} has neither a unet nor a transformer")
    return network
