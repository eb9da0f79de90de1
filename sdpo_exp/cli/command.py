"""What every command shares: argument rewriting, checks first, words instead of tracebacks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from sdpo_exp.cli.run_references import name_runs
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.command_line import name_sources, parsed, rewrite_booleans
from sdpo_exp.config.composition import compose_cell, expand_sweep, readable, unswept
from sdpo_exp.config.hydra_versions import run_with_hydra
from sdpo_exp.errors import UserError
from sdpo_exp.launchers.plugins import (
    is_search,
    plugin_problems,
    register_plugins,
    search_corners,
)
from sdpo_exp.terminal.pipes import ReaderGone, guarded_streams

Check = Callable[[DictConfig], list[str]]
AtBegin = Callable[[list[DictConfig]], None]
AtEnd = Callable[[list[DictConfig], float], int]


def run_command(
    config_name: str,
    body: Callable[[DictConfig], Any],
    check: Check,
    late_check: Check,
    *,
    file_check: Check = lambda _: [],
    runs: Collection[str] = (),
    at_begin: AtBegin = lambda _: None,
    at_end: AtEnd | None = None,
) -> None:
    """Check `sys.argv`, then let Hydra run `body` once, or once per cell of a sweep.

    Args:
        config_name: primary config in `conf/`.
        body: runs one composed config.
        check: problems that need no heavy import; runs for every look at the config too.
        late_check: problems that do; runs only before `body`.
        file_check: problems that files show without heavy imports; runs only before `body`.
        runs: keys whose values are runs, which have short names.
        at_begin: told the cells of a sweep before the first one runs.
        at_end: after a sweep, told its cells and when it began; returns how many are not done.
    """
    with guarded_streams():
        rewrite_booleans(sys.argv)
        name_sources(sys.argv)
        register_resolvers()
        register_plugins()
        arguments = sys.argv[1:]
        try:
            name_runs(arguments, runs)
            swept = preflight(config_name, arguments, check, late_check, file_check)
        except UserError as error:
            sys.exit(f"{error}")
        sys.argv[1:] = arguments
        at_begin(swept)
        _run(config_name, body, swept, at_end)


def _run(
    config_name: str,
    body: Callable[[DictConfig], Any],
    swept: list[DictConfig],
    at_end: AtEnd | None,
) -> None:
    def job(config: DictConfig) -> Any:
        try:
            return body(config)
        except UserError as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                sys.exit(str(error))
            # Hydra prints this kind without a traceback, and a sweep's other cells go on.
            raise CompactHydraException(str(error)) from None

    began, undone = time.time(), 0
    try:
        run_with_hydra(config_name, job)
    except ReaderGone:
        raise
    except KeyboardInterrupt:
        goes_on = swept and at_end is not None
        sys.exit("interrupted; the same command goes on with what is missing" if goes_on else 130)
    finally:
        if swept and at_end is not None:
            undone = at_end(swept, began)
    if undone:
        sys.exit(f"{undone} of {len(swept)} cells are not done; the same command runs these again")


def preflight(
    config_name: str,
    arguments: list[str],
    check: Check,
    late_check: Check,
    file_check: Check = lambda _: [],
) -> list[DictConfig]:
    """Compose and check every cell of a command line before anything is built or written.

    Args:
        config_name: primary config.
        arguments: of the command line; a sweep that only an overlay says is said here, too, for
            Hydra 1.4 asks for the mode before it reads overlays.
        check: problems that need no heavy import.
        late_check: problems that do; not for a mere look at the config.
        file_check: problems that files show without heavy imports; not for a mere look either.

    Returns:
        The cells of a sweep whose cells are known beforehand; none of anything else.

    Raises:
        UserError: with all mistakes, of all cells.
    """
    flags = parsed(arguments)
    if flags.hydra_help or flags.shell_completion:
        return []
    looking = flags.cfg or flags.info or flags.help
    if flags.config_dir is not None and not Path(flags.config_dir).is_dir():
        raise UserError(f"--config-dir {flags.config_dir}: no such folder")
    config_name = flags.config_name or config_name
    flags.overrides, unreadable = readable(flags.overrides)
    problems: dict[str, None] = dict.fromkeys(unreadable)
    cells: list[DictConfig] = []
    all_overrides = _cells(config_name, flags)
    for overrides in all_overrides:
        composed = compose_cell(config_name, overrides, flags.config_dir)
        found = composed.problems
        if composed.config is not None:
            found = found + check(composed.config) + plugin_problems(composed.config)
            found += [] if looking else file_check(composed.config)
            cells.append(composed.config)
        problems |= dict.fromkeys(found)
    if len(all_overrides) > 1:
        shared = compose_cell(config_name, unswept(flags.overrides), flags.config_dir).config
        problems |= dict.fromkeys(_refuse_many_devices(cells))
        problems |= dict.fromkeys(_refuse_own_launchers(cells, shared) if shared else ())
    if not problems and not looking:
        problems = dict.fromkeys(problem for cell in cells for problem in late_check(cell))
    if problems:
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(f"{count} in the configuration; nothing was run:\n{lines}")
    if looking:
        return []
    if is_multirun(cells[0]) and not flags.multirun:
        arguments.append("hydra.mode=MULTIRUN")
    return cells if _is_sweep(flags, cells[0]) else []


def _is_sweep(flags: Any, config: DictConfig) -> bool:
    """Of cells that a grid gives; other sweepers choose theirs on the way."""
    return "BasicSweeper" in str(config.hydra.sweeper.get("_target_")) and (
        flags.multirun or is_multirun(config)
    )


def is_multirun(config: DictConfig) -> bool:
    """Whether a composed configuration, with its `hydra` node, asks for a sweep."""
    return str(config.hydra.mode) in ("RunMode.MULTIRUN", "MULTIRUN")


def _cells(config_name: str, flags: Any) -> list[list[str]]:
    single = unswept(flags.overrides)
    if not flags.multirun:
        base = compose_cell(config_name, single, flags.config_dir).config
        if base is None or not is_multirun(base):
            if single != flags.overrides:
                swept = " ".join(line for line in flags.overrides if line not in single)
                raise UserError(f"{swept}: several values make a sweep; add -m to run it")
            return [flags.overrides]
    if any(line.lstrip("+").startswith("run_dir=") for line in flags.overrides):
        raise UserError(
            "run_dir cannot be set for a sweep: its cells would share one folder. "
            "Set name=<name>; the cells go to outputs/<name>/<cell>/<time>/."
        )
    base = compose_cell(config_name, single, flags.config_dir).config
    if base is not None and is_search(base):
        return search_corners(base, flags.overrides)
    sweeper = base.hydra.sweeper if base is not None else {}
    if "BasicSweeper" not in str(sweeper.get("_target_", "BasicSweeper")):
        return [single]
    return list(expand_sweep(flags.overrides, dict(sweeper.get("params") or {})))


def _refuse_many_devices(cells: list[DictConfig]) -> list[str]:
    """Lightning starts its other ranks with the same command line: each would run the sweep."""
    devices = {cell.trainer.devices for cell in cells if "trainer" in cell}
    if any(isinstance(count, int) and count > 1 for count in devices):
        return ["trainer.devices > 1 in a sweep: run the cells one by one, without -m"]
    return []


def _refuse_own_launchers(cells: list[DictConfig], shared: DictConfig) -> list[str]:
    """What a cell chooses for itself Hydra 1.3 passes over, and 1.4 ends the sweep for."""
    return [
        f"hydra.{part}: all cells of a sweep share one, so no swept choice can set it; "
        f"give hydra/{part}=<choice> by itself"
        for part in ("launcher", "sweeper")
        if any(_plain(cell.hydra[part]) != _plain(shared.hydra[part]) for cell in cells)
    ]


def _plain(node: DictConfig) -> Any:
    return OmegaConf.to_container(node)


def job_folder(config: DictConfig) -> Path:
    """`config.folder`; in a sweep, whose jobs may share the time in its name, one below it."""
    job = HydraConfig.get()
    sweep = job.mode == RunMode.MULTIRUN
    return Path(config.folder) / str(job.job.num) if sweep else Path(config.folder)


def new_job_folder(config: DictConfig) -> Path:
    """The same, for a command that writes only into a folder of its own.

    Raises:
        UserError: it is there already.
    """
    folder = job_folder(config)
    if folder.exists():
        raise UserError(f"folder={folder} exists; give another folder")
    return folder


def settle_run_dir(config: DictConfig, folder: str) -> None:
    """Write the folder that Hydra made into the config, so that everything points there."""
    with open_dict(config):
        config.run_dir = folder
