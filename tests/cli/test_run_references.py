"""Short names of runs: `latest`, a hash's beginning, a number; and what is none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdpo_exp.cli.run_references import is_reference, name_runs, point_latest, referred
from sdpo_exp.cli.runs.gather_paths import gather_paths
from sdpo_exp.errors import UserError
from sdpo_exp.reports.run_records import find_runs
from tests.reports.run_folders import Made, make_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two runs of one cell, the first one failed, and one of another."""
    monkeypatch.chdir(tmp_path)
    made = [
        Made(seed=0, status="failed", started="2026-01-01T00:00:00"),
        Made(seed=0, started="2026-01-02T00:00:00"),
        Made(seed=1, started="2026-01-03T00:00:00"),
    ]
    folders = [make_run(Path("outputs"), one) for one in made]
    hashes = ("abcd1111", "abcd1111", "abcd2222")
    for folder, digest in zip(folders, hashes, strict=True):
        file = folder / "run.json"
        file.write_text(file.read_text().replace('"hash": "', f'"hash": "{digest}", "was": "'))
    return folders


def test_a_run_has_three_short_names(runs: list[Path]) -> None:
    assert referred("latest") == runs[2]
    assert [referred(str(number)) for number in (1, 2, 3)] == runs
    assert referred("abcd1") == runs[1]  # the finished one of the cell
    assert referred("abcd2222") == runs[2]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("abcd", "begins several hashes: abcd1111, abcd2222; give more"),
        ("ffff", "no such run; the newest by number and hash are:\n  3  abcd2222  outputs/run/"),
        ("9", "no such run"),
    ],
)
def test_no_run_or_several_are_told(runs: list[Path], word: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        referred(word)
    assert said in str(error.value)


def test_without_runs_there_are_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="latest: no runs in outputs"):
        referred("latest")


def test_a_path_wins(runs: list[Path]) -> None:
    assert is_reference("latest")
    Path("latest").mkdir()
    assert not is_reference("latest")
    assert not is_reference("outputs/run")
    assert not is_reference("cafe.ckpt")


def test_latest_leads_to_the_run_that_began_last(runs: list[Path]) -> None:
    for folder in (runs[2], runs[0]):
        point_latest(folder)
        assert Path("outputs/latest").resolve() == folder.resolve()
        assert referred("latest") == folder
    assert len(find_runs([Path("outputs")])) == 3
    assert [path.name for path in Path("outputs").iterdir()] in (
        ["run", "latest"],
        ["latest", "run"],
    )


def test_where_no_links_can_be_made_it_is_a_file(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_latest(runs[1])
    assert Path("outputs/latest").is_file()
    assert referred("latest") == runs[1]


def test_a_run_elsewhere_is_not_the_latest(runs: list[Path], tmp_path: Path) -> None:
    point_latest(make_run(tmp_path / "mine", Made()))
    assert not Path("outputs/latest").exists()


def test_commands_take_them(runs: list[Path]) -> None:
    argv = ["export", "checkpoint=latest", "weights=best", "resume=2"]
    name_runs(argv, ("checkpoint",))
    assert argv == ["export", f"checkpoint={runs[2]}", "weights=best", "resume=2"]
    argv = ["report", "1", "latest", "title=x"]
    gather_paths(argv, {"title", "paths"})
    assert argv == ["report", f"paths=['{runs[0]}','{runs[2]}']", "title=x"]


def test_a_short_name_is_told_beside_what_may_be_piped(
    runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    name_runs(["train", "resume=latest"], ("resume",))
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"resume={runs[2]}\n")


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_NTASKS"])
def test_processes_that_look_at_their_own_time_are_refused(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "2")
    with pytest.raises(UserError, match="resume=latest: give the run's folder"):
        name_runs(["train", "resume=latest"], ("resume",))
    name_runs(["train", f"resume={runs[0]}"], ("resume",))
    monkeypatch.setenv(variable, "1")
    name_runs(["train", "resume=latest"], ("resume",))
