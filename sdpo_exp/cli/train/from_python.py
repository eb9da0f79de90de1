"""`sdpo_exp.compose` and `sdpo_exp.train`: the words of a command line, given by Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from sdpo_exp.cli.command import Check, is_multirun, preflight
from sdpo_exp.cli.run_references import name_runs
from sdpo_exp.cli.train.left_alone import caller_left_alone, one_device, run_log, torch_left_alone
from sdpo_exp.cli.train.own_files import check_own_files
from sdpo_exp.cli.train.own_words import add_own_words
from sdpo_exp.cli.train.train import check_train, late_check
from sdpo_exp.cli.train.train import train as train_run
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.command_line import name_sources, parsed, rewrite_booleans
from sdpo_exp.config.composition import compose_cell, readable
from sdpo_exp.config.hydra_versions import run_once
from sdpo_exp.errors import UserError
from sdpo_exp.launchers.plugins import register_plugins

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_SWEEP = "a sweep takes the command line; from Python call sdpo_exp.train once for each"


@dataclass(frozen=True)
class RunResult:
    """A run that is finished.

    Attributes:
        folder: of the run, absolute, with all that a command line leaves.
        summary: its `summary.json`.
    """

    folder: Path
    summary: dict[str, Any]

    @cached_property
    def pipeline(self) -> DiffusionPipeline:
        """The tuned model, opened when it is first asked for, as `load_pipeline(folder)` does."""
        from sdpo_exp.cli.checkpoints.pipelines import load_pipeline

        return load_pipeline(self.folder)


def compose(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> DictConfig:
    """The configuration that `python -m sdpo_exp OVERRIDES` would run with; nothing is written.

    Checked as a command line is that only looks (`--cfg job`): no torch is imported. Values that
    follow from others are interpolations still; `run_dir` is where a run begun now would go.

    Args:
        overrides: the words of a command line, such as `["objective=dmpo", "safeguard=true"]`.
        config_dir: a folder of configurations of your own, as `--config-dir`.

    Raises:
        UserError: with all mistakes.
    """
    with caller_left_alone():
        words, folder = _checked(overrides, config_dir, look=True)
        config = compose_cell("train", words, folder).config
        assert config is not None, "checked before"
        return _without_hydra(config)


def train(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> RunResult:
    """Train as `python -m sdpo_exp OVERRIDES` does, and leave the same run folder.

    Relative paths mean the current folder. What the run says goes to standard output. The
    caller's loggers, random state, warnings, `sys.argv` and signal handlers stay as they were.

    Args:
        overrides: the words of a command line, such as `["objective=dmpo", "safeguard=true"]`,
            or `["resume=outputs/run/CELL/TIME"]`.
        config_dir: a folder of configurations of your own, as `--config-dir`.

    Raises:
        UserError: something that the user can mend; of a configuration all mistakes at once. Of
            its kind is `Interrupted`, for Ctrl-C or a stopped cell of a notebook.
    """
    failed: list[Exception] = []
    done: list[Path] = []

    def job(config: DictConfig) -> None:
        done.append(Path(HydraConfig.get().runtime.output_dir))
        try:
            with run_log():
                train_run(config, words)
        except Exception as error:  # Hydra would print a line of its own
            failed.append(error)

    with caller_left_alone():
        words, folder = _checked(overrides, config_dir, look=False)
        with torch_left_alone():
            run_once("train", job, words, folder)
    if failed:
        raise failed[0]
    return RunResult(done[0], json.loads((done[0] / "summary.json").read_text()))


def _checked(
    overrides: Sequence[str], config_dir: str | Path | None, *, look: bool
) -> tuple[list[str], str | None]:
    """The words, those of a resumed run among them, and the folder of own configurations.

    Raises:
        UserError: they are no list of words, ask for a sweep, or have mistakes in them.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"config_dir={config_dir}: no such folder")
    register_resolvers()
    register_plugins()
    argv = ["sdpo_exp", *_flag(config_dir), *_words(overrides)]
    name_runs(argv, ("resume",))
    add_own_words(argv)
    rewrite_booleans(argv)
    name_sources(argv)
    flags = parsed(argv[1:])
    _refuse_sweeps(flags.overrides, flags.config_dir)
    nothing: Check = lambda _: []  # noqa: E731
    checks = (nothing, nothing) if look else (_late_check, check_own_files)
    preflight("train", argv[1:], check_train, *checks)
    return list(flags.overrides), flags.config_dir


def _late_check(config: DictConfig) -> list[str]:
    return one_device(config) or late_check(config)


def _flag(config_dir: str | Path | None) -> list[str]:
    return [] if config_dir is None else ["--config-dir", str(config_dir)]


def _words(overrides: Sequence[str]) -> list[str]:
    if isinstance(overrides, str) or not all(isinstance(word, str) for word in overrides):
        raise UserError(
            f"overrides: must be a list of words, such as ['lr=1e-4'], got {overrides!r}"
        )
    flags = [word for word in overrides if word.startswith("-")]
    if flags:
        raise UserError(
            f"{flags[0]}: flags are the command line's; for --config-dir give config_dir="
        )
    return list(overrides)


def _refuse_sweeps(overrides: list[str], config_dir: str | None) -> None:
    parser = OverridesParser.create()
    for word in readable(overrides)[0]:
        if parser.parse_override(word).is_sweep_override():
            raise UserError(f"{word}: several values make a sweep, and {_SWEEP}")
    config = compose_cell("train", readable(overrides)[0], config_dir).config
    if config is not None and is_multirun(config):
        raise UserError(f"hydra.mode=MULTIRUN: {_SWEEP}")


def _without_hydra(config: DictConfig) -> DictConfig:
    """The user's part; what Hydra's node is needed for is written out."""
    run_dir = str(config.run_dir)
    OmegaConf.resolve(config.logger)
    with open_dict(config):
        del config["hydra"]
        config.run_dir = run_dir
    return config
