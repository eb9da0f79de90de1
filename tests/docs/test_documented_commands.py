"""Every command and every code block in README and docs runs, with size limits added."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import BARE, SMALL, here, python, run, run_folders
from tests.hub_cache import SMALL_REAL, environment_of, fill

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Continuous integration runs the first two themselves, tests/cli/train/test_sweep.py the third.
MAKE_TARGETS = {"run", "test", "ablation"}


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for body in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL):
            found.append((page.name, body))
    return found


def commands() -> list[str]:
    lines = [
        line.split("  #")[0].strip() for _, body in blocks("bash") for line in body.splitlines()
    ]
    return sorted({line for line in lines if line})


REAL = ("model=sd15", "model=sdxl", "model=ovis_u1", "model=ovis_image")
# tests/docs/test_wandb_page.py runs these, with a server of its own.
OF_WANDB = {
    line.split("  #")[0].strip()
    for page, body in blocks("bash")
    if page == "wandb.md"
    for line in body.splitlines()
}
PYTHON = [
    line
    for line in commands()
    if (line.startswith("python -m sdpo_exp ") or line.endswith("sdpo_exp"))
    and line not in OF_WANDB
]


# tests/cli/data/test_pretrain.py runs these two, one after the other.
OF_THE_BASE_MODEL = (
    "python -m sdpo_exp.pretrain folder=outputs/pretrain/mine",
    "python -m sdpo_exp model.pretrained=outputs/pretrain/mine",
)


# And tests/cli/data/test_sample_pairs.py these.
OF_THE_PAIRS = (
    "python -m sdpo_exp.sample_pairs folder=outputs/sampled_pairs/mine seed=1",
    "python -m sdpo_exp data=tiny_sampled data.train.folder=outputs/sampled_pairs/mine",
)
# And these two follow on each other, too.
OF_THE_LABELS = (
    "python -m sdpo_exp.relabel folder=outputs/relabel/mine",
    "python -m sdpo_exp --config-dir outputs/relabel/mine/conf data=relabelled",
)
EXPORT = [line for line in commands() if line.startswith("python -m sdpo_exp.export ")]
GENERATE = [line for line in commands() if line.startswith("python -m sdpo_exp.generate ")]
EVALUATE = [line for line in commands() if line.startswith("python -m sdpo_exp.evaluate ")]
RUNS = [line for line in commands() if line.startswith("python -m sdpo_exp.runs ")]
REPORT = [line for line in commands() if line.startswith("python -m sdpo_exp.report ")]
COMPARE = [line for line in commands() if line.startswith("python -m sdpo_exp.compare ")]


def is_quick(command: str) -> bool:
    """Whether a command is tried in the fast tests, too; one of each kind."""
    looks = {"--help", "--cfg", "--info"} & set(shlex.split(command))
    return bool(looks) or command == "python -m sdpo_exp experiment=smoke"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny stand-ins for the released models and data, where the hub's cache would have them."""
    return fill(tmp_path_factory.mktemp("home") / "hub")


def test_no_command_escapes_these_tests() -> None:
    elsewhere = {
        *OF_THE_BASE_MODEL,
        *OF_THE_PAIRS,
        *OF_THE_LABELS,
        *GENERATE,
        *EXPORT,
        *EVALUATE,
        *COMPARE,
        *RUNS,
        *REPORT,
        *OF_WANDB,
    }
    rest = set(commands()) - set(PYTHON) - elsewhere
    assert rest == {f"make {target}" for target in MAKE_TARGETS}
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in MAKE_TARGETS)
    assert len(PYTHON) >= 14


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(line, marks=[] if is_quick(line) else [pytest.mark.slow])
        for line in PYTHON
        if line not in (*OF_THE_BASE_MODEL, *OF_THE_PAIRS, *OF_THE_LABELS)
    ],
)
def test_a_documented_command_runs(tmp_path: Path, cache: Path, command: str) -> None:
    arguments = shlex.split(command)[3:]
    if any(argument in REAL for argument in arguments):
        done = python(
            tmp_path, "-m", "sdpo_exp", *arguments, *SMALL_REAL, extra=environment_of(cache)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return
    if not {"--help", "--cfg", "--info"} & set(arguments):
        arguments = [a for a in arguments if not a.startswith("max_steps=")]
        sweep = "-m" in arguments or any(a.startswith("experiment=sweep_") for a in arguments)
        arguments += BARE if sweep else SMALL
        arguments = ["seed=0" if a == "seed=0,1,2" else a for a in arguments]
        if any(a.startswith("experiment=sweep_") for a in arguments):
            arguments.append("seed=0")  # tests/config/test_sweeps.py counts all of their cells
    for i, argument in enumerate(arguments):
        if argument == "resume=outputs/run/CELL/TIME":
            assert run(tmp_path, *SMALL).returncode == 0
            arguments[i] = f"resume={run_folders(tmp_path)[0]}"
            arguments += ["max_steps=3"]
            arguments.remove("max_steps=2")
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two runs, one of which failed, by every name of the pages."""
    folder = tmp_path_factory.mktemp("swept")
    few = [limit for limit in SMALL if "probe.pairs" not in limit]
    done = run(folder, "-m", "callbacks.probe.pairs=4,999", "objective=sft", *few)
    assert done.returncode == 1
    again = run(folder, *SMALL, "safeguard=off")
    assert again.returncode == 0, again.stderr
    for line in (*RUNS, *REPORT):
        for path in re.findall(r"outputs/(\w+)(?= |$)", line):
            if not (folder / "outputs" / path).exists():
                (folder / "outputs" / path).symlink_to("run")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", [*RUNS, *REPORT])
def test_a_documented_look_at_runs_works(swept: Path, command: str) -> None:
    from sdpo_exp.cli.runs import report, runs

    finished = [f for f in run_folders(swept) if (f / "evaluation.json").is_file()]
    names = {"run/CELL/TIME": finished[0], "run/OTHER/TIME": finished[1]}
    arguments = shlex.split(command)[3:]
    for name, folder in names.items():
        arguments = [a.replace(f"outputs/{name}", str(folder)) for a in arguments]
    main = runs.main if "sdpo_exp.runs" in command else report.main
    done = here(swept, main, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, with a checkpoint and a model."""
    folder = tmp_path_factory.mktemp("trained")
    assert run(folder, "max_steps=1", "callbacks=[checkpoint]", "evaluation=off").returncode == 0
    return run_folders(folder)[0]


def of_run(command: str, trained: Path) -> list[str]:
    """A command's words, with that run in the place of the pages' own."""
    words = shlex.split(command)[2:]
    return [word.replace("outputs/run/CELL/TIME", str(trained)) for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("command", EXPORT)
def test_a_documented_export_is_written(tmp_path: Path, trained: Path, command: str) -> None:
    arguments = of_run(command, trained)
    done = python(tmp_path, "-m", *arguments)
    assert done.returncode == 0, done.stderr
    written = len(list(tmp_path.glob("outputs/export/*/README.md")))
    assert written == ("--help" not in arguments)


@pytest.mark.slow
@pytest.mark.parametrize("command", GENERATE)
def test_a_documented_image_is_generated(tmp_path: Path, trained: Path, command: str) -> None:
    arguments = [a for a in of_run(command, trained) if not a.startswith("n=")]
    is_set = any(a.startswith("prompts=") for a in arguments)
    limits = ("steps=1", "prompts.n=2" if is_set else "n=1")
    done = python(tmp_path, "-m", *arguments, *limits)
    assert done.returncode == 0, done.stderr
    written = "manifest.json" if is_set else "grid.png"
    assert len(list(tmp_path.glob(f"outputs/generate/*/{written}"))) == 1


@pytest.mark.slow
def test_the_documented_evaluations_and_comparisons_follow_on_each_other(
    tmp_path: Path, trained: Path
) -> None:
    limits = ("steps=1", "prompts.n=4")
    drawn = "python -m sdpo_exp.generate prompts=tiny folder=outputs/generate/mine"
    assert drawn in GENERATE
    for line in (drawn, *EVALUATE, *COMPARE):
        arguments = of_run(line, trained)
        if line in COMPARE:
            arguments.append("resamples=50")
        elif not any(a.startswith("images=") for a in arguments):
            arguments += limits
        done = python(tmp_path, "-m", *arguments)
        assert done.returncode == 0, line + done.stdout + done.stderr
    for name in ("base", "tuned"):
        assert (tmp_path / "outputs" / "evaluate" / name / "scores.parquet").is_file()
    assert len(list(tmp_path.glob("outputs/compare/*/comparison.md"))) >= 1


@pytest.mark.slow
def test_the_documented_relabelling_confirms_every_label_and_trains(tmp_path: Path) -> None:
    relabel, train = OF_THE_LABELS
    assert {relabel, train} <= set(commands())
    done = python(tmp_path, "-m", *shlex.split(relabel)[2:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agreement with the source's order: rule 100.0%, tiny_reward 100.0%" in done.stdout
    done = run(tmp_path, *shlex.split(train)[3:], *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr


# tests/docs/test_python_page.py runs those of python.md, which train.
BLOCKS = [(page, body) for page, body in blocks("python") if page != "python.md"]


@pytest.mark.parametrize(("page", "code"), BLOCKS, ids=lambda v: v[:20])
def test_a_documented_code_block_runs(page: str, code: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(code, page, "exec"), names)
    if page == "README.md":
        assert 0 <= float(names["lambda_safe"].min()) <= 1
        assert names["pred"].grad is not None
    else:
        assert names["image"].size == (32, 32)


def test_the_mistakes_shown_are_the_mistakes_told(tmp_path: Path) -> None:
    (shown,) = [body for name, body in blocks("text") if name == "README.md" and "mistakes" in body]
    first, *rest = shown.strip().splitlines()
    done = run(tmp_path, *shlex.split(first)[4:])
    assert done.stderr.strip().splitlines() == rest


def test_links_between_pages_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), target


def test_functions_and_tests_named_by_the_method_page_exist() -> None:
    page = (ROOT / "docs" / "method.md").read_text()
    for path in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (ROOT / path).is_file(), path
    import importlib

    for dotted in ("types.PairErrors", "objectives.dpo", "objectives.dmpo", "objectives.dspo"):
        assert dotted in page
        importlib.import_module("sdpo_exp." + dotted.removesuffix(".PairErrors"))
