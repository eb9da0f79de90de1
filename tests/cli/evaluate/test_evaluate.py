"""`python -m sdpo_exp.evaluate`: what is drawn is scored, image by image, with intervals."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdpo_exp.cli.evaluate.evaluate import main
from sdpo_exp.cli.generate.generate import main as generate_main
from sdpo_exp.evaluation.scores import ScoreTable, read_scores
from sdpo_exp.evaluation.statistics import estimate
from sdpo_exp.models.unet_file import write_state
from sdpo_exp.testbed.captions import parse_caption
from sdpo_exp.testbed.checker import check
from tests.checkpoints import SD15_ID, cache_folder, save_sd15, small_sd_unet
from tests.cli.checkpoints.test_pipelines import perturbed
from tests.cli.command import here, looking, python
from tests.metrics import stand_ins

SMALL = ("prompts.n=5", "steps=1", "metric=[tiny_reward]")


def evaluate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return here(folder, main, *arguments)


def evaluated(folder: Path, *arguments: str) -> str:
    done = evaluate(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def values(folder: Path, metric: str = "tiny_reward") -> dict[tuple[int, int], float]:
    table: ScoreTable = read_scores(folder / "scores.parquet")
    return {(s.image.prompt, s.image.seed): s.value for s in table.scores[metric]}


def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return found


def judged(folder: Path) -> dict[tuple[int, int], float]:
    """The checker's own word on the PNGs of a manifest."""
    found = {}
    for entry in json.loads((folder / "manifest.json").read_text()):
        pixels = np.asarray(Image.open(folder / entry["gen_image_path"]).convert("RGB"))
        verdict = check(pixels[None], [parse_caption(entry["prompt"])])
        found[entry["index"], entry["seed"]] = float(verdict.reward[0])
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("evaluate")
    said = evaluated(root, *SMALL, "folder=base", "n=2")
    return root / "base", said


def test_scores_are_the_exact_checker_s_of_the_images_on_disk(base: tuple[Path, str]) -> None:
    folder, _ = base
    found, expected = values(folder), judged(folder)
    assert found.keys() == expected.keys() == {(i, seed) for i in range(5) for seed in (0, 1)}
    assert found == pytest.approx(expected, abs=1e-7)
    table = read_scores(folder / "scores.parquet")
    assert set(table.labels) >= {"category"}
    assert len(table.texts) == 5


def test_the_table_is_the_mean_with_prompts_as_units(base: tuple[Path, str]) -> None:
    folder, said = base
    found = values(folder)
    by_prompt = [np.mean([found[i, 0], found[i, 1]]) for i in range(5)]
    expected = estimate(by_prompt)
    metric = content(folder)["metrics"]["tiny_reward"]
    for name, value in expected._asdict().items():
        assert metric[name] == pytest.approx(value, abs=1e-7)
    assert (metric["images"], metric["prompts"], metric["display_scale"]) == (10, 5, 1.0)
    (line,) = [row for row in said.splitlines() if row.startswith("tiny_reward ")]
    assert line.split()[:5] == [
        "tiny_reward", "5", "10", f"{expected.mean:.4f}", f"{expected.standard_error:.4f}"
    ]  # fmt: skip
    assert "| tiny_reward | 5 | 10 |" in (folder / "evaluation.md").read_text()


def test_the_folder_says_how_it_was_made(base: tuple[Path, str]) -> None:
    told = content(base[0])
    assert (told["name"], told["pairing"], told["prompts"]["name"]) == (
        "base",
        "index",
        "tiny_test",
    )
    assert len(told["model"]["weights"]) == len(told["prompts"]["sha256"]) == 64
    assert told["protocol"]["guidance"] == 2.0
    assert told["versions"]["torch"]


def test_images_that_are_there_are_scored_without_a_model(
    base: tuple[Path, str], tmp_path: Path
) -> None:
    said = evaluated(tmp_path, f"images={base[0]}", "metric=[tiny_reward]", "folder=again")
    assert "to draw" not in said
    assert values(tmp_path / "again") == values(base[0])
    again, first = content(tmp_path / "again"), content(base[0])
    for key in ("name", "model", "prompts", "protocol", "pairing"):
        assert again[key] == first[key]


def test_a_public_manifest_is_scored_and_known_by_its_prompts(
    base: tuple[Path, str], tmp_path: Path
) -> None:
    entries = json.loads((base[0] / "manifest.json").read_text())
    public = [
        {
            "prompt": entry["prompt"],
            "gen_image_path": [str(base[0] / entry["gen_image_path"])],
            "raw_image_path": "",
            "metadata": {},
        }
        for entry in entries
        if entry["seed"] == 0
    ]
    public.insert(2, {"prompt": None, "gen_image_path": "nowhere.png"})
    (tmp_path / "theirs.json").write_text(json.dumps(public))
    said = evaluated(
        tmp_path, "images=theirs.json", "metric=[tiny_reward]", "folder=out", "label=theirs"
    )
    assert "note: 1 entries without prompt or image left out" in said
    told = content(tmp_path / "out")
    assert (told["name"], told["pairing"], told["model"]) == ("theirs", "prompt", None)
    first = {index: value for (index, seed), value in values(base[0]).items() if seed == 0}
    found = [value for _, value in sorted(values(tmp_path / "out").items())]
    assert found == pytest.approx(list(first.values()), abs=1e-6)


def test_a_single_image_by_its_csv_or_from_one_prompt_is_scored(
    base: tuple[Path, str], tmp_path: Path
) -> None:
    prompt = json.loads((base[0] / "manifest.json").read_text())[0]["prompt"]
    words = (f"prompt={prompt}", "n=1", "steps=1", "folder=one")
    drawn = here(tmp_path, generate_main, *words)
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
    (tmp_path / "plain").mkdir()
    (tmp_path / "one" / "000.png").rename(tmp_path / "plain" / "mine.png")
    (tmp_path / "plain" / "list.csv").write_text(f"file,prompt\nmine.png,{prompt}\n")
    evaluated(tmp_path, "images=plain/list.csv", "metric=[tiny_reward]", "folder=out")
    assert content(tmp_path / "out")["name"] == "list"
    (tmp_path / "plain" / "mine.png").rename(tmp_path / "one" / "000.png")
    evaluated(tmp_path, "images=one", "metric=[tiny_reward]", "folder=again")
    # Image 0 of a set and of one prompt begin with the same noise.
    expected = values(base[0])[0, 0]
    assert values(tmp_path / "out") == values(tmp_path / "again")
    assert values(tmp_path / "out") == pytest.approx({(0, 0): expected}, abs=1e-3)
    assert content(tmp_path / "again")["model"] == content(base[0])["model"]


def test_a_metric_added_later_joins_the_others(base: tuple[Path, str], tmp_path: Path) -> None:
    images = (f"images={base[0]}", "folder=out")
    evaluated(tmp_path, *images, "metric=[tiny_reward]")
    first = values(tmp_path / "out")
    said = evaluated(tmp_path, *images, "metric=[tiny_accuracy]")
    assert {"tiny_reward", "tiny_accuracy"} <= {row.split()[0] for row in said.splitlines() if row}
    assert values(tmp_path / "out") == first
    assert set(content(tmp_path / "out")["metrics"]) == {"tiny_reward", "tiny_accuracy"}
    (tmp_path / "other").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "other" / "0.png")
    entry = {"prompt": "a large red circle on a blue background at the centre"}
    manifest = [{**entry, "gen_image_path": "0.png"}]
    (tmp_path / "other" / "m.json").write_text(json.dumps(manifest))
    refused = evaluate(tmp_path, "images=other/m.json", "folder=out", "metric=[tiny_reward]")
    assert "folder=out has tiny_accuracy of other images" in refused.stderr
    assert values(tmp_path / "out") == first


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_two_processes_give_what_one_gives(base: tuple[Path, str], tmp_path: Path) -> None:
    evaluated(tmp_path, *SMALL, "folder=two", "n=2", "devices=2", "score_batch=2")
    assert values(tmp_path / "two") == pytest.approx(values(base[0]), abs=1e-2)
    shared = evaluate(tmp_path, f"images={base[0]}", "metric=[tiny_reward]", "devices=2")
    assert shared.returncode == 0, shared.stderr
    (folder,) = (f.parent for f in tmp_path.glob("outputs/evaluate/*/scores.parquet"))
    assert values(folder) == pytest.approx(values(base[0]), abs=1e-6)


@pytest.mark.slow
def test_a_run_is_evaluated_under_its_cell_s_name(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "run" / "tiny-dpo-on-12345678" / "today"
    perturbed().save(run / "model")
    (run / "config.yaml").write_text("model:\n  pretrained: null\n")
    evaluated(tmp_path, *SMALL, f"checkpoint={run}", "folder=tuned")
    assert content(tmp_path / "tuned")["name"] == "tiny-dpo-on-12345678"


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["metrc=[clip]"], ["metrc=[clip]: unknown key; did you mean 'metric'"]),
        (["metric=[clipp]"], ["metric=[clipp]: no such choice", "did you mean 'clip'"]),
        (["metric=[]"], ["metric: by what?"]),
        (["prompts=null"], ["prompts=null: no such choice", "papv2"]),
        (["images=nowhere"], ["images=nowhere: no such folder or manifest"]),
        (["images=.", "n=2"], ["n and seed: images= scores all that is there"]),
        (["images=.", "checkpoint=a/b"], ["images and checkpoint: score what is drawn, or draw"]),
        (["score_batch=0", "steps=no"], ["2 mistakes", "score_batch: must be", "steps: must be"]),
        (["metric.tiny_reward.part=all"], ["metric.tiny_reward.part: must be 'reward'"]),
    ],
    ids=lambda v: " ".join(v)[:40],
)
def test_a_mistake_is_told_without_torch(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    done = looking(tmp_path, "evaluate.evaluate", *arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    for fragment in words:
        assert fragment in done.stderr
    assert "LOADED []" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weights_that_are_nowhere_are_told_together_before_anything_is_drawn(
    tmp_path: Path,
) -> None:
    empty = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = python(
        tmp_path, "-m", "sdpo_exp.evaluate", "metric=[pickscore,hpsv2,clip,aesthetic]",
        "checkpoint=a/b", extra=empty,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for name in ("a/b", "yuvalkirstain/PickScore_v1", "xswu/HPSv2", "laion/CLIP-ViT-H-14",
                 "metric.aesthetic.head: a value is required"):  # fmt: skip
        assert name in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_prompts_that_a_scorer_cannot_judge_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a dog\n")
    done = evaluate(
        tmp_path, "prompts=file", "prompts.path=mine.txt", "steps=1", "metric=[tiny_reward]"
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "not a caption of the testbed: 'a dog'" in done.stderr
    assert not (tmp_path / "outputs").exists()  # told before anything is drawn


def test_scores_of_images_that_changed_are_not_kept(tmp_path: Path) -> None:
    evaluated(tmp_path, *SMALL, "folder=out", "n=2")
    lost = evaluate(tmp_path, "prompts.n=5", "steps=1", "folder=out", "metric=[tiny_accuracy]")
    assert "folder=out has tiny_reward of other images (another n or seed" in lost.stderr
    assert len(values(tmp_path / "out")) == 10
    evaluated(tmp_path, *SMALL, "folder=out")  # all of its metrics once more, of one seed
    assert len(values(tmp_path / "out")) == 5
    Image.new("RGB", (32, 32)).save(tmp_path / "out" / "images" / "00000_seed0.png")
    changed = evaluate(tmp_path, "images=out", "folder=out", "metric=[tiny_accuracy]")
    assert "of other images" in changed.stderr


@pytest.mark.slow
def test_a_public_unet_is_drawn_by_the_public_protocol_and_scored_by_all_learned_metrics(
    tmp_path: Path,
) -> None:
    """Everything but the sizes is as released: hub ids, file layouts, protocol, scorers."""
    cache = tmp_path / "hub"
    head = stand_ins.fill(cache)
    save_sd15(cache_folder(cache, SD15_ID))
    write_state(small_sd_unet(), tmp_path / "unet.pth")
    (tmp_path / "mine.txt").write_text("a red cat\na dog\na red cat\n")
    limits = ("steps=2", "height=64", "width=64", "dtype=float32")
    names = ("pickscore", "hpsv2", "hpsv21", "aesthetic", "clip", "imagereward")
    done = python(
        tmp_path, "-m", "sdpo_exp.evaluate", "protocol=sdpo_sd15", "checkpoint=unet.pth",
        "prompts=file", "prompts.path=mine.txt", f"metric=[{','.join(names)}]", *limits,
        *stand_ins.head_overrides(head), "folder=out",
        extra={"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = content(tmp_path / "out")
    assert tuple(told["metrics"]) == names
    protocol = told["protocol"]
    assert (protocol["guidance"], protocol["noise"], protocol["negative_prompt"]) == (
        8.5,
        "shared",
        "",
    )
    assert protocol["sampler"]["timestep_spacing"] == "linspace"
    assert told["model"]["base"] == SD15_ID
    for name in names:
        found = values(tmp_path / "out", name)
        assert len(found) == 3
        # One noise for all prompts: the same prompt is the same image, so one observation of two.
        assert found[0, 0] == pytest.approx(found[2, 0], abs=1e-5)
        metric = told["metrics"][name]
        assert (metric["images"], metric["prompts"]) == (3, 2)
        assert metric["origin"]["sha256"]
    scale = {name: told["metrics"][name]["display_scale"] for name in names}
    assert [name for name, value in scale.items() if value == 1] == ["aesthetic", "imagereward"]
