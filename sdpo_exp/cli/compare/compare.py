"""`python -m sdpo_exp.compare`: models against a base, by the scores of the same prompts."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from omegaconf import DictConfig

from sdpo_exp.bounds import NonNegativeInt, PositiveInt
from sdpo_exp.cli.command import new_job_folder, run_command
from sdpo_exp.cli.compare.matches import Choices, Plan, plan
from sdpo_exp.cli.compare.sources import Source, read_source, with_names
from sdpo_exp.cli.runs.gather_paths import gather_paths
from sdpo_exp.config.check import check_keys
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.terminal.screen import columns

if TYPE_CHECKING:
    from sdpo_exp.evaluation.outcomes import MetricAverage, ModelComparison

KEYS: dict[str, Any] = {
    "paths": list[str],
    "names": list[str] | None,
    "only": list[str] | None,
    "by": str | None,
    "pairing": Literal["auto", "prompt"],
    "cluster": Literal["text", "prompt"],
    "test": Literal["sign", "wilcoxon"],
    "resamples": PositiveInt,
    "seed": NonNegativeInt,
    "folder": str,
}
_log = logging.getLogger(__name__)


class Told(NamedTuple):
    """What was found out."""

    rows: Sequence[ModelComparison]
    averages: Sequence[MetricAverage]


def main() -> None:
    """Entry point of `python -m sdpo_exp.compare`."""
    try:
        gather_paths(sys.argv, KEYS)
    except UserError as error:
        sys.exit(str(error))
    run_command("compare", compare, check_compare, check_paths)


def check_compare(config: DictConfig) -> list[str]:
    """All that can be wrong: keys, types, a folder that is there, paths, pairs, metrics, labels."""
    problems = check_keys(config, KEYS)
    if problems:
        return problems
    if Path(config.folder).exists():
        problems.append(f"folder={config.folder} exists; give another folder")
    problems += _wrong_names(config)
    sources, unreadable = _sources(config)
    problems += unreadable
    if not problems and len(sources) > 1:
        problems += _plan(config, sources).problems
    return problems


def check_paths(config: DictConfig) -> list[str]:
    """Two paths are needed to run, but not to look at the configuration."""
    if len(config.paths) > 1:
        return []
    return [
        "paths: which models? At least two folders of python -m sdpo_exp.evaluate, the base first; "
        f"got {list(config.paths) or 'none'}"
    ]


def compare(config: DictConfig) -> None:
    """Compare, write and print; see `conf/compare.yaml`.

    Raises:
        UserError: the paths no longer hold what they held, or the folder cannot be written.
    """
    from sdpo_exp.evaluation.comparison import average_metrics, compare_matches

    sources, problems = _sources(config)
    found = _plan(config, sources)
    if problems := [*problems, *found.problems]:
        raise UserError("\n".join(problems))
    draws = {"seed": config.seed, "resamples": config.resamples}
    rows = compare_matches(found.matches, test=config.test, **draws)
    averages = [average_metrics(match, **draws) for match in found.matches]
    told = Told(rows, [average for average in averages if average is not None])
    folder = new_job_folder(config)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write(partial, config, sources, found, told)
        partial.rename(folder)
    except OSError as error:
        raise UserError(f"folder={folder}: cannot be written ({first_line(error)})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _log.info("%s", _told(sources, found, told))
    _log.info("comparison.md, .json and .png: %s", os.path.relpath(folder))


def _told(sources: Sequence[Source], found: Plan, told: Told) -> str:
    from sdpo_exp.reports.comparison_text import comparison_text

    return comparison_text(
        told.rows,
        base=sources[0].name,
        averages=told.averages,
        notes=found.notes,
        width=columns(),
    )


def _write(
    folder: Path, config: DictConfig, sources: Sequence[Source], found: Plan, told: Told
) -> None:
    from sdpo_exp.reports.comparison import comparison_content, comparison_page
    from sdpo_exp.reports.comparison_plot import plot_comparison

    base = sources[0].name
    page = comparison_page(
        told.rows,
        base=base,
        averages=told.averages,
        scales=_scales(sources),
        sources={source.name: source.path for source in sources},
        notes=found.notes,
    )
    (folder / "comparison.md").write_text(page, encoding="utf-8")
    content = _describe(config, sources, found) | comparison_content(told.rows, told.averages)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "comparison.json").write_text(f"{text}\n", encoding="utf-8")
    plot_comparison(folder / "comparison.png", told.rows, told.averages, base=base)


def _describe(config: DictConfig, sources: Sequence[Source], found: Plan) -> dict[str, Any]:
    """What was compared, and how; the base first."""
    kept = ("model", "prompts", "protocol")
    return {
        "models": [
            {"name": s.name, "path": s.path, **{key: _valid(s.said(key)) for key in kept}}
            for s in sources
        ],
        "settings": {
            **{key: config[key] for key in ("pairing", "cluster", "test", "resamples", "seed")},
            "by": found.axis,
        },
        "notes": list(found.notes),
    }


def _valid(value: Any) -> Any:
    """The same as strict JSON: samplers have infinite settings, which become texts."""
    if isinstance(value, dict):
        return {key: _valid(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_valid(inner) for inner in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _scales(sources: Sequence[Source]) -> dict[str, float]:
    """What printed means are multiplied by, of the metrics that an evaluation says it of."""
    said = {
        metric: source.said("metrics", metric, "display_scale")
        for source in reversed(sources)
        for metric in source.table.scores
    }
    return {m: float(s) for m, s in said.items() if isinstance(s, int | float) and s > 0}


def _sources(config: DictConfig) -> tuple[list[Source], list[str]]:
    """What can be read of the paths, and why the rest cannot."""
    sources, problems = [], []
    for path in config.paths:
        try:
            sources.append(read_source(path, config.only or ()))
        except UserError as error:
            problems.append(str(error))
    fits = config.names is not None and len(config.names) == len(sources)
    return with_names(sources, config.names if fits else None), problems


def _wrong_names(config: DictConfig) -> list[str]:
    if config.names is None:
        return []
    if len(config.names) != len(config.paths):
        return [
            f"names: {len(config.names)} names for {len(config.paths)} paths; give one for each"
        ]
    twice = [name for name, count in Counter(config.names).items() if count > 1]
    return [f"names: {', '.join(twice)} stands for several models; give each its own"] * bool(twice)


def _plan(config: DictConfig, sources: Sequence[Source]) -> Plan:
    return plan(
        sources[0],
        sources[1:],
        Choices(config.only, config.by, config.cluster, config.pairing),
    )
