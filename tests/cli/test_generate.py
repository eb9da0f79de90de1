"""`python -m sdpo_exp.generate`: repeatable images, judged, and shown beside the base's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from numpy.typing import NDArray
from PIL import Image

from sdpo_exp.cli.generate import EXAMPLE, quote_prompts
from sdpo_exp.cli.images import draw, judge, make_grid, remarks
from sdpo_exp.cli.pipelines import load_pipeline
from sdpo_exp.errors import UserError
from sdpo_exp.models.tiny import TinyBackbone
from sdpo_exp.models.tiny_pipeline import PixelShufflePipeline
from sdpo_exp.testbed.captions import parse_caption
from sdpo_exp.testbed.checker import check
from tests.cli.command import HEAVY, environment
from tests.cli.test_pipelines import perturbed, unconditional

_WATCHED = f"""
import atexit, sys
atexit.register(lambda: print("LOADED", [m for m in {HEAVY!r} if m in sys.modules]))
from sdpo_exp.cli.generate import main
main()
"""


def generate(
    folder: Path, *arguments: str, watch: bool = False
) -> subprocess.CompletedProcess[str]:
    start = ["-c", _WATCHED] if watch else ["-m", "sdpo_exp.generate"]
    return subprocess.run(
        [sys.executable, *start, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def read(file: Path) -> NDArray[np.int64]:
    return np.asarray(Image.open(file)).astype(np.int64)


@pytest.fixture(scope="module")
def pipeline() -> PixelShufflePipeline:
    return TinyBackbone().pipeline()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], [f"prompt: what should the images show? For example prompt='{EXAMPLE}'"]),
        (["prompt="], ["prompt: what should the images show?"]),
        (["promt=cat", "n=0"], ["2 mistakes", "did you mean 'prompt'", "n: must be greater than"]),
        (["prompt=cat", "guidance=0", "steps=0"], ["guidance: must be greater than 0", "steps: "]),
        (["prompt=cat", "checkpoint=no"], ["checkpoint=no: no such folder. Give a run's folder"]),
        (["prompt=cat", "folder=there"], ["folder=there exists; give another folder"]),
        (["-m", "prompt=[", "n=1,2"], ["prompt=[: cannot be read as key=value"]),
    ],
    ids=lambda v: " ".join(v)[:40],
)
def test_a_mistake_is_told_without_torch(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "there").mkdir()
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


def test_an_image_depends_on_seed_and_place_only(pipeline: PixelShufflePipeline) -> None:
    settings = {"num_inference_steps": 1, "guidance_scale": 1.0}
    ten, two, other = (
        np.stack([np.asarray(i).astype(int) for i in draw(pipeline, EXAMPLE, n, seed, **settings)])
        for n, seed in ((10, 0), (2, 0), (2, 1))
    )
    assert ten.shape == (10, 32, 32, 3)
    assert np.abs(ten[:2] - two).max() <= 1
    assert len({image.tobytes() for image in (*ten, *other)}) == 12


def test_settings_reach_the_pipeline(pipeline: PixelShufflePipeline) -> None:
    (plain,) = draw(pipeline, EXAMPLE, 1, 0, num_inference_steps=2, negative_prompt=None)
    noise = torch.Generator().manual_seed(int(np.random.SeedSequence([0, 0]).generate_state(1)[0]))
    assert plain == pipeline(EXAMPLE, num_inference_steps=2, generator=noise).images[0]
    for changed in ({"negative_prompt": "a"}, {"guidance_scale": 4.0}, {"num_inference_steps": 3}):
        assert draw(pipeline, EXAMPLE, 1, 0, **{"num_inference_steps": 2, **changed}) != [plain]


def test_a_pipeline_without_a_prompt_is_refused(tmp_path: Path) -> None:
    unconditional(tmp_path / "other")
    with pytest.raises(UserError, match="DDPMPipeline takes no num_images_per_prompt, prompt"):
        draw(load_pipeline(tmp_path / "other"), EXAMPLE, 1, 0)


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


def test_a_grid_magnifies_small_images_and_labels_several_rows() -> None:
    colours = ["red", "lime", "blue", "white", "cyan", "black", "yellow", "orange", "navy", "grey"]
    images = [Image.new("RGB", (32, 32), colour) for colour in colours]
    one = make_grid({"model": images[:3]})
    assert one.size == (3 * 132 + 4, 136)
    assert [one.getpixel((4 + 132 * i, 131)) for i in range(3)] == [
        (255, 0, 0), (0, 255, 0), (0, 0, 255)
    ]  # fmt: skip
    two = make_grid({"base": images, "tuned": images[::-1]})
    margin = two.width - (8 * 132 + 4)
    assert margin > 20
    assert two.height == 4 * 132 + 4
    labels = np.asarray(two.crop((0, 0, margin, two.height)).convert("L"))
    assert all((labels[132 * row : 132 * (row + 1)] < 128).any() for row in range(4))
    assert two.getpixel((margin + 5, 140)) == (128, 128, 128)
    assert two.getpixel((margin + 5, 272)) == (0, 0, 128)
    images[0].putpixel((0, 0), (0, 0, 255))
    corner = make_grid({"model": images[:1]}).crop((4, 4, 12, 8))
    # Sharp, 4 x 4 pixels each.
    assert sorted(corner.getcolors() or []) == [(16, (0, 0, 255)), (16, (255, 0, 0))]
    large = Image.new("RGB", (512, 256))
    assert make_grid({"model": [large]}).size == (520, 264)


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
    assert alone.stderr + both.stderr == ""
    assert sorted(p.name for p in (tmp_path / "alone").iterdir()) == [
        "000.png", "001.png", "grid.png", "manifest.json"
    ]  # fmt: skip
    for name in ("000.png", "001.png"):
        base, again = read(tmp_path / "alone" / name), read(tmp_path / "both" / "base" / name)
        assert np.abs(base - again).max() <= 1
        assert np.abs(again - read(tmp_path / "both" / name)).max() > 1
    assert read(tmp_path / "both" / "grid.png").shape[0] == 2 * 132 + 4
    assert "images: both" in both.stdout
    _assert_told_rewards_are_exact(tmp_path / "both", both.stdout)


def _assert_told_rewards_are_exact(folder: Path, said: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["prompt"] == EXAMPLE
    assert (manifest["seed"], manifest["guidance"], manifest["steps"]) == (0, 2.0, 4)
    assert (manifest["negative_prompt"], manifest["checkpoint"]) == (None, "run")
    assert manifest["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    base, tuned = manifest["images"]["base"], manifest["images"]["tuned"]
    assert [entry["file"] for entry in base] == [f"base/{i:03d}.png" for i in range(4)]
    for entry in (*base, *tuned):
        image = read(folder / entry["file"]).astype(np.uint8)
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
        manifest = json.loads((tmp_path / "here" / str(job) / "manifest.json").read_text())
        assert manifest["prompt"] == prompt
        assert manifest["images"] == {"tuned": [{"file": "000.png"}]}
    assert "note: no row of the base. run/config.yaml: does not name" in done.stdout
    assert "note: outside this model's vocabulary, so unknown to it: 'dog', ',', 'running'" in (
        done.stdout
    )
