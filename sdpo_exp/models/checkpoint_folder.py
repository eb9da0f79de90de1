"""A pipeline folder in diffusers' layout: what is fetched, what must be there, how parts load."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpo_exp import hub
from sdpo_exp.errors import UserError, first_line

if TYPE_CHECKING:
    import torch

_WITHOUT_WEIGHTS = ("tokenizer", "tokenizer_2", "tokenizer_3", "scheduler")
_WEIGHTS = re.compile(
    r"^(diffusion_pytorch_model|model)(?:\.(?P<variant>[A-Za-z0-9_]+))?(-\d+-of-\d+)?\.safetensors$"
)


def wanted_files(parts: Sequence[str], variant: str | None) -> hub.Wanted:
    """Picks from a repository's files those of `parts`: one set of weights, and all small files."""

    def wanted(files: Sequence[str]) -> list[str]:
        return [file for file in files if _belongs(file, parts, variant)]

    return wanted


def _belongs(file: str, parts: Sequence[str], variant: str | None) -> bool:
    folder, _, name = file.rpartition("/")
    if folder not in parts and file != "model_index.json":
        return False
    weights = _WEIGHTS.match(name)
    if weights:
        return weights["variant"] == variant
    return name.endswith((".json", ".txt", ".model", ".jinja"))


def missing_parts(folder: Path, parts: Sequence[str], variant: str | None = None) -> list[str]:
    """The parts that `folder` lacks, or lacks the weights of."""
    return [part for part in parts if not _is_complete(folder / part, variant)]


def _is_complete(part: Path, variant: str | None) -> bool:
    if part.name in _WITHOUT_WEIGHTS:
        return part.is_dir()
    found = [_WEIGHTS.match(file.name) for file in part.glob("*.safetensors")]
    pickled = variant is None and any(part.glob("*.bin"))
    return pickled or any(weights["variant"] == variant for weights in found if weights)


def absent_model(
    key: str,
    source: str,
    revision: str | None,
    parts: Sequence[str],
    example: str,
    variant: str | None = None,
) -> str | None:
    """Why a model cannot be had, with both ways out; None where nothing speaks against it.

    Args:
        key: the configuration key that names it.
        source, revision: folder or hub id.
        parts: folders that it must have; empty for a model of one part.
        example: how a local folder is given.
        variant: of the weight files.
    """
    kind = f" ({variant})" if variant else ""
    if (path := hub.local_path(source)) is not None:
        missing = missing_parts(path, parts, variant)
        return f"{key}={source}: the folder lacks {', '.join(missing)}/{kind}" if missing else None
    why = hub.absence(
        source, "model", revision, lambda found: not missing_parts(found, parts, variant)
    )
    if why is None:
        return None
    snapshot = hub.cached(source, "model", revision)
    lacks = missing_parts(snapshot, parts, variant) if snapshot is not None else []
    partly = f"; of it the cache has all but {', '.join(lacks)}/{kind}" if lacks else ""
    return f"{key}: {why}{partly}, or give a local folder: {example}"


def locate_model(
    key: str, source: str, revision: str | None, variant: str | None, parts: Sequence[str]
) -> Path:
    """The folder of a model.

    Raises:
        UserError: it cannot be had, or lacks a part.
    """
    folder = hub.locate(source, "model", revision, wanted_files(parts, variant))
    if missing := missing_parts(folder, parts, variant):
        raise UserError(
            f"{key}={source}: {folder} lacks {', '.join(missing)}/"
            + (f" (variant {variant})" if variant else "")
        )
    return folder


def locate_vae(source: str) -> Path:
    """The folder with a VAE's own `config.json`: of a VAE, or the `vae/` of a pipeline.

    Raises:
        UserError: it cannot be had, or there is no VAE in it.
    """
    folder = hub.locate(source, "model", None, wanted_files(["", "vae"], None))
    for candidate in (folder / "vae", folder):
        if (candidate / "config.json").is_file():
            return candidate
    raise UserError(f"model.vae={source}: {folder} has neither config.json nor vae/config.json")


def load_part(
    kind: Any,
    folder: Path,
    dtype: torch.dtype | None = None,
    variant: str | None = None,
) -> Any:
    """One part by its class's `from_pretrained`, from local files only.

    Raises:
        UserError: the part is broken or of another kind; the message names its folder.
    """
    options: dict[str, Any] = {"local_files_only": True}
    if dtype is not None:
        options["torch_dtype" if "diffusers" in kind.__module__ else "dtype"] = dtype
        options["variant"] = variant
    try:
        return kind.from_pretrained(folder, **options)
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{folder}: cannot be loaded as {kind.__name__}: {reason}") from error


def hashes(
    folder: Path, parts: Sequence[str], variant: str | None = None, called: str | None = None
) -> dict[str, str]:
    """sha256 by `<part>/<file>` of what parts are loaded from; `called`: in place of the part."""
    found = {}
    for part in parts:
        for file in sorted((folder / part).iterdir()):
            if not file.is_file() or not _is_read(file.name, part, parts, variant):
                continue
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256")
            found[f"{called or part}/{file.name}"] = digest.hexdigest()
    return found


def _is_read(name: str, part: str, parts: Sequence[str], variant: str | None) -> bool:
    return name.endswith(".bin") or _belongs(f"{part}/{name}", parts, variant)


def read_json(file: Path) -> dict[str, Any]:
    """A configuration file of a folder.

    Raises:
        UserError: missing or broken.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    return content
