"""The body of `sdpo_exp.relabel`: score what is missing, judge, and write what training reads."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.cli.build import build
from sdpo_exp.cli.environment import describe_environment
from sdpo_exp.cli.printed import command
from sdpo_exp.cli.relabel.config import data_node, model_words, source_node, write_data_node
from sdpo_exp.cli.relabel.scoring import ScoringPlan, Unscored, score_share
from sdpo_exp.cli.relabel.shards import ShardKey, Shards
from sdpo_exp.cli.relabel.winners import write_winners
from sdpo_exp.cli.workers import (
    count_devices,
    quiet,
    resolve_device,
    run_on_devices,
    without_hydra,
)
from sdpo_exp.data.keyed import is_endless
from sdpo_exp.data.preference_rules import PreferenceRule
from sdpo_exp.errors import UserError, first_line
from sdpo_exp.protocols import PairSource
from sdpo_exp.whole_files import write_json

RECORD = "relabel.json"
STREAM = (
    "an endless stream has no rows that a score could belong to; use a table, such as "
    "data=pickapic_v2 or data=hf_pairs"
)
_log = logging.getLogger(__name__)


def relabel_into(
    config: DictConfig, folder: Path, parts: Sequence[str], rule: PreferenceRule
) -> None:
    """Relabel parts of `config.data` in a folder, which may hold a part of the work already.

    Raises:
        UserError: pairs, scorers or folder cannot be used, or the user stopped it.
    """
    quiet(config.torch_threads)
    works = [_Part(config, folder, name) for name in parts]
    record = _read_record(folder)
    try:
        for work in works:
            work.check()
        for metric in map(str, config.metric):
            _score(config, metric, works)
    except KeyboardInterrupt:
        raise UserError(
            f"interrupted; what is scored stays. folder={os.path.relpath(folder)} in the same "
            "command goes on"
        ) from None
    for work in works:
        record[work.name] = work.judge(rule)
        _write_record(folder, record)
    conf = _write_data(config, folder, record)
    words = ["--config-dir", os.path.relpath(conf), *model_words(config), "data=relabelled"]
    _log.info("\ntrain on it: %s", command("train", *words))


def _score(config: DictConfig, metric: str, works: Sequence[_Part]) -> None:
    """Score the pairs that a metric has not seen; a scorer is loaded for these alone."""
    unscored = [Unscored(work.name, work.source, work.shards(metric)) for work in works]
    unscored = [one for one in unscored if one.shards.missing()]
    for name in [work.name for work in works if work.name not in [one.part for one in unscored]]:
        _log.info("%s %s: scored already", name, metric)
    if not unscored:
        return
    device = resolve_device(config.device)
    most = max(len(one.shards.missing()) for one in unscored)
    count = min(count_devices(device, config.devices), most)
    root = {key: v for key, v in without_hydra(config).items() if key not in ("data", "metric")}
    node = {"metric": {metric: OmegaConf.to_container(config.metric[metric])}}
    workers = config.data.get("num_workers") or 0
    plan = ScoringPlan({**root, **node}, unscored, config.batch, workers)
    run_on_devices(score_share, device, count, plan)


class _Part:
    """One part of the data: its source, and the shards of every metric."""

    def __init__(self, config: DictConfig, folder: Path, name: str) -> None:
        self.config, self.folder, self.name = config, folder, name
        self.source: PairSource = build(config.data[name], f"data.{name}")
        if is_endless(self.source):
            raise UserError(f"data.{name}: {STREAM}")

    @cached_property
    def fingerprint(self) -> str:
        """Of the source."""
        return self.source.fingerprint()

    def shards(self, metric: str) -> Shards:
        """Where a metric's scores are or will be."""
        settings: Any = OmegaConf.to_container(self.config.metric[metric], resolve=True)
        settings = {key: value for key, value in settings.items() if key != "device"}
        key = ShardKey(self.fingerprint, len(self.source), self.config.shard, settings)
        return Shards(self.folder / "shards" / self.name / metric, metric, key)

    def check(self) -> None:
        """Refuse a folder that holds something else, before any scorer is loaded."""
        key = ShardKey(self.fingerprint, len(self.source), self.config.shard, {})
        for there in sorted((self.folder / "shards" / self.name).glob("*/")):
            Shards(there, there.name, key).check_pairs()
        for metric in map(str, self.config.metric):
            self.shards(metric).check()

    def judge(self, rule: PreferenceRule) -> dict[str, Any]:
        """Write the winners, say what became of the pairs, and return what is recorded."""
        shards = {metric: self.shards(metric) for metric in map(str, self.config.metric)}
        scores = {metric: found.read() for metric, found in shards.items()}
        path = self.folder / f"{self.name}.parquet"
        account = write_winners(path, self.source, self.fingerprint, scores, rule)
        _log.info("%s: %s", self.name, "\n  ".join(account.lines()))
        return {
            "labels": path.name,
            "rule": {**asdict(rule), "decides": rule.voices(list(shards))},
            "scorers": {
                metric: {"settings": dict(found.key.settings), "origin": found.origin()}
                for metric, found in shards.items()
            },
            "source": {
                "fingerprint": self.fingerprint,
                "config": source_node(self.config, self.name),
            },
            **account.record(),
        }


def _read_record(folder: Path) -> dict[str, Any]:
    """What earlier commands left in the folder, by part."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); remove it, scores stay in shards/"
        ) from None


def _write_record(folder: Path, parts: Mapping[str, Any]) -> None:
    write_json(folder / RECORD, {"parts": parts, **describe_environment()})


def _write_data(config: DictConfig, folder: Path, record: Mapping[str, Any]) -> Path:
    sources = {part: entry["source"]["config"] for part, entry in record.items()}
    labels = {part: folder / entry["labels"] for part, entry in record.items()}
    node = data_node(config.data, sources, labels)
    rules = ", ".join(f"{part} by {entry['rule']['kind']}" for part, entry in record.items())
    return write_data_node(folder, node, f"Pairs relabelled: {rules}. Made by sdpo_exp.relabel.")
