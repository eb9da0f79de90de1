"""Make the launchers and the sweeper known to Hydra, and check what a command asks of them."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config.check import check_node
from sdpo_exp.errors import UserError
from sdpo_exp.launchers.base import require
from sdpo_exp.launchers.joblib_launcher import JoblibLauncher
from sdpo_exp.launchers.optuna_sweeper import OptunaSweeper
from sdpo_exp.launchers.ray_launcher import RayLauncher
from sdpo_exp.launchers.search_space import read_space
from sdpo_exp.launchers.submitit_launcher import SubmititLauncher

PLUGINS: tuple[type[Plugin], ...] = (JoblibLauncher, SubmititLauncher, RayLauncher, OptunaSweeper)
_SOURCES = {cls: f"{cls.__module__}.{cls.__name__}" for cls in PLUGINS}
# Hydra 1.3 builds no launcher that is written under another package than this; 1.4 none that is
# written under another name than its class's own.
_MODULE = "hydra_plugins.sdpo_exp"
for _cls in PLUGINS:
    _cls.__module__ = _MODULE
_TARGETS = {f"{_MODULE}.{cls.__name__}": cls for cls in PLUGINS}
# By the class: the library to import, and the extra that installs it; joblib always is there.
_NEEDS: dict[type[Plugin], tuple[str, str]] = {
    SubmititLauncher: ("submitit", "slurm"),
    RayLauncher: ("ray", "ray"),
    OptunaSweeper: ("optuna", "optuna"),
}


def register_plugins() -> None:
    """Let `hydra.launcher` and `hydra.sweeper` name our classes; imports no library of theirs."""
    for cls in PLUGINS:
        Plugins.instance().register(cls)


def plugin_problems(config: DictConfig) -> list[str]:
    """What is wrong with a command's launcher and sweeper, in words, before anything runs.

    Args:
        config: composed, with its `hydra` node.
    """
    problems: list[str] = []
    for part in ("launcher", "sweeper"):
        node = config.hydra.get(part)
        cls = _TARGETS.get(str(node.get("_target_"))) if node is not None else None
        if cls is None:
            continue
        problems += check_node(_named_by_its_source(node, cls), f"hydra.{part}")
        if cls in _NEEDS:
            try:
                choice = config.hydra.runtime.choices[f"hydra/{part}"]
                require(*_NEEDS[cls], f"hydra/{part}={choice}")
            except UserError as error:
                problems.append(str(error))
        if cls is OptunaSweeper:
            problems += _metric_problems(config, str(node.get("metric")))
    return problems


def is_search(config: DictConfig) -> bool:
    """Whether the sweeper chooses its cells on the way."""
    return _TARGETS.get(str(config.hydra.sweeper.get("_target_"))) is OptunaSweeper


def search_corners(config: DictConfig, overrides: list[str]) -> list[list[str]]:
    """Overrides of the trials at the ends of a search space, for a check of all of its keys.

    Raises:
        UserError: the search space itself is wrong.
    """
    params: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    return read_space(overrides, params.get("params")).corners()


def _named_by_its_source(node: DictConfig, cls: type[Plugin]) -> DictConfig:
    """The node with the `_target_` that the signature is read from."""
    content: Any = OmegaConf.to_container(node)
    return OmegaConf.create({**content, "_target_": _SOURCES[cls]})


def _metric_problems(config: DictConfig, metric: str) -> list[str]:
    judged = "_target_" in (config.get("evaluation") or {})
    if not metric.startswith("eval/") or judged or "images" in config.get("callbacks", {}):
        return []
    return [
        f"hydra.sweeper.metric={metric}: evaluation=off draws no images; choose another "
        "evaluation, or a number of the training such as probe/implicit_accuracy"
    ]
