"""`python -m sdpo_exp.runs`: what runs there are, the best of them, and how two differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.bounds import PositiveInt
from sdpo_exp.cli.command import run_command
from sdpo_exp.cli.run_references import OUTPUTS
from sdpo_exp.cli.runs.gather_paths import gather_paths
from sdpo_exp.cli.runs.where import chosen as chosen_runs
from sdpo_exp.cli.runs.where import rewrite_where
from sdpo_exp.config.check import check_keys, close_matches
from sdpo_exp.errors import UserError
from sdpo_exp.reports.run_records import (
    RunRecord,
    find_runs,
    is_run,
    read_run,
    run_numbers,
)
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
    runs_table,
)
from sdpo_exp.terminal.screen import columns

KEYS: dict[str, Any] = {
    "paths": list[str],
    "metrics": list[str],
    "best": str | None,
    "order": Literal["max", "min"],
    "status": Literal["finished", "running", "interrupted", "failed", "died"] | None,
    "where": dict[str, Any] | None,
    "limit": PositiveInt | None,
    "format": Literal["table", "csv", "json"],
}
_FILES = {"csv": as_csv, "json": as_json}


def main() -> None:
    """Entry point of `python -m sdpo_exp.runs`."""
    try:
        rewrite_where(sys.argv)
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
    paths = [Path(path) for path in config.paths or [OUTPUTS]]
    if len(paths) == 2 and all(is_run(path) for path in paths):
        _compare(*map(read_run, paths), form=config.format)
        return
    records = find_runs(path for path in paths if path.is_dir())
    if not records:
        raise UserError(f"no runs in {', '.join(map(str, paths))}; python -m sdpo_exp makes one")
    where: Any = OmegaConf.to_object(config.where) if config.where else None
    chosen = _chosen(chosen_runs(records, where), config)
    metrics = _metrics(config)
    rows = run_rows(chosen, metrics, _numbers(records))
    if config.format == "table":
        print("\n".join(runs_table(rows, metrics, columns())))
        _tell(records, chosen, config)
    else:
        print(_FILES[config.format](rows))


def _numbers(records: Sequence[RunRecord]) -> dict[Path, int | None]:
    """Of the runs below `outputs`, where the numbers name them; None elsewhere."""
    known = {f.resolve(): n for f, n in run_numbers(find_runs([OUTPUTS])).items()}
    return {record.folder: known.get(record.folder.resolve()) for record in records}


def _compare(first: RunRecord, second: RunRecord, *, form: str) -> None:
    """Print all that differs, and every metric of both."""
    config, environment = config_rows(first, second), environment_rows(first, second)
    metrics = metric_rows(first, second)
    if form != "table":
        rows = [{"metric": row["key"], "A": row["A"], "B": row["B"], "B - A": None}
                for row in (*config, *environment)]  # fmt: skip
        print(_FILES[form](rows + metrics))
        return
    for letter, record in (("A", first), ("B", second)):
        print(f"{letter}: {record.status}, {record.folder}")
    for title, rows in (("configuration", config), ("environment", environment)):
        print(f"\n{title}\n{_differences(rows) or 'no difference'}")
    print(f"\nmetrics\n{as_table(metrics, columns())}")


def _differences(rows: Sequence[Row]) -> str:
    """A table; values below their keys where they are too long to stand side by side."""
    found, width = as_table(rows), columns()
    if width is None or all(len(line) <= width for line in found.lines):
        return str(found)
    return "\n".join(f"{row['key']}\n  A: {row['A']}\n  B: {row['B']}" for row in rows)


def _metrics(config: DictConfig) -> list[str]:
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
