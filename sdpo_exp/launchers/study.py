"""An Optuna study in a file: begun once, gone on with by every later command of the same name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sdpo_exp.config.check import close_matches
from sdpo_exp.errors import UserError
from sdpo_exp.launchers.base import require
from sdpo_exp.launchers.search_space import SearchSpace
from sdpo_exp.reports.run_records import RunRecord, finished_run, metrics_of, runs_of

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "random", "qmc"]
_STUDY, _ABOUT, _HASH, _OUTCOME = "sdpo_exp", "search", "hash", "outcome"


# Overrides that change no number of a run.
_FREE = ("name", "redo", "logger", "torch_threads")
Direction = Literal["maximize", "minimize"]


class About(NamedTuple):
    """What must stay the same for a study's trials to be comparable."""

    metric: str
    direction: Direction
    fixed: tuple[str, ...]

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """In words, against what a study file says."""
        now, then = self.as_json(), {key: other.get(key) for key in self._fields}
        differences = [
            f"{key} was {then[key]}, now it is {now[key]}"
            for key in ("metric", "direction")
            if now[key] != then[key]
        ]
        for word, some, others in (("had", then, now), ("lacked", now, then)):
            only = sorted(set(some["fixed"] or ()) - set(others["fixed"] or ()))
            differences += [f"its trials {word} {' '.join(only)}"] if only else []
        return differences

    def as_json(self) -> dict[str, Any]:
        """As a study file keeps it: of several values for a key, the last, which Hydra takes."""
        last = {line.split("=", 1)[0]: line for line in self.fixed}
        kept = sorted(line for key, line in last.items() if key not in _FREE)
        return {**self._asdict(), "fixed": kept}


def open_study(storage: str, about: About) -> optuna.Study:
    """Begin or go on with the study of a file or a database.

    Args:
        storage: a path, where the study becomes a journal of one line per event, or the URL of a
            database that SQLAlchemy knows.
        about: what the trials have in common.

    Raises:
        UserError: Optuna is missing, or the study is about something else.
    """
    require("optuna", "optuna", "hydra/sweeper=optuna")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = storage if "://" in storage else _journal(Path(storage))
    study = _load(place, about)
    differences = about.differences(study.user_attrs[_ABOUT])
    if differences and not any(trial.value is not None for trial in study.trials):
        # A metric misspelt, say: nothing is lost, for runs that finished are found again.
        optuna.delete_study(study_name=_STUDY, storage=place)
        return _load(place, about)
    if differences:
        raise UserError(
            f"{storage} holds another search: {'; '.join(differences)}. Give another name="
        )
    return study


def _load(place: str | optuna.storages.BaseStorage, about: About) -> optuna.Study:
    import optuna

    study = optuna.create_study(
        storage=place, study_name=_STUDY, direction=about.direction, load_if_exists=True
    )
    if _ABOUT not in study.user_attrs:
        study.set_user_attr(_ABOUT, about.as_json())
    return study


def _journal(path: Path) -> optuna.storages.BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        _mend(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _mend(path: Path) -> None:
    """Take off a last line that a full disk or a power cut left unfinished.

    Optuna would write the next one behind it, and then read neither.
    """
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


def set_sampler(study: optuna.Study, kind: Sampler, seed: int, *, batch: int) -> None:
    """A sampler for the next batch, decided by the seed and the number of trials so far.

    So a search that was interrupted between two batches goes on with the very same trials.
    """
    from optuna import samplers

    fresh = seed * 1_000_003 + len(study.trials)
    with warnings.catch_warnings():
        # Optuna calls some of these arguments experimental.
        warnings.simplefilter("ignore")
        if kind == "tpe":
            # Trials of one batch do not see each other's results: keep them apart.
            study.sampler = samplers.TPESampler(seed=fresh, constant_liar=batch > 1)
        elif kind == "random":
            study.sampler = samplers.RandomSampler(seed=fresh)
        else:  # its sequence goes on by the number of trials, and needs one scrambling
            study.sampler = samplers.QMCSampler(seed=seed, scramble=True)


def ask(study: optuna.Study, space: SearchSpace) -> tuple[optuna.Trial, list[str]]:
    """A new trial, and its overrides.

    Raises:
        UserError: the study knows another search space.
    """
    trial = study.ask()
    try:
        values = {axis.key: axis.suggest(trial) for axis in space.axes}
    except ValueError as error:
        study.tell(trial, state=_fail())
        raise UserError(
            f"the study knows other values for a key ({error}); give another name="
        ) from None
    return trial, space.overrides(values)


def remember_cell(trial: optuna.Trial, digest: str) -> None:
    """Note which cell a trial is, so that its run is found again after whatever happens."""
    trial.set_user_attr(_HASH, digest)


def tell(study: optuna.Study, trial: optuna.Trial, root: Path, digest: str, metric: str) -> None:
    """Give a trial the number that its run folder has, or mark it as failed.

    Raises:
        UserError: the run finished without that number.
    """
    run = finished_run(root, digest)
    if run is None:
        trial.set_user_attr(_OUTCOME, _why_not(root, digest))
        study.tell(trial, state=_fail())
        return
    value = _value(run, metric)
    trial.set_user_attr(_OUTCOME, "finished")
    trial.set_user_attr("folder", str(run.folder))
    study.tell(trial, value)


def settle_interrupted(study: optuna.Study, root: Path, metric: str) -> None:
    """Close the trials that an ended command left open.

    One whose run finished all the same gets its number; any other is marked as failed, and its
    values are tried again first.

    Raises:
        UserError: a run is still at work.
    """
    import optuna

    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        digest = trial.user_attrs.get(_HASH, "-")
        for run in runs_of(root, digest):
            if run.status == "running":
                raise UserError(f"trial {trial.number} is still running in {run.folder}; wait")
        finished = finished_run(root, digest)
        if finished is not None:
            study.tell(trial.number, _value(finished, metric))
        else:
            study.tell(trial.number, state=_fail())
            if trial.params:
                study.enqueue_trial(trial.params)


def counted(trials: Sequence[optuna.trial.FrozenTrial]) -> int:
    """Trials that ran to their end, well or badly; what was interrupted is tried again."""
    return sum(trial.value is not None or _OUTCOME in trial.user_attrs for trial in trials)


def outcome(trial: optuna.trial.FrozenTrial) -> str:
    """How a trial ended, in words."""
    if trial.value is not None:
        return "finished"
    if trial.state.name == "WAITING":
        return "to be tried again"
    return str(trial.user_attrs.get(_OUTCOME, "interrupted"))


def _value(run: RunRecord, metric: str) -> float:
    known = metrics_of(run.summary)
    if metric not in known:
        raise UserError(
            f"hydra.sweeper.metric={metric}: no such number in {run.folder}"
            f"{close_matches(metric, known).partition('; there')[0]} There are: "
            f"{', '.join(sorted(known))}"
        )
    return known[metric]


def _why_not(root: Path, digest: str) -> str:
    newest = max(runs_of(root, digest), key=lambda run: run.started_at, default=None)
    if newest is None:
        return "not run"
    return f"{newest.status}: {newest.reason}" if newest.reason else newest.status


def _fail() -> optuna.trial.TrialState:
    import optuna

    return optuna.trial.TrialState.FAIL
