"""From what a user names, a run's folder or a model's, to a diffusers pipeline.

Finding and naming mistakes is free of torch; only `load_pipeline` itself imports it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from sdpo_exp.cli.checkpoints.adapters import put_adapters
from sdpo_exp.cli.printed import command, word
from sdpo_exp.config.later_keys import with_harmless
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.models.ovis_files import OvisU1Files, is_released

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# `PARTS` of `sdpo_exp.models.tiny` and `.tiny_flow`, which cannot be read without torch.
PARTS = ("unet", "text_encoder", "tokenizer", "scheduler")
FLOW_PARTS = ("transformer", *PARTS[1:])
INDEX = "model_index.json"
_OURS = ("PixelShufflePipeline", "PixelShuffleFlowPipeline")
ADAPTERS = "pytorch_lora_weights.safetensors"  # diffusers' name for it
_RUN_FILES = ("config.yaml", "summary.json", "metrics.csv", "checkpoints")
_EXPECTED = (
    "Give a run's folder (with model/), or a model's: "
    f"with {INDEX}, or with {'/, '.join(PARTS[:-1])}/ and {PARTS[-1]}/, or Ovis-U1's as released"
)


@dataclass(frozen=True)
class Source:
    """Where a model lies: its own `folder`, and the `run` folder around it, if one was named."""

    folder: Path
    run: Path | None = None


def load_pipeline(path: str | Path | None = None) -> DiffusionPipeline:
    """The pipeline of a run or of a model's folder, float32, in eval mode, on the CPU.

    No code that lies in the folder is run. No network is used, unless a run left adapters alone,
    whose base is a hub id and not in the hub's cache.

    Args:
        path: a run's folder, an exported model's, one with `unet/`, `text_encoder/`,
            `tokenizer/` and `scheduler/`, or one of Ovis-U1 in the layout of its release; None
            takes the weights that ship with the package.

    Raises:
        UserError: there is no model at `path`, or a file of it is missing or broken.
    """
    source = find_model(path) if path is not None else None
    return _ready(_open_or_say(source.folder) if source is not None else _open_embedded())


def load_base(run: Path) -> DiffusionPipeline:
    """The pipeline that a run began with, as its `config.yaml` says: hub id or folder, VAE, UNet.

    Float32, in eval mode, on the CPU.

    Raises:
        UserError: `config.yaml` does not say, or the base cannot be had any more.
    """
    pretrained = base_of(run)
    config: Any = OmegaConf.load(run / "config.yaml")
    node = config["model"]
    if "_target_" not in node:
        return load_pipeline(pretrained)
    from sdpo_exp.cli.build import build

    if "text_dtype" in node:
        node.text_dtype = "float32"  # what saves memory in training would show in the images
    return _ready(build(with_harmless(node, "model"), "model").pipeline())


def _ready(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    for part in pipeline.components.values():
        if hasattr(part, "eval"):
            part.eval()
    return pipeline


def find_model(path: str | Path) -> Source:
    """Where the model is that `path` means; reads no weights.

    Raises:
        UserError: nothing there, or something that holds no model; the message says what.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"{path}: no such folder. {_EXPECTED}")
    if path.is_file():
        raise UserError(_about_a_file(path))
    if _holds_model(path):
        return Source(path)
    if (path / "model").is_dir():
        if _holds_model(path / "model"):
            return Source(path / "model", run=path)
        raise UserError(f"{path / 'model'}: holds no complete model. {_EXPECTED}")
    if any((path / name).exists() for name in _RUN_FILES):
        raise UserError(_about_an_unfinished_run(path))
    raise UserError(f"{path}: neither a run's folder nor a model's. {_EXPECTED}{_runs_below(path)}")


def base_of(run: Path) -> str | None:
    """The `model.pretrained` that a run started from, hub id or folder; None: the embedded base.

    Raises:
        UserError: the run's `config.yaml` is missing, or does not say.
    """
    file = run / "config.yaml"
    try:
        config: Any = OmegaConf.load(file)
        base: str | None = config["model"]["pretrained"]
    except Exception as error:
        raise UserError(f"{file}: does not name the run's base ({first_line(error)})") from error
    return base


def _holds_model(folder: Path) -> bool:
    whole = (all((folder / part).is_dir() for part in parts) for parts in (PARTS, FLOW_PARTS))
    indexed = (folder / INDEX).is_file()
    return indexed or any(whole) or is_released(folder) or _holds_adapters(folder)


def _holds_adapters(folder: Path) -> bool:
    return (folder / ADAPTERS).is_file() and not (folder / INDEX).is_file()


def _about_a_file(path: Path) -> str:
    if path.suffix == ".ckpt":
        run = path.parent.parent if path.parent.name == "checkpoints" else "the run's folder"
        return f"{path}: a training checkpoint; give its run's folder instead: {run}"
    return f"{path}: a file. {_EXPECTED}"


def _about_an_unfinished_run(run: Path) -> str:
    if any((run / "checkpoints").glob("*.ckpt")):
        return (
            f"{run}: this run has no model/, which a run stores when it finishes; "
            f"`{command('train', word('resume', run))}` finishes it, in a folder of its own: give "
            f"that one; or `{command('export', word('checkpoint', run))}` writes out its newest "
            "checkpoint"
        )
    return f"{run}: this run has no model/ and no checkpoint to resume from; run it again"


def _runs_below(folder: Path) -> str:
    """A hint for who gave the folder of a cell or of a name, one or two levels too high."""
    levels = (folder.glob(f"{level}/model") for level in ("*", "*/*"))
    found = sorted(model.parent for level in levels for model in level if model.is_dir())
    return f". There are runs below it: {found[-1]}" if found else ""


def _open_embedded() -> DiffusionPipeline:
    from sdpo_exp.models.tiny import TinyBackbone

    return TinyBackbone().pipeline()


def _open_or_say(folder: Path) -> DiffusionPipeline:
    base = _base_of_adapters(folder) if _holds_adapters(folder) else None
    try:
        if base is None:
            return _open(folder)
        put_adapters(base, folder, ADAPTERS)
        return base
    except Exception as error:
        reason = next(_faults(folder), None) or first_line(error)
        raise UserError(f"{folder}: the model cannot be loaded: {reason}") from error


def _base_of_adapters(folder: Path) -> Any:
    """The pipeline that the adapters of a run's own `model/` belong to."""
    run = folder.resolve().parent
    if not (run / "config.yaml").is_file():
        raise UserError(
            f"{folder}: adapters alone, which need their base: give the folder of the run that "
            f"trained them, or load the base in diffusers and `load_lora_weights({str(folder)!r})` "
            "into it, as the README.md beside them shows"
        )
    return load_base(run)


def _open(folder: Path) -> DiffusionPipeline:
    if is_released(folder):
        return open_released(folder)
    import torch
    from diffusers import DiffusionPipeline

    from sdpo_exp.models.tiny_flow import open_pixel_model

    name = _read_index(folder).get("_class_name", _OURS[0])
    if set(_OURS) & set(name if isinstance(name, list) else [name]):
        # Not by `from_pretrained` of these classes: beside an exported `pipeline.py` diffusers
        # refuses to take any class but that file's, whose code would have to be trusted.
        return open_pixel_model(folder).pipeline()
    return DiffusionPipeline.from_pretrained(
        folder, local_files_only=True, torch_dtype=torch.float32
    )


def open_released(folder: Path) -> Any:
    """Ovis-U1's own pipeline, float32, of a folder in the released layout.

    Raises:
        UserError: a part is missing, broken or does not fit.
    """
    from sdpo_exp.models.ovis_u1 import OvisU1

    return OvisU1(str(folder), vae_dtype="float32", text_dtype="float32").pipeline()


def _read_index(folder: Path) -> dict[str, Any]:
    """`model_index.json`; empty where there is none."""
    file = folder / INDEX
    index: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return index


def _faults(folder: Path) -> Iterator[str]:
    """What is missing or broken in a model's folder, each by the name of its file."""
    for file in sorted(folder.glob("**/*.json")):
        try:
            json.loads(file.read_text())
        except ValueError as error:
            yield f"{file.relative_to(folder)} is broken ({error})"
            return
    if is_released(folder):
        yield from (f"{name} is missing" for name in OvisU1Files().missing(folder))
    for part in _parts(folder):
        if not (folder / part).is_dir():
            yield f"{part}/ is missing"
        elif missing := _missing_weights(folder / part):
            yield f"{part}/{missing} is missing"
    for file in sorted(folder.glob("**/*.safetensors")):
        if reason := _why_unreadable(file):
            yield f"{file.relative_to(folder)} is broken ({reason})"


def _parts(folder: Path) -> list[str]:
    """The folders that a model needs; an index has `[null, null]` for a part left out."""
    if _holds_adapters(folder) or is_released(folder):
        return []
    index = _read_index(folder)
    named = [key for key, value in index.items() if isinstance(value, list) and key[0] != "_"]
    if index:
        return [key for key in named if index[key][0] is not None]
    return list(FLOW_PARTS if (folder / FLOW_PARTS[0]).is_dir() else PARTS)


def _missing_weights(part: Path) -> str | None:
    """The weight file that a part with a `config.json` lacks; other parts have no weights."""
    config = part / "config.json"
    if not config.is_file() or any(part.glob("*.safetensors")) or any(part.glob("*.bin")):
        return None
    diffusers = "_class_name" in json.loads(config.read_text())
    return "diffusion_pytorch_model.safetensors" if diffusers else "model.safetensors"


def _why_unreadable(file: Path) -> str | None:
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt"):
            return None
    except Exception as error:
        return first_line(error)
