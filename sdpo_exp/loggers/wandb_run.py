"""W&B as a logger of runs: offline unless asked, never in a training's way."""

from __future__ import annotations

import logging
import os
import re
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import WandbLogger

from sdpo_exp.bounds import PositiveFloat
from sdpo_exp.errors import first_line
from sdpo_exp.loggers.wandb_session import open_run, staging_below

_log = logging.getLogger(__name__)
_STEP = "trainer/global_step"
_BY_TIME = re.compile(r"probe/t([^/]+)/(.+)")
_BINS = 20


class WandbRun(WandbLogger):
    """One W&B run per run folder.

    W&B's own step is the optimiser step, so all of a step stands in one row of the history, and
    sliders of images count what curves count. What W&B refuses is told once and left out.

    Args:
        save_dir: its files go to `wandb/` there; WANDB_DIR is heard first.
        project, entity, name, group, job_type, tags, notes: as in `wandb.init`.
        id: of a run to go on with; null: a new one, also where a training is resumed.
        resume: as in `wandb.init`; counts where `id` is given.
        offline: no network and no account.
        timeout: seconds to wait for the server at the start, before going on offline.
        wait_at_end: seconds to wait for uploads at the end; what is left is on the disk.
        log_model: `last.ckpt` and `best.ckpt` as the artifact `model-<id>`.
        checkpoints: where they are.
        cell: what the cell is, for grouping, as `cell.<key>` of the config.
    """

    def __init__(
        self,
        save_dir: str,
        project: str = "sdpo_exp",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        id: str | None = None,
        resume: Literal["allow", "must", "never"] = "allow",
        offline: bool = True,
        timeout: PositiveFloat = 30.0,
        wait_at_end: PositiveFloat = 600.0,
        log_model: bool = False,
        checkpoints: str | None = None,
        cell: Mapping[str, str] | None = None,
    ) -> None:
        # Lightning refuses artifacts of offline runs, and sets WANDB_MODE for the whole process.
        super().__init__(
            name=name,
            save_dir=os.environ.get("WANDB_DIR") or save_dir,
            project=project,
            id=id,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=list(tags),
            notes=notes,
            resume=resume if id else None,
            reinit="finish_previous",
        )
        self._offline, self._timeout, self._wait_at_end = offline, timeout, wait_at_end
        self._log_checkpoints = log_model
        self._checkpoints = Path(checkpoints or Path(save_dir, "checkpoints"))
        self._cell = dict(cell or {})
        self._by_time: list[dict[str, float]] = []
        self._told, self._last_step = False, 0

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, opened when first needed."""
        if self._experiment is None:
            # Lightning always passes `anonymous`, which W&B has done away with.
            wanted = {k: v for k, v in self._wandb_init.items() if k != "anonymous"}
            run = open_run(
                wanted,
                offline=self._offline,
                timeout=self._timeout,
                wait_at_end=self._wait_at_end,
            )
            self._experiment = run
            run.define_metric(_STEP)
            run.define_metric("*", step_metric=_STEP, step_sync=True)
        return self._experiment

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The configuration; dotted keys as mappings, which W&B shows dotted and can group by."""
        flat = vars(params) if isinstance(params, Namespace) else params
        self._safely(
            lambda: self.experiment.config.update(
                nested(flat) | {"cell": self._cell}, allow_val_change=True
            )
        )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """One row, or a part of one, of the history."""
        if step is None:
            self._safely(lambda: self.experiment.log(dict(metrics)))
            return
        self._remember(metrics, step)
        self._last_step = step
        self._safely(lambda: self.experiment.log({**metrics, _STEP: step}, step=step))

    @rank_zero_only
    def log_histogram(self, key: str, values: Sequence[float], step: int) -> None:
        """Values on a scale of 0 to 1, or to the largest, in the same bins at every step."""

        def log() -> None:
            import wandb

            top = max(1.0, *values)
            counted = np.histogram(np.asarray(values), bins=_BINS, range=(0.0, top))
            self.log_metrics({key: wandb.Histogram(np_histogram=counted)}, step)

        self._safely(log)

    @rank_zero_only
    def log_table(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """A table; cells that are arrays (H, W, 3) uint8 become images."""

        def log() -> None:
            import wandb

            rows = [[_cell(value) for value in row] for row in data or []] or None
            names: list[Any] | None = columns
            table = wandb.Table(columns=names, data=rows, dataframe=dataframe)
            self.log_metrics({key: table}, step)

        self._safely(log)

    @rank_zero_only
    def log_image(
        self, key: str, images: list[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Images, as files, arrays or PIL images."""
        self._safely(lambda: WandbLogger.log_image(self, key, images, step, **kwargs))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """The end of the training: what is only known now. A failed run ends here as failed."""
        if self._experiment is None:
            return
        self._safely(self._log_by_time)
        if status == "success":
            self._safely(self._log_model_files)
        else:
            self._safely(lambda: self.experiment.finish(exit_code=1))

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Nothing: only the checkpoints that a run ends with are kept."""

    def _log_model_files(self) -> None:
        files = [self._checkpoints / name for name in ("last.ckpt", "best.ckpt")]
        there = [path for path in files if path.is_file()]
        if not self._log_checkpoints or not there:
            return
        import wandb

        artifact = wandb.Artifact(f"model-{self.experiment.id}", type="model", metadata=self._cell)
        for path in there:  # immutable: no second copy on the disk
            artifact.add_file(str(path.absolute()), name=path.name, policy="immutable")
        self.experiment.log_artifact(artifact)

    def _remember(self, metrics: Mapping[str, Any], step: int) -> None:
        rows: dict[str, dict[str, float]] = {}
        for key, value in metrics.items():
            if (found := _BY_TIME.fullmatch(key)) is not None:
                row = rows.setdefault(found[1], {"step": step, "time": float(found[1])})
                row[found[2]] = value
        self._by_time += rows.values()

    def _log_by_time(self) -> None:
        """`probe/by_time`: all visits of the probe, a row for each step and time."""
        rows, self._by_time = self._by_time, []
        if rows:
            columns = list(rows[0])
            data = [[row.get(name) for name in columns] for row in rows]
            self.log_table("probe/by_time", columns, data, step=self._last_step)

    def _safely(self, action: Callable[[], object]) -> None:
        try:
            with staging_below(self.save_dir or "."):
                action()
        except Exception as error:
            if not self._told:
                _log.warning(
                    "W&B: %s; the training goes on, and what W&B refuses is left out there",
                    first_line(error),
                )
            self._told = True


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` -> `{"a": {"b": 1}}`; a key below a plain value stays as it is."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node: Any = tree
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[leaf] = value
        else:
            tree[key] = value
    return tree


def _cell(value: Any) -> Any:
    import wandb

    is_image = isinstance(value, np.ndarray) and value.ndim == 3
    return wandb.Image(value) if is_image else value
