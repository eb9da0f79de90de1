"""Which model to draw with: a run, a folder, a hub id, or weights alone on their base.

Finding and naming mistakes is free of torch; only `open_model` imports it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sdpo_exp.cli.checkpoints.adapters import put_adapters
from sdpo_exp.cli.checkpoints.hub_models import from_hub, is_whole
from sdpo_exp.cli.checkpoints.pipelines import (
    ADAPTERS,
    INDEX,
    find_model,
    load_base,
    load_pipeline,
)
from sdpo_exp.errors import UserError, first_line

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from omegaconf import DictConfig

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
_WEIGHTS = (".pth", ".pt", ".bin", ".safetensors")


@dataclass(frozen=True)
class ModelChoice:
    """What a user names.

    Attributes:
        checkpoint: a run's folder, a model's, a hub id, or weights alone: the public `unet.pth`,
            another file of a UNet's weights, a `unet/` folder, or a LoRA. None: `base` itself, or
            the embedded base.
        base: hub id or folder that weights alone belong to.
        revision: of the hub id that is loaded.
        vae: hub id or folder of a VAE in place of the model's own.
    """

    checkpoint: str | None = None
    base: str | None = None
    revision: str | None = None
    vae: str | None = None

    @classmethod
    def of(cls, config: DictConfig) -> ModelChoice:
        """What a command's keys name."""
        return cls(config.checkpoint, config.base, config.revision, config.vae)

    @property
    def path(self) -> Path | None:
        """The checkpoint as a path; None without one, or where nothing is there."""
        path = Path(self.checkpoint).expanduser() if self.checkpoint is not None else None
        return path if path is not None and path.exists() else None

    @property
    def weights_alone(self) -> Path | None:
        """The checkpoint's path, if it holds weights that need a base."""
        return self.path if self.path is not None and _is_weights_alone(self.path) else None

    @property
    def run(self) -> Path | None:
        """The run's folder, if the checkpoint is one.

        Raises:
            UserError: there is something at its path, but no model.
        """
        whole = self.path if self.weights_alone is None else None
        return find_model(whole).run if whole is not None else None

    @property
    def on_hub(self) -> tuple[str, str] | None:
        """Key and id of what must come from the hub or its cache; None: nothing."""
        if self.checkpoint is not None and self.path is None:
            return "checkpoint", self.checkpoint
        needs_base = self.checkpoint is None or self.weights_alone is not None
        if self.base is not None and needs_base and not Path(self.base).expanduser().exists():
            return "base", self.base
        return None

    @property
    def name(self) -> str:
        """A short one: a run's cell, else the last part of a path or id."""
        source = self.checkpoint or self.base
        if source is None:
            return "base"
        path = Path(source).expanduser()
        if (path / "config.yaml").is_file():
            return path.resolve().parent.name
        return path.resolve().parent.name if path.is_file() else path.name


@dataclass(frozen=True)
class OpenedModel:
    """A pipeline in eval mode on its device, and what identifies it."""

    pipeline: DiffusionPipeline
    identity: dict[str, Any]


def problems(choice: ModelChoice) -> list[str]:
    """What is wrong with a choice, as far as paths tell."""
    if choice.revision is not None and choice.on_hub is None:
        return ["revision: nothing comes from the hub here; leave it out"]
    if choice.checkpoint is None:
        return []
    if choice.weights_alone is not None:
        return [] if choice.base is not None else [_needs_base(choice.checkpoint)]
    if choice.path is None and _looks_like_id(choice.checkpoint):
        return []
    try:
        find_model(choice.checkpoint)
    except UserError as error:
        return [f"checkpoint={error}"]
    return []


def absent(choice: ModelChoice) -> list[str]:
    """What of a choice is on the hub only and cannot be had; loads nothing."""
    from sdpo_exp import hub
    from sdpo_exp.models.checkpoint_folder import absent_model

    found: list[str] = []
    if choice.on_hub is not None:
        key, name = choice.on_hub
        why = hub.absence(name, "model", choice.revision, is_whole)
        found += [f"{key}: {why}; or give a local folder"] if why else []
    if choice.vae is not None:
        why = absent_model("vae", choice.vae, None, (), "vae=/path/to/vae")
        found += [why] if why else []
    return found


def open_model(
    choice: ModelChoice, device: str, dtype: Dtype = "auto", *, base_of_run: bool = False
) -> OpenedModel:
    """Load, move, and say what it is.

    Denoiser and text encoders are of `dtype` (`auto`: float32 on the CPU, else bfloat16), a VAE of
    float32 in any case, as in the public evaluation.

    Args:
        choice: the model.
        device: where to.
        dtype: of denoiser and text encoders.
        base_of_run: of a run's folder, the model that it began with.

    Raises:
        UserError: it cannot be had or loaded.
    """
    import torch

    from sdpo_exp.cli.checkpoints.model_identity import hashes

    pipeline, commit = _load(choice, base_of_run=base_of_run)
    if choice.vae is not None:
        _replace_vae(pipeline, choice.vae)
    whole = choice.checkpoint is not None and choice.weights_alone is None
    told = asdict(choice) | ({"base": None} if whole else {})  # which was not looked at
    identity = {**told, "commit": commit, **hashes(pipeline)}
    kind = _dtype_on(device) if dtype == "auto" else getattr(torch, dtype)
    if device.startswith("cuda"):
        # Otherwise float32 convolutions are rounded to TF32, by other amounts in other batches.
        torch.backends.cudnn.allow_tf32 = False
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
            # The plain method: diffusers' own warns of layers to keep in float32; there are none.
            torch.nn.Module.to(part, device, torch.float32 if name == "vae" else kind)
    pipeline.set_progress_bar_config(disable=True)
    return OpenedModel(pipeline, {**identity, "dtype": str(kind).removeprefix("torch.")})


def _dtype_on(device: str) -> Any:
    import torch

    return torch.float32 if device == "cpu" else torch.bfloat16


# -- loading -----------------------------------------------------------------------------------


def _load(choice: ModelChoice, *, base_of_run: bool) -> tuple[Any, str | None]:
    """The pipeline in float32 on the CPU, and the commit of a hub id."""
    if base_of_run:
        assert choice.run is not None
        return load_base(choice.run), None
    if choice.path is not None and choice.weights_alone is None:
        return load_pipeline(choice.path), None
    if choice.on_hub is not None:
        pipeline, commit = from_hub(choice.on_hub[1], choice.revision)
    else:
        pipeline, commit = load_pipeline(choice.base), None
    if choice.weights_alone is not None:
        _put_weights(pipeline, choice.weights_alone)
    return pipeline, commit


def _replace_vae(pipeline: Any, source: str) -> None:
    import torch
    from diffusers import AutoencoderKL

    from sdpo_exp.models.checkpoint_folder import load_part, locate_vae

    if not hasattr(pipeline, "vae"):
        raise UserError(f"vae={source}: {type(pipeline).__name__} has no VAE; leave it out")
    pipeline.vae = load_part(AutoencoderKL, locate_vae(source), torch.float32)


def _put_weights(pipeline: Any, path: Path) -> None:
    """A UNet's weights, or a LoRA's, into the base's pipeline."""
    from sdpo_exp.cli.checkpoints.model_identity import denoiser
    from sdpo_exp.models.unet_file import load_into

    if not _is_lora(path):
        load_into(denoiser(pipeline), path)
        return
    folder, name = (path, ADAPTERS) if path.is_dir() else (path.parent, path.name)
    try:
        put_adapters(pipeline, folder, name)
    except Exception as error:
        raise UserError(f"checkpoint={path}: not a LoRA of its base: {first_line(error)}") from None
    if not any("lora_" in parameter for parameter, _ in denoiser(pipeline).named_parameters()):
        kind = type(denoiser(pipeline)).__name__
        raise UserError(f"checkpoint={path}: holds no LoRA of its base's {kind}")


def _is_weights_alone(path: Path) -> bool:
    """A file of weights, a `unet/` folder or one with `unet.pth`, or adapters without their run."""
    if path.is_file():
        return path.suffix in _WEIGHTS
    if (path / INDEX).is_file() or (path / "config.yaml").is_file() or (path / "model").is_dir():
        return False
    if (path / ADAPTERS).is_file():
        return not (path.resolve().parent / "config.yaml").is_file()
    lone = ("diffusion_pytorch_model.safetensors", "unet.pth")
    folders = [path, path / "unet"] if not (path / "scheduler").is_dir() else []
    return any((folder / name).is_file() for folder in folders for name in lone)


def _is_lora(path: Path) -> bool:
    if path.is_dir():
        return (path / ADAPTERS).is_file()
    if path.suffix != ".safetensors":
        return False
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return any("lora" in name.lower() for name in file.keys())  # noqa: SIM118
    except Exception as error:
        raise UserError(f"checkpoint={path}: cannot be read ({first_line(error)})") from None


def _looks_like_id(name: str) -> bool:
    """`owner/name`; a path of the user's that is not there has more or fewer parts, as a rule."""
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and parts[0] not in (".", "..", "~", "outputs")


def _needs_base(checkpoint: str) -> str:
    return (
        f"checkpoint={checkpoint}: weights alone, which need their base: give base=<hub id or "
        "folder of the model they were tuned from>, or a protocol that names it "
        "(protocol=sdpo_sd15, protocol=sdpo_sdxl)"
    )
