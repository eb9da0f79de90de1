"""`python -m sdpo_exp.compare`: what it finds, writes and refuses."""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdpo_exp.cli.command import preflight
from sdpo_exp.cli.compare.compare import KEYS, check_compare, check_paths, main
from sdpo_exp.cli.compare.sources import read_source
from sdpo_exp.cli.runs.gather_paths import gather_paths
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.errors import UserError
from sdpo_exp.evaluation.comparison import ImageKey, PromptKey, Score
from sdpo_exp.evaluation.scores import EVALUATION_FILE, SCORES_FILE, ScoreTable, write_scores
from sdpo_exp.evaluation.statistics import holm
from tests.cli.command import looking, python

MANIFESTS = Path(__file__).parents[2] / "evaluation" / "manifests"


TEXTS = ("a red kite", "a tin robot", "a red kite", "a bowl of plums")
ZEROS = [[0.0]] * 4
Rows = Sequence[Sequence[float]]


def evaluation(
    folder: Path,
    scores: Mapping[str, Rows],
    *,
    texts: Sequence[str] = TEXTS,
    styles: Sequence[str] = (),
    **content: Any,
) -> Path:
    """What `evaluate` leaves: of row i, column j of a metric prompt i, seed j."""
    folder.mkdir(parents=True)
    prompts = [PromptKey("mine", index) for index in range(len(texts))]
    by_metric = {
        metric: [
            Score(ImageKey("mine", prompt, seed), value)
            for prompt, row in enumerate(rows)
            for seed, value in enumerate(row)
        ]
        for metric, rows in scores.items()
    }
    labels = {"category": dict(zip(prompts, styles, strict=True))} if styles else {}
    table = ScoreTable(by_metric, dict(zip(prompts, texts, strict=True)), labels)
    write_scores(folder / SCORES_FILE, table)
    usual = {"name": folder.name, "prompts": {"name": "mine", "sha256": "ab12", "n": len(texts)}}
    (folder / EVALUATION_FILE).write_text(json.dumps({**usual, "pairing": "index", **content}))
    return folder


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """base, dpo and sdpo, of four prompts with two seeds by two metrics, with categories."""
    rows = np.random.default_rng(0).normal(size=(3, 2, 4, 2)).astype(np.float32).tolist()
    scale = {"clip": {"display_scale": 100, "origin": {"sha256": {"a": "1"}}}}
    for name, (clip, reward) in zip(("base", "dpo", "sdpo"), rows, strict=True):
        evaluation(
            tmp_path / name,
            {"clip": clip, "reward": reward},
            styles=["out", "in", "out", "in"],
            protocol={"steps": 50, "sampler": {"class": "Euler", "clip": -math.inf, "x": math.nan}},
            metrics=scale,
        )
    return tmp_path


def command(folder: Path, *arguments: str) -> None:
    """The command in `folder`, in this process: importing takes longest."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["compare", *arguments])
        try:
            main()
        finally:  # Hydra's handlers write to a stream that only this test has
            root.handlers[:] = handlers
            root.setLevel(level)


def told(folder: Path, *arguments: str, patch: pytest.MonkeyPatch) -> list[str]:
    """The mistakes of a command line, found in this process."""
    patch.chdir(folder)
    register_resolvers()
    argv = ["compare", *arguments]
    gather_paths(argv, KEYS)
    try:
        preflight("compare", argv[1:], check_compare, check_paths)
    except UserError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    return []


def test_three_evaluations_become_page_numbers_and_picture(three: Path) -> None:
    arguments = ("base", "dpo", "sdpo", "resamples=300", "folder=found")
    done = looking(three, "compare.compare", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "LOADED []" in done.stdout
    found = three / "found"
    assert sorted(file.name for file in found.iterdir()) == [
        "comparison.json", "comparison.md", "comparison.png"
    ]  # fmt: skip
    page = (found / "comparison.md").read_text()
    assert "\nsdpo (b) against base (a)\n\nmetric " in done.stdout
    assert "#" not in done.stdout
    assert "|" not in done.stdout
    assert "## sdpo (b) against base (a)" in page
    assert "x100: " in page
    assert "| clip | mean of the categories |" in page
    assert "| mean of the 2 metrics | 3 | 8 |" in page
    assert "adjusted for the 4 on this page" in page
    assert "4 prompts have 3 different texts" in page
    assert (np.asarray(Image.open(found / "comparison.png").convert("L")) < 200).mean() > 0.01
    assert_numbers(three, strict_json(found / "comparison.json"))


def strict_json(file: Path) -> dict[str, Any]:
    """Content without NaN and Infinity, which json reads and others do not."""
    content: dict[str, Any] = json.loads(file.read_text(), parse_constant=pytest.fail)
    return content


def assert_numbers(folder: Path, content: Mapping[str, Any]) -> None:
    """The file's numbers, from the tables by other means."""
    assert content["settings"] == {
        "pairing": "auto", "cluster": "text", "test": "sign", "resamples": 300, "seed": 0,
        "by": "category",
    }  # fmt: skip
    assert [model["name"] for model in content["models"]] == ["base", "dpo", "sdpo"]
    assert content["models"][1]["prompts"]["sha256"] == "ab12"
    assert content["models"][1]["protocol"]["sampler"] == {
        "class": "Euler", "clip": "-inf", "x": "nan"
    }  # fmt: skip
    assert all("differently" not in note for note in content["notes"])
    rows = content["comparisons"]
    assert [(row["model"], row["metric"]) for row in rows] == [
        ("dpo", "clip"), ("dpo", "reward"), ("sdpo", "clip"), ("sdpo", "reward")
    ]  # fmt: skip
    assert [row["p_holm"] for row in rows] == pytest.approx(list(holm([r["p_sign"] for r in rows])))
    values = {
        name: {m: [s.value for s in scores] for m, scores in source.table.scores.items()}
        for name in ("base", "dpo", "sdpo")
        for source in [read_source(str(folder / name))]
    }
    for row in rows:
        change = np.subtract(values[row["model"]][row["metric"]], values["base"][row["metric"]])
        assert (row["prompts"], row["images"]) == (3, 8)
        assert row["difference"]["value"] == pytest.approx(change.mean())
        assert row["win_rate"]["value"] == (change > 0).mean()
        outside = change.reshape(4, 2)[[0, 2]].ravel()
        assert row["categories"]["out"]["wins"] == (outside > 0).sum()
        assert row["categories"]["out"]["prompts"] == 1  # the kite twice, which is one text
        assert row["categories"]["out"]["difference"]["low"] is None
    for average in content["averages"]:
        rates = [r["win_rate"]["value"] for r in rows if r["model"] == average["model"]]
        assert average["win_rate"]["value"] == pytest.approx(np.mean(rates))
        assert average["win_rate"]["low"] < np.mean(rates) < average["win_rate"]["high"]


@pytest.mark.slow
def test_public_manifests_meet_by_the_public_rules(tmp_path: Path) -> None:
    for name in ("base", "tuned"):
        shutil.copy(MANIFESTS / f"{name}.json", tmp_path)
    arguments = ("base.json", "tuned.json", "names=[SD,'DPO, tuned']", "by=category", "folder=out")
    done = python(tmp_path, "-m", "sdpo_exp.compare", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "base.json: 2 entries without prompt or path of an image left out" in done.stdout
    assert (
        "SD and DPO, tuned are paired by prompt: 5 pairs of 4 prompts. Left out: 1 image of SD "
        "left over under a prompt that both have; 1 image of SD of a prompt that the other does "
        "not have; 2 images of DPO, tuned of a prompt that the other does not have."
    ) in done.stdout
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    pick, reward = content["comparisons"]
    assert (pick["metric"], pick["prompts"], pick["images"]) == ("pickscore", 4, 5)
    assert (pick["wins"], pick["ties"], pick["losses"]) == (2, 2, 1)
    assert pick["win_rate"]["value"] == 3 / 5
    assert reward["win_rate"]["value"] == 3.5 / 5
    assert content["averages"][0]["win_rate"]["value"] == pytest.approx((3 / 5 + 3.5 / 5) / 2)
    # The kites and the door; the labels are the base's.
    assert reward["categories"]["outside"]["win_rate"]["value"] == pytest.approx(2.5 / 3)
    assert content["models"][0]["path"] == "base.json"


def test_all_mistakes_are_told_at_once_without_torch(three: Path) -> None:
    run = three / "outputs" / "run, a=b"
    (run / "model").mkdir(parents=True)
    (run / "config.yaml").write_text("")
    before = sorted(three.rglob("*"))
    arguments = ("base", "outputs/run, a=b", "gone", "names=[a,b]", "folder=dpo")
    done = looking(three, "compare.compare", *arguments)
    assert done.returncode != 0
    assert "4 mistakes in the configuration; nothing was run:" in done.stderr
    for words in (
        "folder=dpo exists; give another folder",
        "names: 2 names for 3 paths; give one for each",
        "outputs/run, a=b: a training run, not yet evaluated. Do that first: "
        "python -m sdpo_exp.evaluate checkpoint='outputs/run, a=b'",
        "gone: no such file or folder",
    ):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "LOADED []" in done.stdout
    assert sorted(three.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "paths: which models? At least two folders of python -m sdpo_exp.evaluate, the base "
             "first; got none"),
        (["base"], "got ['base']"),
        (["base", "dpo", "tset=sign"], "tset=sign: unknown key; did you mean 'test'?"),
        (["base", "dpo", "test=t", "resamples=0"], "resamples: must be greater than"),
        (["base", "dpo", "only=[cilp,beauty]"],
         "only=cilp: dpo (dpo) has no such metric; did you mean 'clip'?"),
        (["base", "dpo", "only=[beauty]"],
         "only=beauty: base (base) has no such metric; there are: clip, reward"),
        (["base", "dpo", "by=categorie"], "by=categorie: no such label; did you mean 'category'?"),
        (["base", "dpo", "names=[a,a]"], "names: a stands for several models; give each its own"),
        (["base", "dpo", "names=a"], "names: must be a valid list, got 'a'"),
    ],
    ids=lambda v: " ".join(v)[:40] if isinstance(v, list) else "",
)  # fmt: skip
def test_a_mistake_of_the_command_line_is_told(
    three: Path, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(words in line for line in told(three, *arguments, patch=monkeypatch))


def test_right_command_lines_have_no_mistakes(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(three, "base", "dpo", patch=monkeypatch) == []
    for value in ("by=category", "by=set", "test=wilcoxon", "cluster=prompt", "pairing=prompt",
                  "only=[reward]", "names=[a,b]"):  # fmt: skip
        assert told(three, "base", "dpo", value, patch=monkeypatch) == [], value


CLIP = {"clip": ZEROS}
BROKEN = {"clip": [[0.0], [math.nan], [0.0], [0.0]]}


@pytest.mark.parametrize(
    ("scores", "content", "words"),
    [
        (CLIP | {"beauty": ZEROS}, {},
         "other (other) and base must have the same metrics; only one of them has beauty. Compare "
         "by what all have: only=[clip]"),
        (CLIP, {"prompts": {"name": "mine", "sha256": "cd34"}},
         "other (other): its prompts mine are not those of base: sha256 cd34 and ab12. Generate "
         "from the same prompts, or pair equal texts: pairing=prompt"),
        (CLIP, {"prompts": None, "texts": ["a red kite", "a robot", "a red kite", "a plum"]},
         "other (other): prompt 1 of set mine is 'a robot', and 'a tin robot' in base."),
        ({"clip": [[0.0, 1.0], *ZEROS[1:]]}, {},
         "clip: scores cannot be paired; only in other: (set mine, prompt 0, seed 1)."),
        (BROKEN, {},
         "clip: other: the score is not a finite number: (set mine, prompt 1, seed 0)."),
    ],
    ids=["metrics", "hash", "texts", "images", "nan"],
)  # fmt: skip
def test_evaluations_that_cannot_be_compared_are_told(
    tmp_path: Path,
    scores: Mapping[str, Rows],
    content: dict[str, Any],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluation(tmp_path / "base", CLIP)
    evaluation(tmp_path / "other", scores, **content)
    (line,) = told(tmp_path, "base", "other", patch=monkeypatch)
    assert line.startswith(words)


def test_metrics_that_say_the_same_share_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation(tmp_path / "base", {"clip": ZEROS, "reward": ZEROS})
    evaluation(tmp_path / "other", {"clip": ZEROS[1:], "reward": ZEROS[1:]})
    (line,) = told(tmp_path, "base", "other", patch=monkeypatch)
    assert line.startswith("clip, reward: scores cannot be paired; only in base: ")


@pytest.mark.slow
def test_other_prompts_of_the_same_name_can_meet_by_text(tmp_path: Path) -> None:
    texts = ["a tin robot", "a plum", "a red kite", "an owl"]
    evaluation(tmp_path / "base", {"clip": [[0.0], [0.1], [0.2], [0.3]]})
    more = {"prompts": {"name": "mine", "sha256": "cd34"}, "protocol": {"steps": 5}}
    evaluation(tmp_path / "other", {"clip": [[0.4], [9.0], [0.5], [9.0]]}, texts=texts, **more)
    done = python(tmp_path, "-m", "sdpo_exp.compare", "base", "other", "pairing=prompt", "folder=x")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "x" / "comparison.json").read_text())["comparisons"]
    # The first kite and the robot.
    assert row["images"] == 2
    assert row["difference"]["value"] == pytest.approx((0.5 - 0.0 + 0.4 - 0.1) / 2)


def test_an_evaluation_of_a_public_manifest_meets_by_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation(tmp_path / "base", CLIP)
    evaluation(tmp_path / "other", {"clip": ZEROS[:3]}, texts=TEXTS[:3], pairing="prompt")
    assert told(tmp_path, "base", "other", patch=monkeypatch) == []
    (tmp_path / "other" / EVALUATION_FILE).unlink()
    assert told(tmp_path, "base", "other", patch=monkeypatch) != []


def test_other_protocols_and_other_weights_are_noted(
    three: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = three / "dpo" / EVALUATION_FILE
    content = json.loads(file.read_text())
    content["protocol"]["sampler"]["class"] = "DDIM"
    content["metrics"]["clip"]["origin"]["sha256"] = {"a": "2"}
    file.write_text(json.dumps(content))
    command(three, "base", "dpo", "resamples=20", "only=[clip]")
    said = capsys.readouterr().out
    assert "base and dpo were drawn differently: sampler.class Euler and DDIM." in said
    assert "warning: clip of base and dpo was computed with different weights" in said
    assert "mean of the" not in said.replace("mean of the categories", "")
    (folder,) = three.glob("outputs/compare/*/comparison.json")
    assert len(json.loads(folder.read_text())["notes"]) == 3


def test_without_a_common_prompt_a_warning_precedes_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation(tmp_path / "base", CLIP)
    upper = [text.upper() for text in TEXTS]
    evaluation(tmp_path / "other", CLIP, texts=upper, pairing="prompt")
    command(tmp_path, "base", "other", "resamples=20")
    said = capsys.readouterr().out
    assert "warning: no prompt of other is one of base. Their 4 images are paired" in said


def test_a_sweep_compares_in_folders_of_its_own(three: Path) -> None:
    arguments = ("-m", "base", "dpo", "only=[clip],[reward]", "resamples=20", "folder=swept")
    command(three, *arguments)
    for job, metric in enumerate(("clip", "reward")):
        content = json.loads((three / "swept" / str(job) / "comparison.json").read_text())
        assert [row["metric"] for row in content["comparisons"]] == [metric]
