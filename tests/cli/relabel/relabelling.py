"""Run the body of `sdpo_exp.relabel` here, by scorers that are known by hand."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from PIL.Image import Image

from sdpo_exp.cli.relabel.relabel import check_relabel, parts_of, rule_of
from sdpo_exp.cli.relabel.run import relabel_into
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.check import check_config
from sdpo_exp.config.composition import compose_cell

register_resolvers()
TINY = ("data=tiny", "data.train.size=12", "data.validation.size=6", "shard=5", "batch=2")


class Brightness:
    """Mean level of an image times `sign`."""

    display_scale = 1.0
    seen = 0  # images, by all of them
    fail_at = int(os.environ.get("FAIL_AT", "1000000"))

    def __init__(
        self,
        sign: float = 1.0,
        image_size: int | None = None,
        source: str = "here",
        device: str = "cpu",
    ) -> None:
        self.name, self.sign, self.image_size, self.device = "brightness", sign, image_size, device
        self.origin = {"source": source}

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> torch.Tensor:
        assert len(images) == len(prompts)
        assert self.device == "cpu"
        assert self.image_size is None or {i.size for i in images} == {(self.image_size,) * 2}
        Brightness.seen += len(images)
        if Brightness.seen > Brightness.fail_at:
            if "FAIL_AT" in os.environ:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        return torch.tensor([self.sign * float(np.asarray(image).mean()) for image in images])


class NoNumber(Brightness):
    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> torch.Tensor:
        values = super().score(images, prompts)
        return torch.where(values > 100, torch.nan, values)


class TooFew(Brightness):
    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> torch.Tensor:
        return super().score(images, prompts)[:-1]


def fake(name: str = "Brightness", **values: Any) -> dict[str, Any]:
    return {"_target_": f"{__name__}.{name}", "device": "${device}", **values}


def composed(*overrides: str, **metrics: dict[str, Any]) -> DictConfig:
    """The command's configuration, with scorers of this file in place of the chosen ones."""
    found = compose_cell("relabel", ["device=cpu", *overrides])
    assert found.config is not None, found.problems
    assert not found.problems
    with open_dict(found.config):
        if metrics:
            found.config.metric = metrics
    assert check_relabel(found.config) == []
    return found.config


def relabel(folder: Path, *overrides: str, **metrics: dict[str, Any]) -> dict[str, Any]:
    """Run the command's body; the content of `relabel.json`, by part."""
    config = composed(*overrides, **metrics)
    Brightness.seen = 0
    relabel_into(config, folder, parts_of(config), rule_of(config))
    parts: dict[str, Any] = json.loads((folder / "relabel.json").read_text())["parts"]
    return parts


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every shard, by its path below `shards/`."""
    files = sorted((folder / "shards").rglob("*.parquet"))
    root = folder / "shards"
    return {str(f.relative_to(root)): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


def pairs_of(folder: Path, part: str = "train", *overrides: str) -> Any:
    """What a training run would read."""
    data = trained_on(folder, *overrides).data
    return instantiate(data[part])


def trained_on(folder: Path, *overrides: str) -> DictConfig:
    found = compose_cell("train", ["data=relabelled", *overrides], str(folder / "conf"))
    assert found.config is not None, found.problems
    assert check_config(found.config) == []
    return found.config
