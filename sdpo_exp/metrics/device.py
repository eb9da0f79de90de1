"""Where a scorer computes."""

from __future__ import annotations

import torch

from sdpo_exp.errors import UserError, first_line


def pick_device(device: torch.device | str) -> torch.device:
    """The device of that name; `auto` is CUDA where there is one, else the CPU.

    Raises:
        UserError: torch knows no such device, or there is none here.
    """
    cuda = torch.cuda.is_available()
    if device == "auto":
        # With its number: the current device may be another one when images come.
        return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device={device}: {first_line(error)}") from None
    if found.type == "cuda" and not cuda:
        raise UserError(f"device={device}: there is no CUDA device here; give device=cpu")
    return found
