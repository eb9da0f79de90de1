"""A sweeper that chooses its cells by what earlier ones gave: Optuna, asked and told in batches."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sdpo_exp.bounds import NonNegativeInt, PositiveInt
from sdpo_exp.config.cell_name import config_hash
from sdpo_exp.errors import UserError
from sdpo_exp.launchers import study as studies
from sdpo_exp.launchers.base import CellLauncher
from sdpo_exp.launchers.search_space import SearchSpace, read_space
from sdpo_exp.launchers.study import Direction, Sampler
from sdpo_exp.launchers.tuning_report import write_report

if TYPE_CHECKING:
    import optuna

_log = logging.getLogger(__name__)
STUDY_FILE = "study.journal"


class OptunaSweeper(Sweeper):
    """Search for the values that make a run's number largest or smallest.

    The study lies in a file beside the runs: the same command goes on with it until `n_trials`
    have ended, and a larger `n_trials` adds to it.

    Args:
        n_trials: in all, those of earlier commands counted.
        metric: a number of the run's `summary.json`, such as `eval/reward_change`.
        direction: which end of it is good.
        sampler: `tpe` learns from earlier trials; `random` and `qmc`, evenly spread, do not.
        seed: of the sampler.
        batch: trials that are chosen and run together; null means as many as the launcher runs
            side by side.
        storage: file or database URL of the study; null means `study.journal` beside the runs.
        params: swept keys and their ranges, as on the command line, which comes first.
    """

    def __init__(
        self,
        n_trials: PositiveInt = 20,
        metric: str = "eval/reward_change",
        direction: Direction = "maximize",
        sampler: Sampler = "tpe",
        seed: NonNegativeInt = 0,
        batch: PositiveInt | None = None,
        storage: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> None:
        self.n_trials, self.metric, self.direction = n_trials, metric, direction
        self.sampler, self.seed, self.batch = sampler, seed, batch
        self.storage, self.params = storage, dict(params or {})
        self._started = 0
        self.hydra_context: HydraContext
        self.config: DictConfig
        self.launcher: Launcher

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives, and build the launcher."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> float | None:
        """Run what is missing of the search; returns the best number."""
        try:
            return self._search(read_space(arguments, self.params))
        except UserError as error:
            # Hydra prints this kind without a traceback.
            raise CompactHydraException(str(error)) from None

    def _search(self, space: SearchSpace) -> float | None:
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        batch = self._batch_size()
        about = studies.About(self.metric, self.direction, space.fixed)
        study = studies.open_study(self.storage or str(folder / STUDY_FILE), about)
        studies.settle_interrupted(study, folder, self.metric)
        done = studies.counted(study.get_trials(deepcopy=False))
        _log.info("search: %d of %d trials are done", done, self.n_trials)
        try:
            while (left := self.n_trials - studies.counted(study.trials)) > 0:
                self._run_batch(study, space, folder, min(batch, left))
        finally:
            print(write_report(study, space, about, folder))
        if not any(trial.value is not None for trial in study.trials):
            raise UserError(f"none of {len(study.trials)} trials finished")
        return float(study.best_value)

    def _run_batch(self, study: optuna.Study, space: SearchSpace, folder: Path, count: int) -> None:
        studies.set_sampler(study, self.sampler, self.seed, batch=count)
        trials = []
        cells: dict[str, list[str]] = {}
        for _ in range(count):
            trial, overrides = studies.ask(study, space)
            digest = self._digest(overrides)
            studies.remember_cell(trial, digest)
            trials.append((trial, digest))
            cells[digest] = overrides  # a cell drawn twice runs once
        self.launcher.launch(list(cells.values()), initial_job_idx=self._started)
        self._started += len(cells)
        for trial, digest in trials:
            studies.tell(study, trial, folder, digest, self.metric)

    def _digest(self, overrides: list[str]) -> str:
        loader = self.hydra_context.config_loader
        return config_hash(loader.load_sweep_config(self.config, overrides))

    def _batch_size(self) -> int:
        if self.batch is not None:
            return self.batch
        if not isinstance(self.launcher, CellLauncher):
            return 1
        width = self.launcher.side_by_side()
        if width is None:
            raise UserError("how many trials to run at a time? give hydra.sweeper.batch=<number>")
        return width
