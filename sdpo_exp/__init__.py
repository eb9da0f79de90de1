"""Preference alignment of text-to-image diffusion models; importing this imports no torch."""

from pathlib import Path
from typing import Any

__version__ = "0.1.0"


def load_pipeline(path: str | Path | None = None) -> Any:
    """The diffusers pipeline of a run, a model's folder or, for None, the embedded base."""
    from sdpo_exp.cli.pipelines import load_pipeline as load

    return load(path)
