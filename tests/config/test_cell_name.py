"""Folders name their cell, and only what changes numbers changes the hash."""

from __future__ import annotations

import pytest

from sdpo_exp.config.cell_name import cell_name, register_resolvers
from sdpo_exp.config.composition import compose_cell, expand_sweep

register_resolvers()


def name(*overrides: str) -> str:
    config = compose_cell("train", list(overrides)).config
    assert config is not None
    return str(config.run_dir).split("/")[2]


def test_it_names_the_axes_and_what_a_study_is_about() -> None:
    label, _, digest = name("objective=dmpo", "safeguard=off", "seed=3").rpartition("-")
    assert label == "tiny-dmpo-off-seed3"
    assert len(digest) == 8


def test_plumbing_is_left_to_the_hash() -> None:
    words = ("seed=1", "max_steps=40", "objective.beta=50", "data=folder", "safeguard.mu=0.5")
    plumbing = (
        *("data.num_workers=0", "data.micro_batch=4", "effective_batch=8", "data.train.path=x"),
        *("data.train.holdout=0.1", "callbacks.probe.pairs=4", "evaluation=off", "max_time=2h"),
        *("trainer.accelerator=cpu", "data.prompt_dropout=0.1"),
    )
    label, _, digest = name(*words, *plumbing).rpartition("-")
    assert label == (
        "tiny-dpo-on-mu0.5-beta50-seed1-promptdropout0.1-datafolder-effectivebatch8-maxsteps40"
    )[: len("tiny-dpo-on-") + 60].rstrip("-.")
    assert digest != name(*words, "data.train.path=x").rpartition("-")[2]


def test_the_hash_follows_what_changes_numbers_and_nothing_else() -> None:
    def digest(*overrides: str) -> str:
        return name(*overrides).rpartition("-")[2]

    base = digest()
    assert digest("name=other") == digest("logger=[csv,wandb]") == digest("torch_threads=2") == base
    others = {digest(o) for o in ("seed=1", "lr=3e-4", "safeguard.mu=0.3", "objective=dmpo")}
    assert len(others | {base}) == 5


def test_paths_and_long_lists_make_safe_short_names() -> None:
    long = [f"callbacks.probe.times=[{','.join(['0.1'] * 60)}]", "model.pretrained=/a/b c/d"]
    label = cell_name(["tiny", "dpo", "on"], long, "0123abcd")
    assert len(label) < 90
    assert "/" not in label
    assert " " not in label
    assert label.endswith("-0123abcd")


def test_a_sweep_expands_as_hydra_does() -> None:
    cells = list(expand_sweep(["objective=dpo,dmpo", "seed=range(0,2)", "lr=1e-4"], {}))
    assert len(cells) == 4
    assert ["objective=dmpo", "seed=1", "lr=1e-4"] in cells
    with_params = list(expand_sweep(["objective=sft"], {"objective": "dpo,dmpo", "seed": "1,2"}))
    assert [cell[0] for cell in with_params] == ["objective=sft"] * 2


@pytest.mark.parametrize(
    ("words", "digest"),
    [
        (["data=folder", "data.train.path=photos"], "8884ef2a"),
        (["data=hf_pairs", "data.train.path=owner/name"], "92be8754"),
        (["model=sd15"], "ee84de23"),
    ],
)
def test_a_key_that_came_later_changes_no_hash_at_its_default(
    words: list[str], digest: str
) -> None:
    """Of runs recorded before `template` was there."""
    assert name(*words).endswith(f"-{digest}")
    assert not name(*words, "data.train.template='a {caption}'").endswith(f"-{digest}")
    assert not name(*words, "data.validation.template='a {caption}'").endswith(f"-{digest}")
    assert name(*words, "data.train.template=null").endswith(f"-{digest}")
