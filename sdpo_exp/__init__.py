"""Preference alignment of text-to-image diffusion models; importing this imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["RunResult", "UserError", "compose", "load_pipeline", "train"]

if TYPE_CHECKING:
    from sdpo_exp.cli.checkpoints.pipelines import load_pipeline
    from sdpo_exp.cli.train.from_python import RunResult, compose, train
    from sdpo_exp.errors import UserError

_HOMES = {
    "load_pipeline": "cli.checkpoints.pipelines",
    "UserError": "errors",
    **dict.fromkeys(("RunResult", "compose", "train"), "cli.train.from_python"),
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """For completion."""
    return sorted({*globals(), *_HOMES})
