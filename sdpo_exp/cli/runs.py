"""`python -m sdpo_exp.runs`: what runs there are, the best of them, and how two differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.cli.command import run_command
from sdpo_exp.cli.compare import gather_paths
from sdpo_exp.config.check import check_keys, close_matches
from sdpo_exp.errors import UserError
from sdpo_exp.reports.run_records import RunRecord, find_runs, is_run, read_run
from sdpo_exp.reports.run_tables import (
    Row,
    as_csv,
    as_json,
    as_table,
    config_rows,
    environment_rows,
    metric_names,
    metric_rows,
    run_rows,
)

KEYS: dict[str, Any] = {
    "paths": list[str],
    "metrics": list[str],
    "best": str | None,
    "order": Literal["max", "min"],
    "status": Literal["finished", "running", "interrupted", "failed", "died"] | None,
    "limit": PositiveInt | None,
    "format": Literal["table", "csv", "json"],
}
_DEFAULT = "outputs"
_FORMATS = {"table": as_table, "csv": as_csv, "json": as_json}


def main() -> None:
    """Entry point of `python -m sdpo_exp.runs`."""
    try:
        gather_paths(sys.argv, KEYS)
    except UserError as error:
        sys.exit(str(error))
    run_command("runs", runs, check_runs, lambda _: [])


def check_runs(config: DictConfig) -> list[str]:
    """Keys and types, and a path that is not there."""
    problems = check_keys(config, KEYS)
    if problems:
        return problems
    return [f"paths: {path}: no such folder" for path in config.paths if not Path(path).is_dir()]


def runs(config: DictConfig) -> None:
    """Print the runs, or how two of them differ; see `conf/runs.yaml`.

    Raises:
        UserError: there are none, or none has what is asked for.
    """
    paths = [Path(path) for path in config.paths or [_DEFAULT]]
    if len(paths) == 2 and all(is_run(path) for path in paths):
        first, second = map(read_run, paths)
        print(_FORMATS[config.format](_compared(first, second, config.format)))
        return
    records = find_runs(path for path in paths if path.is_dir())
    if not records:
        raise UserError(f"no runs in {', '.join(map(str, paths))}; python -m sdpo_exp makes one")
    chosen = _chosen(records, config)
    print(_FORMATS[config.format](run_rows(chosen, _columns(config))))
    if config.format == "table":
        _tell(records, chosen, config)


def _compared(first: RunRecord, second: RunRecord, form: str) -> list[Row]:
    """All that differs; as a table it is printed part by part, and the metrics come last."""
    config, environment = config_rows(first, second), environment_rows(first, second)
    if form != "table":
        return [{"metric": row["key"], "A": row["A"], "B": row["B"], "B - A": None}
                for row in (*config, *environment)] + metric_rows(first, second)  # fmt: skip
    for letter, record in (("A", first), ("B", second)):
        print(f"{letter}: {record.status}, {record.folder}")
    for title, rows in (("configuration", config), ("environment", environment)):
        print(f"\n{title}\n{as_table(rows) or 'no difference'}")
    print("\nmetrics")
    return metric_rows(first, second)


def _columns(config: DictConfig) -> list[str]:
    first = [config.best] if config.best is not None else []
    return list(dict.fromkeys([*first, *config.metrics]))


def _chosen(records: Sequence[RunRecord], config: DictConfig) -> list[RunRecord]:
    chosen = [record for record in records if config.status in (None, record.status)]
    if config.best is None:
        chosen.sort(key=lambda record: record.started_at)
    else:
        chosen = _by_metric(chosen, config.best, best_is_high=config.order == "max")
    if not chosen:
        raise UserError(f"none of the {len(records)} runs is {config.status}")
    return chosen[: config.limit]


def _by_metric(records: Sequence[RunRecord], metric: str, *, best_is_high: bool) -> list[RunRecord]:
    finished = [record for record in records if record.status == "finished"]
    values = {record.folder: record.metric(metric) for record in finished}
    having = [record for record in finished if values[record.folder] is not None]
    if not having:
        names = list(metric_names(finished))
        raise UserError(f"best={metric}: no finished run has it{close_matches(metric, names)}")
    sign = -1.0 if best_is_high else 1.0
    return sorted(having, key=lambda record: sign * float(values[record.folder] or 0.0))


def _tell(records: Sequence[RunRecord], chosen: Sequence[RunRecord], config: DictConfig) -> None:
    """What the table does not say."""
    if config.best is not None:
        print(f"\nbest by {config.best} ({config.order}): {chosen[0].folder}")
        if chosen[0].command:
            print(f"again: {chosen[0].command}")
    if len(chosen) < len(records):
        print(f"\n{len(chosen)} of {len(records)} runs")
