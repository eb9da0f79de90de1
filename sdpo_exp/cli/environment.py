"""What a run was made with, so that its numbers can be made again."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdpo_exp.data.datamodule import PairDataModule
    from sdpo_exp.protocols import PairSource

_SOURCE = Path(__file__).parents[2]
_PACKAGES = (
    "sdpo_exp",
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "lightning",
    "hydra-core",
    "omegaconf",
    "numpy",
    "wandb",
    "torchmetrics",
    "open_clip_torch",
)


def write_environment(
    folder: Path,
    *,
    seed: int,
    data: PairDataModule,
    base: Mapping[str, str | None] | None,
    command: Sequence[str],
) -> None:
    """Write `environment.json` below `folder`.

    Args:
        folder: of the run.
        seed: of the run.
        data: whose fingerprint and sizes are written, and a mixture's shares; an endless stream has
            no size.
        base: where the weights came from, as the backbone names its `origin`; None where it has
            none.
        command: the words that made the run.
    """
    content = {
        **describe_environment(),
        "seed": seed,
        "data_fingerprint": data.fingerprint(),
        "pairs": {"train": _size(data.train), "validation": _size(data.validation)},
        **_shares(data.train),
        "base": dict(base) if base is not None else None,
        "command": list(command),
    }
    (folder / "environment.json").write_text(json.dumps(content, indent=2) + "\n")


def command_line() -> list[str]:
    """The words that this process was started with."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _shares(source: PairSource) -> dict[str, Any]:
    """Of the pairs drawn, by source; nothing where there is one."""
    shares = getattr(source, "shares", None)
    return {"shares": shares} if shares is not None else {}


def _size(source: PairSource) -> int | None:
    from sdpo_exp.data.keyed import is_endless

    return None if is_endless(source) else len(source)


def describe_environment() -> dict[str, Any]:
    """Git state of the code, package versions, python and machine."""
    revision = code_revision()
    return {
        "git_revision": revision,
        "git_dirty": bool(_git(_SOURCE, "status", "--porcelain")) if revision else None,
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "accelerator": _accelerator(),
    }


def code_revision() -> str | None:
    """Commit of the code's own checkout; None outside one (an installed wheel)."""
    return _git(_SOURCE, "rev-parse", "HEAD")


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git in the code's own checkout; None outside one (an installed wheel)."""
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
