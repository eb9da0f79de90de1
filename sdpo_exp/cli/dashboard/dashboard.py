"""`python -m sdpo_exp.dashboard`: the W&B workspace of runs, from code."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sdpo_exp.cli.command import new_job_folder, run_command
from sdpo_exp.config.check import check_keys
from sdpo_exp.config.command_line import rewrite_dry_run
from sdpo_exp.errors import UserError
from sdpo_exp.loggers.panels import missing_keys, sections

KEYS: dict[str, Any] = {
    "entity": str | None,
    "project": str,
    "name": str,
    "metrics": list[str],
    "group": str | None,
    "runs": str | None,
    "dry_run": bool,
    "folder": str,
}
_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `python -m sdpo_exp.dashboard`."""
    rewrite_dry_run(sys.argv)
    run_command("dashboard", dashboard, check_dashboard, check_library)


def check_dashboard(config: DictConfig) -> list[str]:
    """Keys, types, a folder that is there, runs that are not."""
    problems = check_keys(config, KEYS)
    if problems:
        return problems
    if config.dry_run and Path(config.folder).exists():
        problems.append(f"folder={config.folder} exists; give another folder")
    if config.runs is not None and not Path(config.runs).is_dir():
        problems.append(f"runs={config.runs}: no such folder")
    return problems


def check_library(config: DictConfig) -> list[str]:
    """The library is an extra."""
    del config
    from importlib.util import find_spec

    if find_spec("wandb_workspaces") is not None:
        return []
    return ["wandb-workspaces is not installed: pip install 'sdpo_exp[dashboard]'"]


def dashboard(config: DictConfig) -> None:
    """Save the workspace and print its address, or write what would be saved.

    Raises:
        UserError: there are no runs to check, no API key, or no server.
    """
    from sdpo_exp.cli.dashboard.workspace import save, workspace

    shown = sections(config.metrics)
    lacking = check_runs(Path(config.runs), config) if config.runs is not None else []
    for line in lacking:
        _log.warning("%s", line)
    made = workspace(
        shown,
        entity=config.entity or "",
        project=config.project,
        name=config.name,
        group=config.group,
    )
    if not config.dry_run:
        _log.info("%s", save(made))
        return
    content = {
        "entity": config.entity,
        "project": config.project,
        "name": config.name,
        "panels": [
            {"section": section.name, **vars(panel)}
            for section in shown
            for panel in section.panels
        ],
        "missing": lacking if config.runs is not None else None,
        "spec": made._to_model().spec.model_dump(by_alias=True, exclude_none=True, mode="json"),
    }
    folder = new_job_folder(config)
    folder.mkdir(parents=True)
    path = folder / "dashboard.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    count = sum(len(section.panels) for section in shown)
    _log.info("%d panels in %d sections: %s", count, len(shown), os.path.relpath(path))


def check_runs(root: Path, config: DictConfig) -> list[str]:
    """What runs recorded offline lack of what the panels show.

    Raises:
        UserError: there are none.
    """
    from sdpo_exp.loggers.offline import find_runs, read_run

    runs = [read_run(path) for path in find_runs(root)]
    if config.group is not None:
        runs = [run for run in runs if run.group == config.group]
    if not runs:
        raise UserError(f"runs={root}: no run of W&B below it; train with logger=[csv,wandb]")
    lacking = missing_keys([run.keys() for run in runs], sections(config.metrics))
    if not lacking:
        _log.info("every panel has what it shows in each of %d runs", len(runs))
    return lacking
