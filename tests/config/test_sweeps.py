"""Every committed sweep is what its first line says: that many different cells."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from sdpo_exp.cli.command import preflight
from sdpo_exp.config import conf_dir
from sdpo_exp.config.cell_name import config_hash, register_resolvers
from sdpo_exp.config.check import check_config

SWEEPS = sorted(path.stem for path in (conf_dir() / "experiment").glob("sweep_*.yaml"))


@pytest.fixture(autouse=True)
def resolvers() -> None:
    register_resolvers()


def test_the_sweeps_that_are_promised() -> None:
    names = ("beta", "mu", "objective_safeguard", "scope", "seeds")
    assert [f"sweep_{name}" for name in names] == SWEEPS


@pytest.mark.slow
@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_is_what_it_says(sweep: str) -> None:
    cells = preflight("train", [f"experiment={sweep}"], check_config, lambda _: [])
    said = (conf_dir() / "experiment" / f"{sweep}.yaml").read_text()
    promised = re.search(r"^# python -m sdpo_exp experiment=(\w+): (\d+) runs", said, re.MULTILINE)
    assert promised is not None
    assert (promised[1], int(promised[2])) == (sweep, len(cells))
    assert len({config_hash(cell) for cell in cells}) == len(cells)
    assert {cell.name for cell in cells} == {sweep}
    # Each setting with every seed.
    seeds = Counter(cell.seed for cell in cells)
    assert len(seeds) >= 3
    assert len(set(seeds.values())) == 1


def test_the_ablation_is_the_published_grid() -> None:
    cells = preflight("train", ["experiment=sweep_objective_safeguard"], check_config, lambda _: [])
    choices = [cell.hydra.runtime.choices for cell in cells]
    assert Counter((choice.objective, choice.safeguard) for choice in choices) == {
        (objective, guard): 3 for objective in ("dpo", "dspo", "dmpo") for guard in ("on", "off")
    }
    # `sweep_scope` compares scopes, which one micro-batch a step would make alike.
    scopes = preflight("train", ["experiment=sweep_scope"], check_config, lambda _: [])
    assert all(cell.effective_batch > cell.data.micro_batch for cell in scopes)
