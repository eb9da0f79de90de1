"""What a run inside somebody else's process leaves as it was."""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging.config import DictConfigurator
from typing import Any

import numpy
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

# What Lightning's seeding leaves for processes that it starts.
_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")


@contextmanager
def caller_left_alone() -> Iterator[None]:
    """Put back, at the end, what a run changes of its process outside of torch."""
    hydra, job = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    variables = {name: os.environ.get(name) for name in _VARIABLES}
    level = logging.getLogger("lightning.pytorch").level
    drawn, with_numpy = random.getstate(), numpy.random.get_state()
    with warnings.catch_warnings():
        try:
            yield
        finally:
            GlobalHydra.instance().hydra, HydraConfig.instance().cfg = hydra, job
            logging.getLogger("lightning.pytorch").setLevel(level)
            random.setstate(drawn)
            numpy.random.set_state(with_numpy)
            for name, value in variables.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


@contextmanager
def torch_left_alone() -> Iterator[None]:
    """Random state, threads, and whether subnormal numbers count."""
    import torch
    from lightning.pytorch.utilities.seed import isolate_rng

    threads, flushed = torch.get_num_threads(), 5e-324 * 1.0 == 0.0
    try:
        with isolate_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)


@contextmanager
def run_log() -> Iterator[None]:
    """Meanwhile the handlers of `hydra.job_logging`, beside the root logger's own.

    Those hear what they would have heard: the level that the run sets is not for them.
    """
    root, told = logging.getLogger(), _job_logging()
    own = _handlers(told) if told else {}
    before, level = list(root.handlers), root.level

    def as_before(record: logging.LogRecord) -> bool:
        return record.levelno >= level

    for handler in before:
        handler.addFilter(as_before)
    added = [own[name] for name in told.get("root", {}).get("handlers", [])]
    for handler in added:
        root.addHandler(handler)
    root.setLevel(told.get("root", {}).get("level", level))
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in added:
            root.removeHandler(handler)
        for handler in own.values():
            handler.close()
        for handler in before:
            handler.removeFilter(as_before)


def _job_logging() -> dict[str, Any]:
    hydra = HydraConfig.get()
    told: Any = OmegaConf.to_container(hydra.job_logging, resolve=True) or {}
    if hydra.verbose is True and "root" in told:
        told["root"]["level"] = "DEBUG"
    return dict(told)


def _handlers(told: dict[str, Any]) -> dict[str, logging.Handler]:
    """As `logging.config.dictConfig` makes them, which would take all others away."""
    builder = DictConfigurator(told)
    formatters = builder.config.get("formatters", {})
    for name in formatters:
        formatters[name] = builder.configure_formatter(formatters[name])
    handlers = builder.config.get("handlers", {})
    return {name: builder.configure_handler(handlers[name]) for name in handlers}


def one_device(config: DictConfig) -> list[str]:
    """Several devices each start the program's own command line, which is not a run's here."""
    if "LOCAL_RANK" in os.environ or _count(config.trainer.devices, config) <= 1:
        return []
    return [
        f"trainer.devices={config.trainer.devices}: from Python a run takes one device, for "
        "Lightning starts the whole program again for each. Use python -m sdpo_exp, or torchrun."
    ]


def _count(devices: Any, config: DictConfig) -> int:
    if isinstance(devices, int) and devices >= 0:
        return devices
    if OmegaConf.is_list(devices):
        return len(devices)
    text = str(devices)
    if text not in ("auto", "-1"):
        return len(text.strip(",").split(",")) if "," in text else int(text)
    import torch

    return torch.cuda.device_count() if config.trainer.accelerator != "cpu" else 1
