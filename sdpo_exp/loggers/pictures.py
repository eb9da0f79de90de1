"""A picture file to every logger that shows pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image


def log_picture(loggers: Iterable[Any], name: str, path: Path, step: int) -> None:
    """Give the picture at `path` to TensorBoard and to loggers with `log_image`, such as W&B's."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")
        elif hasattr(logger, "log_image"):
            logger.log_image(name, [str(path)], step=step)
