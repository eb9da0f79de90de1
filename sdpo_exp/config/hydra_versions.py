"""Calls of Hydra that 1.3 and 1.4 want in different words, in one place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import hydra
import hydra.utils
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.config import conf_dir

_SINCE_1_4 = hasattr(hydra.utils, "execution_whitelist")
# 1.4 has one set of defaults, and warns where a version is asked for.
_DEFAULTS: dict[str, Any] = {} if _SINCE_1_4 else {"version_base": "1.3"}


def instantiate(node: DictConfig | dict[str, Any], **arguments: Any) -> Any:
    """Hydra's `instantiate`, which may call what the node itself names.

    A configuration is code here, of the user's own modules, too: it is checked before it is built,
    not kept from anything. What Hydra 1.4 never lets a configuration call stays forbidden.
    """
    trusted = {"_execution_whitelist_": sorted(set(_targets(node)))} if _SINCE_1_4 else {}
    return hydra.utils.instantiate(node, **trusted, **arguments)


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Let configurations say `${name:}`; 1.4 comes with an OmegaConf that calls this otherwise."""
    method = "register_resolver" if _SINCE_1_4 else "register_new_resolver"
    getattr(OmegaConf, method)(name, resolver, replace=True)


def composing(job_name: str) -> AbstractContextManager[None]:
    """Where `hydra.compose` reads our configs."""
    return hydra.initialize_config_dir(str(conf_dir()), job_name=job_name, **_DEFAULTS)


def run_with_hydra(config_name: str, job: Callable[[DictConfig], Any]) -> None:
    """Let Hydra read `sys.argv` and run `job` once, or once per cell of a sweep."""
    with _words_alone():
        hydra.main(config_path=str(conf_dir()), config_name=config_name, **_DEFAULTS)(job)()


def run_once(
    config_name: str,
    job: Callable[[DictConfig], None],
    overrides: list[str],
    config_dir: str | None,
) -> None:
    """Run `job` once as for a command line, which is not read, with a run folder made alike.

    Args:
        config_name: primary config.
        job: raises nothing that is to be told in words: Hydra would tell it, too.
        overrides: without sweeps.
        config_dir: as `--config-dir`.
    """
    path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        here = f"file://{Path(config_dir).absolute()}"
        path.prepend("command-line", here, SearchPathQuery(provider="schema"))
    with composing("sdpo_exp"):
        GlobalHydra.instance().clear()
        Hydra.create_main_hydra2("sdpo_exp", path).run(
            config_name, job, overrides, with_log_configuration=False
        )


@contextmanager
def _words_alone() -> Iterator[None]:
    """Print a job's `CompactHydraException` as words: 1.3 does, 1.4 asks `sys.excepthook`."""
    before = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, CompactHydraException):
            print(error, file=sys.stderr)
        else:
            before(kind, error, trace)

    sys.excepthook = tell
    try:
        yield
    finally:
        sys.excepthook = before


def _targets(node: DictConfig | dict[str, Any]) -> Iterator[str]:
    """Every `_target_` of a node and of those below it."""
    content = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return _named_in(content)


def _named_in(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if isinstance(target := content.get("_target_"), str):
            yield target
        content = list(content.values())
    if isinstance(content, list | tuple):
        for part in content:
            yield from _named_in(part)
