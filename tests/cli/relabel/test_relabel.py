"""Every pair is scored once, whatever happens; winners are those of the rule."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sdpo_exp.cli.relabel.config import data_node
from sdpo_exp.cli.relabel.scoring import to_image
from sdpo_exp.cli.relabel.shards import ScoredPair, ShardKey, Shards
from sdpo_exp.errors import UserError
from sdpo_exp.metrics.preprocessing import crop
from sdpo_exp.types import ImagePair
from tests.cli.relabel.relabelling import (
    TINY,
    Brightness,
    composed,
    fake,
    pairs_of,
    relabel,
    stamps,
    trained_on,
)
from tests.data.pictures import pickapic_rows, write_pickapic


def test_the_metric_that_made_the_pairs_agrees_with_all_of_them(tmp_path: Path) -> None:
    parts = relabel(tmp_path, "part=validation", "data=tiny_sampled")
    assert list(parts) == ["validation"]
    found = parts["validation"]
    counts = {"pairs": 80, "bad": 0, "ties": 0, "below min_margin": 0, "kept": 80, "flipped": 0}
    assert found["counts"] == counts
    assert found["rule"]["decides"] == ["tiny_reward"]
    everything = {"agree": 80, "disagree": 0, "equal": 0, "share": 1.0}
    assert found["agreement"] == {"rule": everything, "metrics": {"tiny_reward": everything}}
    labels = pq.read_table(tmp_path / "validation.parquet")
    (source,) = [instantiate(composed("data=tiny_sampled").data.validation)]
    for name in ("winner", "loser"):
        theirs = [getattr(row, f"{name}_reward") for row in source.rows]
        assert labels[f"{name}_tiny_reward"].to_pylist() == pytest.approx(theirs, abs=1e-4)
    config = trained_on(tmp_path, "effective_batch=16").data
    assert config.train._target_.endswith("SampledPairs")  # was not asked for
    assert config.effective_batch == 16


def test_the_opposite_metric_flips_every_pair(tmp_path: Path) -> None:
    metrics = {"bright": fake(), "dark": fake(sign=-1.0)}
    before = relabel(tmp_path / "a", *TINY, "by=bright", **metrics)["train"]
    after = relabel(tmp_path / "b", *TINY, "by=dark", **metrics)["train"]
    kept = before["counts"]["kept"]
    assert 0 < before["counts"]["flipped"] < kept == after["counts"]["kept"]
    assert before["counts"]["flipped"] + after["counts"]["flipped"] == kept
    a, b = pairs_of(tmp_path / "a"), pairs_of(tmp_path / "b")
    for i in range(kept):
        assert to_brightness(a[i].winner) > to_brightness(a[i].loser)
        assert torch.equal(a[i].winner, b[i].loser)
    assert a.fingerprint() != b.fingerprint()


def to_brightness(pixels: torch.Tensor) -> float:
    return float(np.asarray(to_image(pixels)).mean())


def test_a_stopped_command_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = relabel(tmp_path / "straight", *TINY, bright=fake())
    assert Brightness.seen == 2 * (12 + 6)
    stopped = tmp_path / "stopped"
    # 12 pairs in files of 5, 5 and 2, then 6 pairs in files of 5 and 1.
    for fail_at, files in ((1, 0), (21, 2), (14, 4)):
        before = stamps(stopped)
        monkeypatch.setattr(Brightness, "fail_at", fail_at)
        with pytest.raises(
            UserError, match=r"interrupted; what is scored stays. folder=\S+ in the"
        ):
            relabel(stopped, *TINY, bright=fake())
        after = stamps(stopped)
        assert len(after) == files
        assert {name: after[name] for name in before} == before
        assert not (stopped / "train.parquet").exists()
    for partial in stopped.rglob("*.partial"):
        partial.write_bytes(b"half of a file")
    monkeypatch.setattr(Brightness, "fail_at", 100)
    assert relabel(stopped, *TINY, bright=fake()) == straight
    assert Brightness.seen == 2
    for name in ("train.parquet", "validation.parquet"):
        assert (stopped / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_a_later_metric_is_scored_alone_and_another_rule_scores_nothing(tmp_path: Path) -> None:
    one = {"bright": fake()}
    two = {**one, "dark": fake(sign=-1.0)}
    relabel(tmp_path, *TINY, **one)
    before = stamps(tmp_path)
    parts = relabel(tmp_path, *TINY, "rule=vote", **{**two, "again": fake()})
    assert Brightness.seen == 2 * 2 * (12 + 6)
    after = stamps(tmp_path)
    assert {name: after[name] for name in before} == before
    assert parts["train"]["counts"]["kept"] == 12  # two to one
    settings = {"_target_": fake()["_target_"], "sign": -1.0}
    scorer = {"settings": settings, "origin": {"source": "here"}}
    assert parts["train"]["scorers"]["dark"] == scorer
    weights = "weights={bright:1,dark:3}"
    parts = relabel(tmp_path, *TINY, "rule=weighted_sum", weights, "standardise=false", **two)
    assert Brightness.seen == 0
    assert stamps(tmp_path) == after
    assert parts["train"]["rule"]["weights"] == {"bright": 1, "dark": 3}
    table = pq.read_table(tmp_path / "train.parquet").to_pydict()
    assert table["margin"] == pytest.approx(
        [2 * (b - a) for a, b in zip(table["winner_bright"], table["loser_bright"], strict=True)]
    )
    with pytest.raises(UserError, match="train: no pair has a winner: 12 pairs, 0 bad, 12 ties"):
        relabel(tmp_path, *TINY, "rule=vote", **two)


def test_parts_are_relabelled_one_by_one_each_by_its_own_rule(tmp_path: Path) -> None:
    relabel(tmp_path, *TINY, "part=train", bright=fake())
    labels = (tmp_path / "train.parquet").read_bytes()
    parts = relabel(tmp_path, *TINY, "part=validation", "min_margin=5", bright=fake())
    assert [part["rule"]["min_margin"] for part in parts.values()] == [0, 5]
    assert Brightness.seen == 2 * 6
    assert (tmp_path / "train.parquet").read_bytes() == labels
    assert (len(pairs_of(tmp_path)), len(pairs_of(tmp_path, "validation"))) == (
        12,
        parts["validation"]["counts"]["kept"],
    )
    assert parts["validation"]["counts"]["below min_margin"] > 0


@pytest.mark.parametrize(
    ("overrides", "metrics", "words"),
    [
        (["data.train.seed=7"], {"bright": fake()}, "scores of other pairs .12 with fingerprint"),
        (["data.train.size=13"], {"other": fake()}, "12 with fingerprint .* these are 13 with"),
        (["shard=6"], {"bright": fake()}, "made with shard=5, not 6. Give the same again, or"),
        ([], {"bright": fake(sign=2.0)}, r"metric.bright had other settings .*sign: None -> 2.0"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, overrides: list[str], metrics: dict[str, Any], words: str
) -> None:
    relabel(tmp_path, *TINY, "part=train", bright=fake())
    before = stamps(tmp_path)
    with pytest.raises(UserError, match=words):
        relabel(tmp_path, *TINY, *overrides, "part=train", **metrics)
    assert Brightness.seen == 0
    assert stamps(tmp_path) == before


def test_the_device_is_no_setting_and_other_weights_are_refused(tmp_path: Path) -> None:
    key = ShardKey("f", 2, 1, {"a": 1})
    shards = Shards(tmp_path / "x", "x", key)
    shards.write(0, [ScoredPair(0, 1.0, 0.0)], {"commit": "abc"})
    shards.check()
    shards.check({"commit": "abc"})
    with pytest.raises(UserError, match=r"metric.x had other weights .*commit: abc -> def"):
        shards.check({"commit": "def"})
    assert shards.missing() == [1]
    (tmp_path / "x" / "00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"00001.parquet: cannot be read .* remove it and it is"):
        shards.read()
    relabel(tmp_path / "y", *TINY, "part=validation", bright=fake())
    relabel(tmp_path / "y", *TINY, "part=validation", bright=fake(device="cpu"))
    assert Brightness.seen == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_of_a_table_are_counted_by_reason_and_left_out(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    write_pickapic(tmp_path / "pairs", pickapic_rows()[:62])
    with caplog.at_level(logging.INFO):
        parts = relabel(
            tmp_path / "out",
            "part=train",
            "data=pickapic_v2",
            f"data.train.path={tmp_path / 'pairs'}",
            f"data.train.cache_dir={tmp_path / 'cache'}",
            f"data.num_workers={workers}",
            "shard=20",
            bright=fake(image_size=16),
        )
    found = parts["train"]
    # 62 rows, of which those that end in 5 and 7 are ties.
    assert found["counts"]["pairs"] == 50
    assert found["counts"]["bad"] == 7
    kept = found["counts"]["kept"]
    assert kept + found["counts"]["ties"] == 43
    assert Brightness.seen == 2 * 43
    rows = {kind: entry["first"] for kind, entry in found["bad_rows"].items()}
    name = f"{tmp_path / 'pairs'} row"
    assert rows["damaged image"] == [f"{name} 10"]
    assert rows["empty caption"] == [f"{name} 50", f"{name} 61"]
    assert "bad: 2 empty caption: " in caplog.text
    pairs = pairs_of(tmp_path / "out", "train", "resolution=8")
    assert len(pairs) == kept
    for i in range(kept):
        pair = pairs[i]  # no bad row among them
        assert isinstance(pair, ImagePair)
        winner, loser = (np.asarray(crop(image, 16)).mean() for image in pair[:2])
        assert winner > loser
    assert pairs.description.startswith(f"{tmp_path / 'pairs'} (train): 62 rows, 12 ties, 50 kept")


def test_data_that_followed_the_train_part_still_do(tmp_path: Path) -> None:
    write_pickapic(tmp_path / "pairs", pickapic_rows()[:20])
    source = (
        "data=pickapic_v2",
        f"data.train.path={tmp_path / 'pairs'}",
        f"data.train.cache_dir={tmp_path / 'cache'}",
        "data.train.holdout=0.3",
        "data.train.part=train",
        "data.validation.split=train",
        "data.validation.part=validation",
        "data.num_workers=0",
    )
    relabel(tmp_path / "out", *source, "part=train", bright=fake())
    data = trained_on(tmp_path / "out", "resolution=24", "max_steps=77", "seed=3").data
    assert data.train.source.part == "train"
    assert (data.validation.path, data.validation.holdout) == (str(tmp_path / "pairs"), 0.3)
    assert data.validation.columns.image_0 == "jpg_0"
    assert (data.transform.resolution, data.max_steps, data.seed) == (24, 77, 3)
    captions = {instantiate(data.validation)[0].prompt, instantiate(data.train)[0].prompt}
    assert len(captions) == 2


def test_what_points_into_the_data_gets_its_value_and_the_rest_stays() -> None:
    config = OmegaConf.create(
        {
            "data": {
                "train": {"path": "p", "seed": "${seed}"},
                "validation": {
                    "path": "${data.train.path}/x",
                    "seed": "${data.train.seed}",
                    "n": "${.m}",
                    "m": 4,
                    "sizes": ["${resolution}"],
                    "other": "${oc.select:data.train.path}",
                },
                "lr": "${resolution}",
                "home": "${oc.env:HOME}",
                "missing": "???",
            },
            "seed": 5,
            "resolution": 8,
        }
    )
    node = data_node(config.data, {"train": {"path": "p"}}, {"train": Path("/x/train.parquet")})
    assert node["train"]["source"] == {"path": "p"}
    assert node["train"]["labels"] == "/x/train.parquet"
    expected = {"path": "p/x", "seed": 5, "n": 4, "m": 4, "sizes": [8], "other": "p"}
    assert node["validation"] == expected
    assert (node["lr"], node["home"], node["missing"]) == ("${resolution}", "${oc.env:HOME}", "???")


def test_a_score_that_is_no_number_is_a_bad_row(tmp_path: Path) -> None:
    found = relabel(tmp_path, *TINY, "part=train", bright=fake("NoNumber"))["train"]
    (kind,) = found["bad_rows"]
    assert kind == "score is no finite number"
    assert 0 < found["counts"]["bad"] < 12
    assert found["counts"]["bad"] + found["counts"]["kept"] == 12


def test_a_scorer_that_gives_too_few_scores_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metric brightness: .3,. scores of 4 images"):
        relabel(tmp_path, *TINY, "part=train", bright=fake("TooFew"))


def test_a_prompt_or_image_that_a_scorer_refuses_ends_in_words(tmp_path: Path) -> None:
    write_pickapic(tmp_path / "pairs", pickapic_rows()[:4])
    with pytest.raises(UserError, match="tiny_reward: prompt 0 is "):
        relabel(
            tmp_path,
            "part=train",
            "data=pickapic_v2",
            f"data.train.path={tmp_path / 'pairs'}",
            f"data.train.cache_dir={tmp_path / 'cache'}",
            "data.num_workers=1",
        )


def test_pixels_are_rounded_to_the_nearest_level() -> None:
    levels = torch.arange(256, dtype=torch.float32).reshape(1, 16, 16).repeat(3, 1, 1)
    again = np.asarray(to_image(levels / 127.5 - 1 + 1e-4))
    assert np.array_equal(again[..., 0], levels[0].numpy())
    assert np.asarray(to_image(torch.full((3, 1, 1), 1.2))).tolist() == [[[255, 255, 255]]]


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_several_processes_score_the_same(tmp_path: Path) -> None:
    one = relabel(tmp_path / "one", *TINY, bright=fake())
    two = relabel(tmp_path / "two", *TINY, "devices=2", bright=fake())
    assert one == two
    contents = [[c for _, c in stamps(tmp_path / name).values()] for name in ("one", "two")]
    assert contents[0] == contents[1]
