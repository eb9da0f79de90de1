"""From a run's folder to the policy of one of its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config.later_keys import with_harmless
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.models.ovis_files import is_released

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sdpo_exp.protocols import Backbone

_EXPECTED = "Give a run's folder, or a .ckpt file in its checkpoints/"
_POLICY = "policy."


class Source(NamedTuple):
    """A run and the checkpoint of it that is meant."""

    run: Path
    checkpoint: Path


def find_source(path: Path, weights: str) -> Source:
    """What `checkpoint=path weights=...` means; reads no weights and imports no torch.

    Raises:
        UserError: no run there, or no such checkpoint in it.
    """
    path = path.expanduser()
    if not path.exists():
        raise UserError(f"checkpoint={path}: no such file or folder. {_EXPECTED}")
    if path.is_file():
        return _of_a_file(path, weights)
    if not (path / "config.yaml").is_file():
        what = "a model's folder, exported already" if _is_model(path) else "no run's folder"
        raise UserError(f"checkpoint={path}: {what}: it has no config.yaml. {_EXPECTED}")
    folder = path / "checkpoints"
    best = folder / "best.ckpt"
    if weights == "best":
        if not best.is_file():
            raise UserError(
                f"weights=best: there is no {best}; a run keeps one with callbacks=[default,best]"
            )
        return Source(path, best)
    found = sorted(set(folder.glob("*.ckpt")) - {best}, key=lambda file: file.stat().st_mtime)
    if not found:
        advice = "; weights=best takes the best" if best.is_file() else ""
        raise UserError(f"checkpoint={path}: no checkpoint in {folder}{advice}")
    return Source(path, found[-1])


def _of_a_file(file: Path, weights: str) -> Source:
    run = file.parent.parent
    if file.parent.name != "checkpoints" or not (run / "config.yaml").is_file():
        raise UserError(
            f"checkpoint={file}: not in the checkpoints/ of a run, whose config.yaml says what "
            f"model the weights belong to. {_EXPECTED}"
        )
    if weights == "best" and file.name != "best.ckpt":
        raise UserError(f"weights=best: checkpoint={file} is another; give the run's folder: {run}")
    return Source(run, file)


def _is_model(path: Path) -> bool:
    files = ("model_index.json", "pytorch_lora_weights.safetensors", "unet.pth")
    named = any((path / name).is_file() for name in files)
    return named or (path / "unet").is_dir() or is_released(path)


def read_run(run: Path) -> DictConfig:
    """The `model` and `tuning` of a run's `config.yaml`.

    Raises:
        UserError: the file is broken, or has not both.
    """
    file = run / "config.yaml"
    try:
        config: Any = OmegaConf.load(file)
        parts = OmegaConf.create({key: config[key] for key in ("model", "tuning")})
        complete = all("_target_" in parts[key] for key in parts)
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{file}: cannot be read as a run's configuration ({reason})") from None
    if not complete:
        raise UserError(f"{file}: does not say which model and tuning to build")
    with_harmless(parts.model, "model")
    return parts


def read_checkpoint(file: Path) -> Mapping[str, Any]:
    """A training checkpoint, its tensors still on disk.

    Raises:
        UserError: the file is broken, or something else.
    """
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        complete = {"state_dict", "global_step"} <= set(content)
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"checkpoint={file}: the file cannot be read ({reason})") from None
    if not complete:
        raise UserError(f"checkpoint={file}: not a training checkpoint of this package")
    return content


def policy_state(content: Mapping[str, Any], weights: str, file: Path) -> dict[str, Tensor]:
    """What was trained, by the policy's own names, as trained or averaged.

    Raises:
        UserError: `weights=ema` of a checkpoint without an average.
    """
    from sdpo_exp.callbacks.ema import averaged_state

    if weights != "ema":
        return {
            name.removeprefix(_POLICY): tensor
            for name, tensor in content["state_dict"].items()
            if name.startswith(_POLICY)
        }
    averaged = averaged_state(content)
    if averaged is None:
        raise UserError(
            f"weights=ema: {file} holds no averaged weights; a run keeps them with "
            "callbacks=[default,ema]"
        )
    return averaged


def build_policy(source: Source, content: Mapping[str, Any], weights: str) -> Backbone:
    """The run's backbone with the checkpoint's weights in its denoiser, on the CPU.

    Raises:
        UserError: the base cannot be had, or the weights do not fit the run's configuration.
    """
    from sdpo_exp.cli.build import build

    config = read_run(source.run)
    state = policy_state(content, weights, source.checkpoint)
    backbone: Backbone = build(config.model, "model")
    build(config.tuning, "tuning").apply(backbone.denoiser)
    _load(backbone.denoiser.eval(), state, content, source)
    return backbone


def _load(
    denoiser: nn.Module, state: dict[str, Tensor], content: Mapping[str, Any], source: Source
) -> None:
    from sdpo_exp.training.trained_state import check_fits

    saved = {"state_dict": state, "adapters": content.get("adapters", {})}
    try:
        check_fits(saved, denoiser, denoiser)
    except UserError as error:
        reason = str(error).removeprefix("resume: ")
        raise UserError(
            f"checkpoint={source.checkpoint}: not of {source.run / 'config.yaml'}: {reason}"
        ) from None
    denoiser.load_state_dict(state, strict=False)
