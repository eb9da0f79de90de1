"""`python -m sdpo_exp.generate`: repeatable images of a prompt or of a set of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from numpy.typing import NDArray
from PIL import Image

from sdpo_exp.cli.generate.generate import EXAMPLE, main, quote_prompts
from sdpo_exp.cli.generate.images import judge, remarks
from sdpo_exp.generation.folder import read_manifest
from sdpo_exp.models.tiny import TinyBackbone
from sdpo_exp.models.tiny_pipeline import PixelShufflePipeline
from sdpo_exp.testbed.captions import parse_caption
from sdpo_exp.testbed.checker import check
from tests.cli.checkpoints.test_pipelines import perturbed
from tests.cli.command import environment, here, looking


def generate(
    folder: Path, *arguments: str, watch: bool = False
) -> subprocess.CompletedProcess[str]:
    if not watch:
        return here(folder, main, *arguments)
    return looking(folder, "generate.generate", *arguments)


def read(file: Path) -> NDArray[np.int64]:
    return np.asarray(Image.open(file)).astype(np.int64)


@pytest.fixture(scope="module")
def pipeline() -> PixelShufflePipeline:
    return TinyBackbone().pipeline()


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], [f"prompt: what should the images show? For example prompt='{EXAMPLE}'"]),
        (["prompt="], ["prompt: what should the images show?"]),
        (["promt=cat", "n=0"], ["2 mistakes", "did you mean 'prompt'", "n: must be greater than"]),
        (
            ["prompt=cat", "guidance=0", "steps=0"],
            ["guidance: must be greater than or equal to 1", "steps: "],
        ),
        (["prompt=cat", "checkpoint=no"], ["checkpoint=no: no such folder. Give a run's folder"]),
        (["prompt=cat", "folder=there"], ["folder=there exists; give another folder"]),
        (["prompt=cat", "prompts=tiny"], ["give one prompt or a set of them, not both"]),
        (["prompts=tinny"], ["prompts=tinny: no such choice; did you mean 'tiny'"]),
        (["prompts=tiny", "prompts.spilt=test"], ["did you mean 'prompts.split'"]),
        (["prompts=tiny", "prompts.n=0"], ["prompts.n: must be greater than"]),
        (["protocol=sdpo"], ["protocol=sdpo: no such choice", "sdpo_sd15"]),
        (["prompt=cat", "devices=2"], ["one prompt is drawn by one process"]),
        (["prompt=cat", "noise=own"], ["noise: must be 'prompt' or 'shared', got 'own'"]),
        (["prompt=cat", "noise_device=cuda"], ["noise=prompt is drawn on the CPU"]),
        (["prompt=cat", "+sampler.nme=x"], ["sampler: give {name: <a scheduler of diffusers>"]),
        (["prompt=cat", "negative_prompt=dog", "guidance=1"], ["has no effect at guidance=1"]),
        (["prompt=cat", "checkpoint=w.pth"], ["weights alone, which need their base", "base="]),
        (["-m", "prompt=[", "n=1,2"], ["prompt=[: cannot be read as key=value"]),
    ],
    ids=lambda v: " ".join(v)[:40],
)
def test_a_mistake_is_told_without_torch(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "w.pth").write_bytes(b"weights")
    done = generate(tmp_path, *arguments, watch=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    for fragment in words:
        assert fragment in done.stderr
    assert "LOADED []" in done.stdout
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--help"], "== Use =="), (["--cfg", "job", "n=7"], "'n': 7")],
    ids=["help", "cfg"],
)
def test_one_can_look_without_a_prompt(tmp_path: Path, flags: list[str], words: str) -> None:
    done = generate(tmp_path, *flags, watch=True)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert "LOADED []" in done.stdout


@pytest.mark.parametrize(
    "text",
    ["a, b", "it's", "a: b=c {d} [e", 'say "yes"', "42", "true", "back\\slash\\", "", "'a' or 'b'"],
)
@pytest.mark.parametrize("key", ["prompt", "negative_prompt", "+prompt"])
def test_a_prompt_is_taken_as_it_stands(key: str, text: str) -> None:
    argv = ["generate", f"{key}={text}", "n=2"]
    quote_prompts(argv)
    assert OverridesParser.create().parse_override(argv[1]).value() == text
    assert argv[2] == "n=2"


@pytest.mark.parametrize(
    "argv",
    [["x", "prompt='a, b'"], ["x", "negative_prompt=null"], ["x", "-m", "prompt=a,b"]],
)
def test_what_is_written_for_hydra_stays(argv: list[str]) -> None:
    before = list(argv)
    quote_prompts(argv)
    assert argv == before


def test_only_captions_drawn_by_a_tiny_model_are_judged(pipeline: PixelShufflePipeline) -> None:
    images = [Image.new("RGB", (32, 32), "blue")] * 2
    verdict = judge(pipeline, EXAMPLE, images)
    assert verdict is not None
    assert verdict.correct.tolist() == [[False, False, False, True, False]] * 2
    assert judge(pipeline, "two circles", images) is None
    assert judge(pipeline, EXAMPLE, [Image.new("RGB", (64, 64))]) is None
    assert judge(object(), EXAMPLE, images) is None  # type: ignore[arg-type]


def test_remarks_name_what_the_model_cannot_read(pipeline: PixelShufflePipeline) -> None:
    assert list(remarks(pipeline, EXAMPLE, "red")) == []
    said = list(remarks(pipeline, "a red dog on a Red dog", "cats"))
    assert "unknown to it: 'dog', 'Red'" in said[0]
    assert "unknown to it: 'cats'" in said[1]
    assert f"no rewards: not a caption of the embedded world, like {EXAMPLE!r}" in said[2]
    (long, _) = remarks(pipeline, "red " * 15, None)
    assert "only the first 14 words are read" in long
    (same,) = remarks(pipeline, EXAMPLE.replace("blue", "red"), None)
    assert "foreground and background are both 'red'" in same


@pytest.mark.slow
def test_a_tuned_model_is_shown_beside_its_base(tmp_path: Path) -> None:
    run = tmp_path / "run"
    perturbed().save(run / "model")
    (run / "config.yaml").write_text("model:\n  pretrained: null\n")
    alone = generate(tmp_path, f"prompt={EXAMPLE}", "n=2", "steps=4", "folder=alone")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    both = generate(
        tmp_path, f"prompt={EXAMPLE}", "checkpoint=run", "n=4", "steps=4", "folder=both"
    )
    assert both.returncode == 0, both.stdout + both.stderr
    assert sorted(p.name for p in (tmp_path / "alone").iterdir()) == [
        "000.png", "001.png", "generation.json", "grid.png", "manifest.json"
    ]  # fmt: skip
    for name in ("000.png", "001.png"):
        base, again = read(tmp_path / "alone" / name), read(tmp_path / "both" / "base" / name)
        assert np.abs(base - again).max() <= 1
        assert np.abs(again - read(tmp_path / "both" / name)).max() > 1
    assert read(tmp_path / "both" / "grid.png").shape[0] == 2 * 132 + 4
    assert "images: both" in both.stdout
    _assert_told_rewards_are_exact(tmp_path / "both", both.stdout)


def _assert_told_rewards_are_exact(folder: Path, said: str) -> None:
    rows = (folder / "base", folder)
    settings = [json.loads((row / "generation.json").read_text()) for row in rows]
    told = settings[1]
    assert told["prompt"] == EXAMPLE
    protocol = told["protocol"]
    assert (told["seed"], protocol["guidance"], protocol["steps"]) == (0, 2.0, 4)
    assert (protocol["negative_prompt"], told["checkpoint"]) == (None, "run")
    assert protocol["sampler"]["class"] == "DPMSolverMultistepScheduler"
    assert len({each["model"]["weights"] for each in settings}) == 2
    assert told["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    base, tuned = (json.loads((row / "manifest.json").read_text()) for row in rows)
    assert [record.seed for record in read_manifest(folder).images] == [0, 1, 2, 3]
    for row, entry in [(rows[0], e) for e in base] + [(rows[1], e) for e in tuned]:
        image = read(row / entry["gen_image_path"]).astype(np.uint8)
        verdict = check(image[None], [parse_caption(EXAMPLE)])
        assert entry["reward"] == pytest.approx(float(verdict.reward[0]), abs=1e-4)
        assert list(entry["correct"].values()) == verdict.correct[0].tolist()
    table = [line.split() for line in said.splitlines()]
    assert ["reward", "base", "tuned"] in table
    assert ["003.png", f"{base[3]['reward']:.4f}", f"{tuned[3]['reward']:.4f}"] in table
    assert "mean" in {row[0] for row in table if row}


def test_a_sweep_over_prompts_gives_each_a_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    TinyBackbone().save(run / "model")
    arguments = ("-m", "prompt='a dog, running',a red dog", "checkpoint=run", "folder=here")
    done = generate(tmp_path, *arguments, "n=1", "steps=1")
    assert done.returncode == 0, done.stdout + done.stderr
    for job, prompt in enumerate(("a dog, running", "a red dog")):
        (image,) = read_manifest(tmp_path / "here" / str(job)).images
        assert (image.prompt, image.file.name, image.seed) == (prompt, "000.png", 0)
    assert "note: no row of the base. run/config.yaml: does not name" in done.stdout
    assert "note: outside this model's vocabulary, so unknown to it: 'dog', ',', 'running'" in (
        done.stdout
    )


SET = ("prompts=tiny", "prompts.n=5", "steps=1", "folder=set", "batch=2")


def levels(folder: Path) -> dict[str, NDArray[np.int64]]:
    return {file.name: read(file) for file in sorted((folder / "images").glob("*.png"))}


def test_a_set_is_drawn_and_gone_on_with_where_it_was(tmp_path: Path) -> None:
    first = generate(tmp_path, *SET)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "5 of 5 images to draw" in first.stdout
    assert "images: set (5)" in first.stdout
    manifest = read_manifest(tmp_path / "set")
    assert [(r.set, r.index, r.seed) for r in manifest.images] == [
        ("tiny_test", i, 0) for i in range(5)
    ]
    settings = json.loads((tmp_path / "set" / "generation.json").read_text())
    assert settings["protocol"]["noise"] == "prompt"
    assert settings["prompts"]["n"] == 5
    assert len(settings["model"]["weights"]) == 64
    before = levels(tmp_path / "set")
    kept = tmp_path / "set" / "images" / "00000_seed0.png"
    dates = kept.stat().st_mtime_ns
    (tmp_path / "set" / "images" / "00003_seed0.png").unlink()
    again = generate(tmp_path, *SET, "n=2", "batch=3")  # and a second seed, in other batches
    assert again.returncode == 0, again.stdout + again.stderr
    assert "6 of 10 images to draw" in again.stdout
    after = levels(tmp_path / "set")
    assert len(after) == 10
    assert kept.stat().st_mtime_ns == dates
    assert all(np.abs(after[name] - image).max() <= 1 for name, image in before.items())
    assert np.abs(after["00000_seed0.png"] - after["00000_seed1.png"]).max() > 1
    other = generate(tmp_path, *SET, "guidance=3")
    assert other.returncode != 0
    assert "protocol.guidance: 2.0 -> 3.0" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(tmp_path: Path) -> None:
    one = generate(tmp_path, *SET, "folder=one", "devices=1")
    two = generate(tmp_path, *SET, "folder=two", "devices=2")
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    first, second = levels(tmp_path / "one"), levels(tmp_path / "two")
    assert first.keys() == second.keys()
    assert all(np.abs(first[name] - second[name]).max() <= 1 for name in first)
    assert len(read_manifest(tmp_path / "two").images) == 5


@pytest.mark.slow
def test_a_killed_set_loses_nothing(tmp_path: Path) -> None:
    """An interrupt ends in words, and what was drawn is not drawn again."""
    arguments = ["prompts=tiny", "prompts.n=60", "steps=8", "folder=set", "batch=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sdpo_exp.generate", *arguments],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    images = tmp_path / "set" / "images"
    deadline = time.monotonic() + 120
    while len(list(images.glob("*.png"))) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in said + error
    assert "interrupted; what is drawn stays. folder=set in the same command goes on" in error
    there = {file.name: file.stat().st_mtime_ns for file in images.glob("*.png")}
    assert 4 <= len(there) < 60
    done = generate(tmp_path, *arguments[:1], "prompts.n=60", *arguments[2:], "steps=8")
    assert done.returncode == 0, done.stderr
    assert f"{60 - len(there)} of 60 images to draw" in done.stdout
    assert all((images / name).stat().st_mtime_ns == date for name, date in there.items())
