"""The licences of weights and data that runs start from; `docs/licences.md` has the same table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Licence(NamedTuple):
    """Terms of one model or dataset.

    Attributes:
        hub: the hub's identifier of the licence, for a model card's front matter.
        name: as its owner calls it.
        url: where it can be read.
        note: what else a user should know; may be empty.
    """

    hub: str
    name: str
    url: str
    note: str = ""


EMBEDDED = "embedded world"
_HUB = "https://huggingface.co"

LICENCES: Mapping[str, Licence] = {
    EMBEDDED: Licence(
        "apache-2.0",
        "Apache-2.0",
        "https://www.apache.org/licenses/LICENSE-2.0",
        "base weights and pairs that ship with this package, made by its own code",
    ),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": Licence(
        "creativeml-openrail-m",
        "CreativeML Open RAIL-M",
        f"{_HUB}/spaces/CompVis/stable-diffusion-license",
        "its use restrictions bind what is tuned from it, and must be passed on with it",
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": Licence(
        "openrail++",
        "CreativeML Open RAIL++-M",
        f"{_HUB}/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
        "its use restrictions bind what is tuned from it, and must be passed on with it",
    ),
    "madebyollin/sdxl-vae-fp16-fix": Licence("mit", "MIT", f"{_HUB}/madebyollin/sdxl-vae-fp16-fix"),
    "yuvalkirstain/pickapic_v2": Licence(
        "unknown",
        "unknown: check yuvalkirstain/pickapic_v2",
        f"{_HUB}/datasets/yuvalkirstain/pickapic_v2",
        "images by several models, whose own terms apply; prompts by users; holds images unsafe "
        "for work; reported gone from the hub since April 2025 (yuvalkirstain/PickScore issue 36)",
    ),
}


def licence_of(source: str | None) -> Licence:
    """The terms of a hub id, or of `EMBEDDED`; for anything else, where to look.

    Args:
        source: hub id or folder; None is the embedded world.
    """
    source = EMBEDDED if source is None else source
    return LICENCES.get(source, Licence("unknown", f"unknown: check {source}", ""))


def describe(source: str | None) -> str:
    """One line: name, address and note."""
    found = licence_of(source)
    name = f"[{found.name}]({found.url})" if found.url else found.name
    return f"{name} ({found.note})" if found.note else name
