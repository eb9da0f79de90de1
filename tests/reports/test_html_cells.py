"""Which runs are one cell, what tells cells apart, and which cell is another's counterpart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sdpo_exp.reports.html.cells import Cell, cells_of, counterpart
from sdpo_exp.reports.html.runs import view_of
from sdpo_exp.reports.html.settings import differing, without_echoes
from sdpo_exp.reports.run_records import find_runs
from tests.reports.run_folders import Made, break_file, make_run, make_sweep

QUICK = Made(steps=8, images=2, samples=0)


def cells_in(root: Path) -> list[Cell]:
    return cells_of([view_of(record) for record in find_runs([root])])


def test_seeds_are_one_cell_and_choices_are_several(tmp_path: Path) -> None:
    make_sweep(tmp_path, seeds=2, steps=8, images=2, samples=0)
    cells = cells_in(tmp_path)
    assert [cell.label for cell in cells] == ["dpo / off", "dpo / on", "dmpo / off", "dmpo / on"]
    assert all(cell.seeds == ["0", "1"] for cell in cells)


def test_a_swept_value_is_named_once_and_in_the_column_if_it_is_the_safeguards(
    tmp_path: Path,
) -> None:
    for mu in (0.3, 0.9):
        settings = (("recipe.mu", mu), ("safeguard.mu", mu))
        make_run(tmp_path, replace(QUICK, settings=settings))
    for lr in (1e-5, 2e-5):
        make_run(tmp_path, replace(QUICK, objective="dmpo", settings=(("lr", lr),)))
    labels = {cell.label for cell in cells_in(tmp_path)}
    assert labels == {
        "dpo / on mu=0.3",
        "dpo / on mu=0.9",
        "dmpo lr=1e-05 / on",
        "dmpo lr=2e-05 / on",
    }


def test_a_seed_that_is_not_the_runs_own_tells_cells_apart(tmp_path: Path) -> None:
    for probe in (0, 5):
        for seed in (0, 1):
            settings = (("callbacks.probe.seed", probe),)
            make_run(tmp_path, replace(QUICK, seed=seed, settings=settings))
    cells = cells_in(tmp_path)
    assert [cell.row for cell in cells] == ["dpo probe.seed=0", "dpo probe.seed=5"]
    assert all(len(cell.runs) == 2 for cell in cells)


def test_the_last_finished_run_of_a_seed_counts(tmp_path: Path) -> None:
    make_run(tmp_path, replace(QUICK, started="2026-01-01T00:00:00"))
    later = make_run(tmp_path, replace(QUICK, started="2026-01-02T00:00:00"))
    make_run(tmp_path, replace(QUICK, started="2026-01-03T00:00:00", status="interrupted"))
    (cell,) = cells_in(tmp_path)
    assert len(cell.runs) == 3
    assert [run.folder for run in cell.counted] == [later]
    assert cell.finished


def test_a_cell_without_a_finished_run_shows_what_it_has(tmp_path: Path) -> None:
    make_run(tmp_path, replace(QUICK, status="running"))
    (cell,) = cells_in(tmp_path)
    assert len(cell.counted) == 1
    assert not cell.finished


def test_the_counterpart_differs_in_the_safeguard_only(tmp_path: Path) -> None:
    for guard in ("off", "on"):
        for lr in (1e-5, 2e-5):
            make_run(tmp_path, replace(QUICK, safeguard=guard, settings=(("lr", lr),)))
    mu = (("lr", 1e-5), ("recipe.mu", 0.5), ("safeguard.mu", 0.5))
    make_run(tmp_path, replace(QUICK, settings=mu))
    make_run(tmp_path, replace(QUICK, objective="dmpo"))
    cells = cells_in(tmp_path)
    found = {cell.label: counterpart(cell, cells) for cell in cells}
    partners = {label: partner.label for label, partner in found.items() if partner is not None}
    assert len(partners) == 3
    assert all(
        cell.settings["lr"] == partner.settings["lr"]
        for cell in cells
        if (partner := counterpart(cell, cells)) is not None
    )
    assert found["dmpo / on"] is None


def test_a_broken_configuration_leaves_a_cell_of_its_own(tmp_path: Path) -> None:
    make_run(tmp_path, QUICK)
    broken = make_run(tmp_path, replace(QUICK, seed=1))
    break_file(broken, "config.yaml", b"a: [1,\n: {")
    cells = cells_in(tmp_path)
    assert [len(cell.runs) for cell in cells] == [1, 1]
    assert len({cell.label for cell in cells}) == 2


def test_differing_keys_and_their_echoes() -> None:
    columns = differing(
        [{"recipe.mu": "1", "a.mu": "1", "lr": "2"}, {"recipe.mu": "3", "a.mu": "3"}]
    )
    assert columns == {"recipe.mu": ["1", "3"], "a.mu": ["1", "3"], "lr": ["2", "(absent)"]}
    assert without_echoes(columns, frozenset()) == {"lr": ("lr", "a.mu", "recipe.mu")}
    assert list(without_echoes(columns, frozenset({"recipe.mu"}))) == ["recipe.mu"]


def test_names_say_what_a_study_is_about_and_no_plumbing(tmp_path: Path) -> None:
    folder = "sdpo_exp.data.folder.FolderPairs"
    trials: tuple[tuple[tuple[str, object], ...], ...] = (
        (),
        (("objective.beta", 777.0),),
        (("safeguard.mu", 0.5),),
        (("data.train._target_", folder), ("data.train.path", "/home/me/own")),
        (("data.num_workers", 7), ("callbacks.probe.pairs", 4)),  # the first cell once more
        (("data.micro_batch", 4),),
    )
    for number, settings in enumerate(trials):
        make_run(tmp_path, replace(QUICK, settings=settings, started=f"2026-01-01T00:00:0{number}"))
    make_run(tmp_path, replace(QUICK, model="sd15"))
    labels = {cell.label: len(cell.runs) for cell in cells_in(tmp_path)}
    assert labels == {
        "tiny dpo micro_batch=8 / on": 2,  # only where nothing else tells two apart
        "tiny dpo beta=777 / on": 1,
        "tiny dpo / on mu=0.5": 1,
        "tiny folder own dpo / on": 1,
        "tiny dpo micro_batch=4 / on": 1,
        "sd15 dpo / on": 1,
    }


def test_what_came_to_nothing_is_folded_away(tmp_path: Path) -> None:
    from sdpo_exp.reports.html.gather import Options, gather

    make_run(tmp_path, QUICK)
    make_run(tmp_path, replace(QUICK, status="running", settings=(("lr", 2e-4),)))
    make_run(tmp_path, replace(QUICK, status="failed", settings=(("lr", 5e-4),)))
    report = gather(find_runs([tmp_path]), Options(resamples=20))
    assert [cell.settings["lr"] for cell in report.folded] == ["0.0005"]
    assert report.rows == ["dpo lr=0.0001", "dpo lr=0.0002"]
    assert len(report.cells) == 3


def test_model_and_data_are_headings_and_short_keys_have_the_word_before(tmp_path: Path) -> None:
    lora = ("tuning._target_", "sdpo_exp.models.tuning.LoraTuning")
    trials: tuple[tuple[tuple[str, object], ...], ...] = (
        (("data.train._target_", "sdpo_exp.testbed.hard.HardPairs"),),
        (),
        (("timesteps.min", 200),),
        (("callbacks.ema._target_", "sdpo_exp.callbacks.ema.EmaWeights"),),
        (lora, ("tuning.rank", 4), ("tuning.alpha", 4)),
        (lora, ("tuning.rank", 8), ("tuning.alpha", 8)),
    )
    for settings in trials:
        make_run(tmp_path, replace(QUICK, settings=settings))
    data = (
        ("data.train._target_", "sdpo_exp.data.folder.FolderPairs"),
        ("data.train.path", "/a/b"),
    )
    make_run(tmp_path, replace(QUICK, model="sd15", settings=data))
    cells = cells_in(tmp_path)
    assert {cell.group for cell in cells} == {"sd15 on folder b", "tiny", "tiny on tiny_hard"}
    assert {(cell.group, cell.short, cell.row) for cell in cells if cell.group != "tiny"} == {
        ("sd15 on folder b", "dpo", "sd15 dpo"),
        ("tiny on tiny_hard", "dpo", "tiny tiny_hard dpo"),
    }
    assert {cell.short for cell in cells if cell.group == "tiny"} == {
        "dpo", "dpo timesteps.min=200", "dpo ema", "dpo lora rank=4", "dpo lora rank=8",
    }  # fmt: skip
