"""Launchers and sweeper as Hydra and the check before a command see them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdpo_exp.config.composition import compose_cell
from sdpo_exp.launchers import base, plugins
from sdpo_exp.launchers.cell_job import CONSOLE_FILE, import_path, printing_to, thread_environment
from sdpo_exp.launchers.joblib_launcher import JoblibLauncher
from sdpo_exp.launchers.ray_launcher import RayLauncher
from sdpo_exp.launchers.submitit_launcher import SubmititLauncher
from tests.cli.command import run

LIBRARIES = ("joblib", "submitit", "ray", "optuna")


def problems(*overrides: str) -> list[str]:
    composed = compose_cell("train", list(overrides))
    assert composed.config is not None
    return composed.problems + plugins.plugin_problems(composed.config)


@pytest.mark.parametrize("choice", ["joblib", "submitit", "submitit_local", "ray"])
def test_every_launcher_is_accepted(choice: str) -> None:
    assert problems(f"hydra/launcher={choice}") == []


def test_hydra_builds_what_was_registered() -> None:
    from hydra.core.plugins import Plugins

    plugins.register_plugins()
    config = compose_cell("train", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"]).config
    assert config is not None
    launcher = Plugins.instance()._instantiate(config.hydra.launcher)
    assert isinstance(launcher, JoblibLauncher)
    assert launcher.n_jobs == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs: must be"),
        (["hydra/launcher=ray", "hydra.launcher.num_cpu=2"], "hydra.launcher.num_cpu=2: unknown"),
        (["hydra/launcher=submitit", "hydra.launcher.cluster=pbs"], "'slurm' or 'local'"),
        (["hydra/sweeper=optuna", "hydra.sweeper.sampler=grid"], "'tpe', 'random' or 'qmc'"),
        (["hydra/sweeper=optuna", "evaluation=off"], "evaluation=off draws no images"),
    ],
)
def test_mistakes_are_told_before_anything_runs(overrides: list[str], words: str) -> None:
    assert words in "\n".join(problems(*overrides))


@pytest.mark.parametrize(
    ("choice", "library", "extra"),
    [
        ("launcher=ray", "ray", "ray"),
        ("launcher=submitit", "submitit", "slurm"),
        ("sweeper=optuna", "optuna", "optuna"),
    ],
)
def test_a_missing_library_is_told_with_its_extra(
    choice: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    (told,) = problems(f"hydra/{choice}")
    assert told == f"hydra/{choice} needs {library}: pip install 'sdpo_exp[{extra}]'"


def test_every_swept_key_of_a_search_is_checked_at_both_ends(tmp_path: Path) -> None:
    searched = ("safeguard.mu=interval(0.1,2)", "recipe.bta=interval(1,2)", "objective=dpo,dmpx")
    done = run(tmp_path, "-m", "hydra/sweeper=optuna", *searched)
    assert done.returncode == 1
    for words in ("safeguard.mu: must be", "did you mean 'recipe.beta'", "did you mean 'dmpo'"):
        assert words in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_swept_choice_cannot_bring_its_own_launcher(tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    overlay = "# @package _global_\ndefaults: [override /hydra/launcher: joblib]\n"
    (folder / "mine.yaml").write_text(overlay)
    done = run(tmp_path, "--config-dir", "conf", "-m", "experiment=smoke,mine")
    assert done.returncode == 1
    assert "hydra.launcher: all cells of a sweep share one" in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_no_library_is_imported_to_look_at_a_command(tmp_path: Path) -> None:
    from tests.cli.command import python

    code = (
        "import sys, atexit\n"
        f"found = lambda: [m for m in {LIBRARIES!r} if m in sys.modules]\n"
        "atexit.register(lambda: print('LOADED', found()))\n"
        "from sdpo_exp.cli.train.train import main\nmain()"
    )
    words = ("hydra/launcher=ray", "hydra/sweeper=optuna", "lrr=1")
    done = python(tmp_path, "-c", code, *words, libraries=())
    assert "did you mean 'lr'" in done.stderr
    assert "LOADED []" in done.stdout


def test_threads_are_divided_and_the_users_own_number_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sdpo_exp.launchers.base.cores", lambda: 8)
    monkeypatch.setattr("sdpo_exp.launchers.joblib_launcher.cores", lambda: 8)
    assert JoblibLauncher(n_jobs=3).threads(cells=6) == 2
    assert JoblibLauncher(n_jobs=3).threads(cells=1) == 8
    assert JoblibLauncher(n_jobs=20).threads(cells=20) == 1
    assert JoblibLauncher().side_by_side() == 8
    assert JoblibLauncher(gpus=[0, 1]).side_by_side() == 2
    assert SubmititLauncher(cpus_per_task=4).threads(9) == 4
    assert RayLauncher(cpus_per_cell=0.5).threads(9) == 1
    assert set(thread_environment(2).values()) == {"2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in thread_environment(2)


def test_a_search_runs_as_many_trials_together_as_the_launcher_takes() -> None:
    assert RayLauncher(num_cpus=8, cpus_per_cell=2).side_by_side() == 4
    assert RayLauncher(num_cpus=8, num_gpus=1, gpus_per_cell=0.5).side_by_side() == 2
    assert RayLauncher(address="auto").side_by_side() is None
    assert SubmititLauncher(n_jobs=3).side_by_side() == 3
    assert SubmititLauncher().side_by_side() is None


def test_each_process_sees_one_gpu() -> None:
    launcher = JoblibLauncher(gpus=[2, 3])

    class Job:
        threads = 1

    seen = [launcher._environment(i, Job())["CUDA_VISIBLE_DEVICES"] for i in range(3)]  # type: ignore[arg-type]
    assert seen == ["2", "3", "2"]


def test_what_a_cell_and_its_children_print_goes_to_its_file(tmp_path: Path) -> None:
    file = tmp_path / CONSOLE_FILE
    with printing_to(file):
        os.system("echo from a child")
        os.write(1, b"from C\n")
    assert file.read_text() == "from a child\nfrom C\n"


def test_a_checkout_is_importable_in_a_bare_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    root, rest = import_path().split(os.pathsep)
    assert (Path(root) / "sdpo_exp" / "__init__.py").is_file()
    assert rest == "/elsewhere"


def test_slurm_is_asked_for_what_the_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit")
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    monkeypatch.setattr("submitit.slurm.slurm.SlurmExecutor.affinity", classmethod(lambda c: 1))
    config = compose_cell(
        "train",
        [
            "hydra/launcher=submitit",
            "hydra.launcher.n_jobs=4",
            "hydra.launcher.slurm_partition=gpu",
            "hydra.launcher.slurm_account=lab",
            "hydra.launcher.mem_gb=64",
            "hydra.launcher.slurm_setup=[module load cuda]",
            "hydra.launcher.slurm_additional_parameters={reservation:night}",
        ],
    ).config
    assert config is not None
    node = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    launcher = SubmititLauncher(**{k: v for k, v in node.items() if k != "_target_"})  # type: ignore[union-attr,arg-type,misc]
    executor = launcher._executor(tmp_path)
    assert isinstance(executor, submitit.AutoExecutor)
    text = executor._executor._make_submission_file_text("command", "id")
    for directive in (
        "--partition=gpu", "--account=lab", "--cpus-per-task=8", "--gpus-per-node=1",
        "--mem=64GB", "--time=1440", "--reservation=night",
    ):  # fmt: skip
        assert f"#SBATCH {directive}\n" in text, text
    assert "module load cuda" in text
    assert executor._executor.parameters["array_parallelism"] == 4
