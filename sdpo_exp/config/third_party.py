"""Stage 2: nodes of other libraries, bound to their real signatures and built once, empty-handed.

Still before any weight, dataset or output folder is touched.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from typing import Any

from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config.check import INSTANTIATE_KEYS, close_matches
from sdpo_exp.config.hydra_versions import instantiate
from sdpo_exp.config.schema import GROUPS
from sdpo_exp.errors import UserError


def check_third_party(config: DictConfig) -> list[str]:
    """Problems of every node whose `_target_` is not ours; imports what they name."""
    problems = [problem for group in GROUPS for problem in _check_node(config[group], group)]
    if not problems:
        problems = list(_dry_build(config))
    return problems


def _check_node(node: DictConfig, path: str) -> Iterator[str]:
    target = node.get("_target_")
    if isinstance(target, str) and not target.startswith("sdpo_exp."):
        yield from _bind(node, path, target)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            yield from _check_node(child, f"{path}.{key}")


def _bind(node: DictConfig, path: str, target: str) -> Iterator[str]:
    try:
        parameters = inspect.signature(get_method(target)).parameters
    except Exception as error:
        yield f"{path}._target_={target}: {_last_line(error)}"
        return
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for key in node:
        if key not in INSTANTIATE_KEYS and key not in parameters:
            yield f"{path}.{key}: unknown key{close_matches(str(key), parameters)}"


def _dry_build(config: DictConfig) -> Iterator[str]:
    """Build optimiser and trainer on nothing, so that their own checks of values run."""
    import torch

    optimizer = trainer = None
    try:
        optimizer = instantiate(config.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    except Exception as error:
        yield f"optimizer: {_cause(error)}"
    # Its greeting belongs to the real trainer's start, not to a check.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    settings: Any = OmegaConf.to_container(config.trainer, resolve=True)
    try:
        trainer = instantiate({**settings, "logger": False, "enable_checkpointing": False})
    except Exception as error:
        yield f"trainer: {_cause(error)}"
    if optimizer is not None and trainer is not None:
        yield from _check_rule(config.safeguard, optimizer, trainer)


def _check_rule(node: DictConfig, optimizer: Any, trainer: Any) -> Iterator[str]:
    """What a safeguard that acts on gradients cannot work with."""
    try:
        rule = instantiate(node)
        if hasattr(rule, "backward") and hasattr(rule, "check"):
            rule.check(optimizer, trainer)
    except UserError as error:
        yield str(error)
    except Exception as error:
        yield f"safeguard: {_cause(error)}"


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return _last_line(error)


def _last_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or repr(error)
