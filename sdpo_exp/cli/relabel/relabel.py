"""`python -m sdpo_exp.relabel`: scores of a data set's pairs, and winners by a rule."""

from __future__ import annotations

from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from sdpo_exp.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from sdpo_exp.cli.command import job_folder, run_command
from sdpo_exp.config.check import check_keys, check_node
from sdpo_exp.data.preference_rules import PreferenceRule, RuleKind

_GROUPS = ("data", "metric")
KEYS: dict[str, Any] = {
    "part": Literal["train", "validation", "both"],
    "rule": RuleKind,
    "by": str | None,
    "weights": dict[str, PositiveFloat] | None,
    "standardise": bool,
    "min_margin": NonNegativeFloat,
    "batch": PositiveInt,
    "shard": PositiveInt,
    "device": Literal["auto", "cpu", "cuda"],
    "devices": PositiveInt | None,
    "folder": str,
    "torch_threads": PositiveInt,
    "seed": NonNegativeInt,
    "effective_batch": PositiveInt,
    "max_steps": PositiveInt,
    "resolution": PositiveInt,
}


def main() -> None:
    """Entry point of `python -m sdpo_exp.relabel`."""
    run_command("relabel", relabel, check_relabel, _late_check)


def check_relabel(config: DictConfig) -> list[str]:
    """Unknown keys, types and ranges, and a rule that does not fit the metrics."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key not in _GROUPS])
    problems = check_keys(own, KEYS) + list(check_node(config.data, "data"))
    if not config.get("metric"):
        return [
            *problems,
            "metric: by what? For example metric=[tiny_reward] or metric=[pickscore]",
        ]
    problems += check_node(config.metric, "metric")
    return problems or rule_of(config).problems([str(name) for name in config.metric])


def rule_of(config: DictConfig) -> PreferenceRule:
    """The rule that the command's keys describe."""
    weights: Any = OmegaConf.to_container(config.weights) if config.weights is not None else None
    least = float(config.min_margin)
    return PreferenceRule(config.rule, config.by, weights, config.standardise, least)


def parts_of(config: DictConfig) -> list[str]:
    """The parts of the data that are meant."""
    return ["train", "validation"] if config.part == "both" else [config.part]


def _late_check(config: DictConfig) -> list[str]:
    """Data and scorers that cannot be had, and pairs that come in a stream."""
    from sdpo_exp.config.sources import absent_sources

    parts = parts_of(config)
    problems = [line for part in parts if (line := _unfit(config.data.get(part), part))]
    return problems or absent_sources(config.data, parts) + absent_sources(config, ["metric"])


def _unfit(node: Any, part: str) -> str | None:
    from hydra.utils import get_object

    from sdpo_exp.cli.relabel.run import STREAM
    from sdpo_exp.data.relabelled import MIXTURE

    if not isinstance(node, DictConfig) or "_target_" not in node:
        return f"data.{part}: there is none; give other data, or another part"
    ours = str(node["_target_"]).startswith("sdpo_exp.")
    source = get_object(node["_target_"]) if ours else None
    if getattr(source, "endless", False):
        return f"data.{part}: {STREAM}"
    return (
        f"data.{part}: {MIXTURE}" if isinstance(source, type) and hasattr(source, "order") else None
    )


def relabel(config: DictConfig) -> None:
    """Score what is not scored yet, judge, write and say; see `conf/relabel.yaml`.

    Raises:
        UserError: pairs, scorers or folder cannot be used, or the user stopped it.
    """
    from sdpo_exp.cli.relabel.run import relabel_into

    relabel_into(config, job_folder(config), parts_of(config), rule_of(config))
