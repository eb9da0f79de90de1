"""Human preference scores v2.0 and v2.1: the cosine under two tunings of CLIP ViT-H/14."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from sdpo_exp import hub
from sdpo_exp.errors import UserError
from sdpo_exp.metrics import files, weights
from sdpo_exp.metrics.open_clip_config import CONFIG_FILE, VIT_H_14, config_of
from sdpo_exp.metrics.open_clip_cosine import OpenClipCosine

Version = Literal["v2.0", "v2.1"]
_SOURCE = "xswu/HPSv2"
_STEMS: dict[Version, str] = {"v2.0": "HPS_v2_compressed", "v2.1": "HPS_v2.1_compressed"}
_NAMES: dict[Version, str] = {"v2.0": "hpsv2", "v2.1": "hpsv21"}


class HumanPreferenceScore(OpenClipCosine):
    """Raw cosine, about 0.25 to 0.31; shown times 100. v2.0 and v2.1 are different scales.

    Args:
        state, config, device: `OpenClipCosine`'s.
        version: which of the two it is.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        config: Mapping[str, Any],
        version: Version,
        device: torch.device | str,
    ) -> None:
        super().__init__(state, config, f"HPS {version}", device)
        self.name = _NAMES[version]

    @classmethod
    def from_pretrained(
        cls,
        version: Version = "v2.0",
        source: str = _SOURCE,
        revision: str | None = None,
        device: torch.device | str = "cpu",
    ) -> HumanPreferenceScore:
        """The released model.

        Args:
            version: v2.0 is what Diffusion-SDPO's evaluation reports.
            source: hub id, folder, or weight file; a file `open_clip_config.json` beside the
                weights says of which network.
            revision: of a hub id.
            device: where to compute.

        Raises:
            UserError: it cannot be had, is named as the other version, or is another model.
        """
        file = files.locate_file(source, revision, _names(version), optional=[CONFIG_FILE])
        if (other := _other_version(file, version)) is not None:
            raise UserError(other)
        scorer = cls.from_state_dict(weights.read(file), version, config_of(file), device)
        scorer.origin = files.origin(source, file)
        return scorer

    @classmethod
    def absent(
        cls,
        version: Version = "v2.0",
        source: str = _SOURCE,
        revision: str | None = None,
        **_: Any,
    ) -> str | None:
        """Why `from_pretrained` would fail, a line per thing that is absent, or None."""
        path = hub.local_path(source)
        if path is not None and (other := _other_version(path, version)) is not None:
            return other
        key = f"metric.{_NAMES[version]}.source"
        return files.absent(key, source, revision, [_names(version)])

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Any],
        version: Version = "v2.0",
        config: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> HumanPreferenceScore:
        """From weights in open_clip's layout, or the released dict that has them as `state_dict`.

        `config` as in open_clip's model configurations; None: ViT-H-14.

        Raises:
            UserError: they do not fit.
        """
        inner = state.get("state_dict", state)
        return cls(inner, config or VIT_H_14, version, device)


def _names(version: Version) -> tuple[str, str]:
    return f"{_STEMS[version]}.pt", f"{_STEMS[version]}.safetensors"


def _other_version(file: Path, version: Version) -> str | None:
    """Why a file is the wrong one, as far as its name tells."""
    for other, stem in _STEMS.items():
        if other != version and file.name.startswith(stem):
            return f"{file}: by its name HPS {other}, but version={version} is asked"
    return None
