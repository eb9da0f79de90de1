"""`python -m sdpo_exp.report`: run folders to one page, with tables beside it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.bounds import NonNegativeInt, PositiveInt
from sdpo_exp.cli.command import run_command
from sdpo_exp.cli.runs.gather_paths import gather_paths
from sdpo_exp.cli.runs.where import chosen, rewrite_where
from sdpo_exp.config.check import check_keys
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.reports.run_records import find_runs

KEYS: dict[str, Any] = {
    "paths": list[str],
    "where": dict[str, Any] | None,
    "folder": str | None,
    "title": str | None,
    "score": str | None,
    "images": NonNegativeInt,
    "test": Literal["sign", "wilcoxon"],
    "resamples": PositiveInt,
    "seed": NonNegativeInt,
}
_log = logging.getLogger(__name__)


def main() -> None:
    """Entry point of `python -m sdpo_exp.report`."""
    try:
        rewrite_where(sys.argv)
        gather_paths(sys.argv, KEYS)
    except UserError as error:
        sys.exit(str(error))
    run_command("report", report, check_report, check_paths)


def check_report(config: DictConfig) -> list[str]:
    """Keys and types, and a path that is not there."""
    problems = check_keys(config, KEYS)
    if problems:
        return problems
    missing = [path for path in config.paths if not Path(path).is_dir()]
    return [f"paths: {path}: {_what_is_wrong(path)}" for path in missing]


def _what_is_wrong(path: str) -> str:
    if Path(path).exists():
        return "not a folder; give run folders, or folders that hold some"
    return "no such folder"


def check_paths(config: DictConfig) -> list[str]:
    """A report needs runs, but a look at the configuration does not."""
    if not config.paths:
        return ["paths: which runs? Give run folders, or folders that hold some, such as outputs"]
    if find_runs(map(Path, config.paths)):
        return []
    return [
        f"paths: no runs in {', '.join(config.paths)}; a run is a folder with config.yaml and "
        "run.json or metrics.csv, as python -m sdpo_exp leaves it"
    ]


def report(config: DictConfig) -> None:
    """Read the runs, write the page and its tables; see `conf/report.yaml`.

    Raises:
        UserError: the runs are gone, or the folder cannot be written.
    """
    from sdpo_exp.reports.html.gather import Options, gather
    from sdpo_exp.reports.html.write import write_report

    where: Any = OmegaConf.to_object(config.where) if config.where else None
    records = chosen(find_runs(map(Path, config.paths)), where)
    first = Path(config.paths[0])
    folder = Path(config.folder or first / "report")
    options = Options(
        title=config.title or _title(first),
        metric=config.score,
        images=config.images,
        test=config.test,
        resamples=config.resamples,
        seed=config.seed,
    )
    found = gather(records, options)
    try:
        page = write_report(found, folder)
    except OSError as error:
        raise UserError(f"folder={folder}: cannot be written ({first_line(error)})") from error
    statuses = ", ".join(f"{count} {status}" for status, count in found.statuses.items())
    _log.info("%s: %s", found.counts, statuses)
    for notice in found.notices:
        _log.info("  %s%s", notice.title, f": {notice.detail}" if notice.detail else "")
    _log.info("report: %s", os.path.relpath(page))


def _title(first: Path) -> str:
    return f"Runs of {first.resolve().name}"
