"""A cache of frozen work: what is trained from it, what refuses it, and what a kill leaves."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_exp.cli.cache_settings import cache_mistakes
from sdpo_exp.cli.prepare.prepare import check_prepare, main
from sdpo_exp.config.cell_name import register_resolvers
from sdpo_exp.config.composition import compose_cell
from sdpo_exp.data.cache_card import read_card
from sdpo_exp.data.cache_shards import CachedTexts, write_texts
from sdpo_exp.models import checkpoint_folder
from sdpo_exp.models.cached import CachedBackbone
from sdpo_exp.models.ovis_u1 import OvisU1
from sdpo_exp.types import Geometry
from tests.checkpoints import save_sd15, save_sdxl
from tests.cli.command import ROOT, here, looking, metric_rows, python, run
from tests.data.pictures import cut
from tests.models.ovis_u1 import folder as ovis_u1
from tests.ovis_image import save_ovis_image

PAIRS = 14
_TWO = ("cache", "half")
register_resolvers()


def pairs(root: Path) -> Path:
    """A folder of pairs: one is no image, and one loser comes twice."""
    for side in ("winner", "loser"):
        (root / side).mkdir(parents=True)
        for i in range(PAIRS):
            number = 7 if (side, i) == ("loser", 8) else i
            cut(number + 20 * (side == "loser"), 40, 32).save(root / side / f"{i:02d}.png")
    (root / "loser" / "03.png").write_bytes(b"no image")
    lines = [f"{i:02d}.png,a photo of number {i} and {i % 3}" for i in range(PAIRS)]
    (root / "captions.csv").write_text("\n".join(["file,caption", *lines]))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a folder of pairs, and a cache of them in float32."""
    folder = tmp_path_factory.mktemp("prepare")
    save_sd15(folder / "sd15")
    pairs(folder / "photos")
    done = here(folder, main, *WORDS, "out=cache")
    assert done.returncode == 0, done.stderr
    return folder


DATA = (
    "data=folder", "data.train.path=photos", "data.num_workers=0", "data.on_bad_row=skip",
    "data.micro_batch=2", "effective_batch=4", "trainer.precision=32-true", "torch_threads=1",
    "warmup_steps=2", "tuning=lora", "callbacks=[probe,winner_loss]", "callbacks.probe.pairs=1",
)  # fmt: skip
WORDS = ("model=sd15", "model.pretrained=sd15", "resolution=32", *DATA)


def losses(root: Path, *words: str, steps: int = 20, lead: tuple[str, ...] = WORDS) -> list[float]:
    """`train/loss` of every step of a training."""
    folder = "run-" + hashlib.sha256(repr((words, lead)).encode()).hexdigest()[:8]
    done = run(root, *lead, f"max_steps={steps}", f"run_dir={folder}", *words)
    assert done.returncode == 0, done.stderr
    rows = [row["train/loss"] for row in metric_rows(root / folder) if row.get("train/loss")]
    assert len(rows) == steps
    return [float(row) for row in rows]


@pytest.fixture(scope="module")
def live(root: Path) -> list[float]:
    return losses(root)


@pytest.mark.slow
def test_twenty_losses_are_those_of_live_encoding_and_no_encoder_is_loaded(
    root: Path, live: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = [], checkpoint_folder.load_part

    def counted(kind: Any, *arguments: Any) -> Any:
        loaded.append(kind.__name__)
        return load(kind, *arguments)

    monkeypatch.setattr(checkpoint_folder, "load_part", counted)
    assert losses(root, "data.cache=cache") == live
    assert loaded == ["UNet2DConditionModel"]


@pytest.mark.slow
def test_bfloat16_is_within_a_hundredth(root: Path, live: list[float]) -> None:
    done = here(root, main, *WORDS, "out=half", "cache_dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    found = losses(root, "data.cache=half")
    assert found != live
    assert found == pytest.approx(live, rel=1e-2)
    assert "within 1e-2" in " ".join((root / "half" / "README.md").read_text().split())
    sizes = [
        sum(f.stat().st_size for f in (root / c).rglob("*.safetensors")) for c in ("cache", "half")
    ]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["sdxl", "ovis_image", "ovis_u1"])
def test_other_families_train_from_a_cache_as_without(root: Path, model: str) -> None:
    save: dict[str, Callable[[Path], Any]] = {
        "sdxl": save_sdxl, "ovis_image": save_ovis_image, "ovis_u1": ovis_u1.write
    }  # fmt: skip
    save[model](root / model)
    lead = (f"model={model}", f"model.pretrained={model}", "resolution=32", *DATA)
    lead += ("optimizer=adamw", *(["model.vae=null"] if model != "ovis_u1" else []))
    done = here(root, main, *lead, f"out=of-{model}")
    assert done.returncode == 0, done.stderr
    cached = losses(root, f"data.cache=of-{model}", steps=2, lead=lead)
    assert cached == losses(root, steps=2, lead=lead)


def test_ragged_conditions_are_kept_without_padding(tmp_path: Path) -> None:
    backbone = OvisU1(str(ovis_u1.write(tmp_path / "u1")), text_dtype="float32")
    prompts = ["a", "a longer prompt", ""]
    places = [Geometry(32, 32, 0, 0, 32, 32)] * 3
    texts = backbone.encode_texts(prompts, places)
    write_texts(tmp_path / "text" / "00000.safetensors", prompts, texts, torch.float32)
    card: Any = type("Card", (), {"shards": {"text/00000.safetensors": {}}})
    cached = CachedBackbone(backbone, CachedTexts(tmp_path, card))
    for some in (prompts, ["a longer prompt", "a"], ["a", "a"]):
        mine, theirs = (b.encode_prompts(some, places[: len(some)]) for b in (cached, backbone))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


# -- what refuses a cache ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resolution=64"], "resolution: the cache cache was made with 32, this training has 64"),
        (["model.vae_dtype=float32"], "model.vae_dtype: the cache cache was made with auto"),
        (["model.text_dtype=float16"], "model.text_dtype: the cache cache was made with float32"),
        (["model.empty_prompt=zeros"], "model.empty_prompt: the cache cache was made with encoded"),
        (["model.variant=fp16"], "model.variant: the cache cache was made with None"),
        (["model.vae=sd15"], "model.vae: the cache cache was made with None"),
        (["data.max_aspect_gap=0.1"], "data.max_aspect_gap: the cache cache was made with None"),
        (["data.transform.crop=random"], "give data.transform.crop=center, or train without"),
        (["data.transform.flip=shared"], "give data.transform.flip=off, or train without"),
        (["data=pickapic_v2_stream", "~data.train.path"], "data.train: an endless stream"),
        (["data.cache=nowhere"], "data.cache=nowhere: no cache there"),
    ],
)
def test_a_key_that_differs_is_named_before_torch(
    root: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(root)
    kept = [w for w in WORDS if not (words[0].startswith("data=") and w.startswith("data"))]
    found = compose_cell("train", [*kept, "data.cache=cache", *words])
    assert found.config is not None, found.problems
    (problem,) = cache_mistakes(found.config)
    assert message in problem


@pytest.mark.parametrize("model", ["tiny", "tiny_flow"])
def test_models_in_pixels_have_nothing_to_keep(model: str) -> None:
    found = compose_cell("prepare", [f"model={model}", "out=cache"])
    assert found.config is not None, found.problems
    (problem,) = check_prepare(found.config)
    assert "has no VAE, so there is nothing to keep in a cache" in problem


@pytest.mark.slow
def test_a_training_takes_no_other_pairs_no_other_weights_and_no_torn_file(
    root: Path, tmp_path: Path
) -> None:
    done = run(root, *WORDS, "data.cache=cache", "data.train.max_samples=5")
    assert done.returncode == 1
    assert "data.train: the cache cache is of other pairs" in done.stderr
    save_sd15(tmp_path / "other", seed=1)
    done = run(root, *WORDS, "data.cache=cache", f"model.pretrained={tmp_path / 'other'}")
    assert "of another model; these files" in done.stderr
    assert "vae/diffusion_pytorch_model.safetensors" in done.stderr
    torn = shutil.copytree(root / "cache", tmp_path / "torn")
    file = torn / "train" / "00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    done = run(root, *WORDS, f"data.cache={torn}")
    assert f"{file}: missing, or not as it was written" in done.stderr


def test_mistakes_are_told_at_once_and_without_torch(tmp_path: Path) -> None:
    words = ("cache_dtype=float16", "shard=0", "objective.betta=3", "model=sd15")
    done = looking(tmp_path, "prepare.prepare", *words)
    for fragment in (
        "4 mistakes",
        "out: a value is required",
        "cache_dtype: must be 'float32' or 'bfloat16', got 'float16'",
        "shard: must be greater than or equal to 1",
        "did you mean 'objective.beta'",
    ):
        assert fragment in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "LOADED []" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_commands_of_the_page_follow_on_each_other(root: Path) -> None:
    page = (ROOT / "docs" / "cache.md").read_text()
    (shown,) = (body for body in re.findall(r"```text\n(.*?)```", page, re.DOTALL))
    make, train = (shlex.split(line) for line in shown.strip().splitlines())
    assert (make[2], train[2]) == ("sdpo_exp.prepare", "sdpo_exp")
    limits = [word for word in WORDS if word not in make]
    done = here(root, main, *make[3:], *limits)
    assert done.returncode == 0, done.stderr
    done = run(root, *train[3:], *limits, "max_steps=1", "run_dir=of-the-page")
    assert done.returncode == 0, done.stderr


def test_the_command_has_the_keys_of_a_training() -> None:
    train, prepare = (compose_cell(name, ["out=x"] * (name == "prepare")).config
                      for name in ("train", "prepare"))  # fmt: skip
    assert train is not None
    assert prepare is not None
    own = {"out", "cache_dtype", "shard", "device", "devices"}
    assert set(prepare) == set(train) | own
    assert check_prepare(compose_cell("prepare", [*WORDS, "out=x"]).config) == []  # type: ignore[arg-type]


# -- how it is made ----------------------------------------------------------------------------


def shards(folder: Path) -> dict[str, str]:
    """sha256 by path of what has tensors."""
    files = sorted(folder.rglob("*.safetensors"))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_the_card_lists_every_file_by_its_hash(root: Path) -> None:
    card = read_card(root / "cache")
    assert {name: about["sha256"] for name, about in card.shards.items()} == shards(root / "cache")


def test_a_full_disk_is_told_before_anything_is_encoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    done = here(root, main, *WORDS, "out=full")
    assert done.returncode == 1
    assert "the images need up to" in done.stderr
    assert "cache_dtype=bfloat16" in done.stderr
    assert shards(root / "full") == {}


def test_a_folder_of_other_work_is_refused(root: Path) -> None:
    before = shards(root / "cache")
    done = here(root, main, *WORDS, "out=cache", "resolution=64")
    assert "resolution: out=cache was begun with 32, not 64" in done.stderr
    done = here(root, main, *WORDS, "out=cache", "data.train.max_samples=5")
    assert "holds the cache of other work (data train: " in done.stderr
    assert shards(root / "cache") == before
    assert read_card(root / "cache").complete


_KILLED = """
import os, signal, sys
from sdpo_exp.cli.prepare.prepare import main
sync, calls = os.fsync, []
def dying(number):
    calls.append(number)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(number)
os.fsync = dying
main()
"""


@pytest.mark.slow
def test_a_killed_command_leaves_whole_files_and_goes_on_with_the_rest(root: Path) -> None:
    words = (*WORDS, "shard=4")
    whole = here(root, main, *words, "out=whole")
    assert whole.returncode == 0, whole.stderr
    done = python(root, "-c", _KILLED, *words, "out=killed")
    assert done.returncode == -signal.SIGKILL
    names = list(shards(root / "killed"))
    assert len(names) == 2
    stamps = [(root / "killed" / name).stat().st_mtime_ns for name in names]
    refused = run(root, *WORDS, "data.cache=killed")
    assert "data.cache=killed: not finished" in refused.stderr
    again = here(root, main, *words, "out=killed")
    assert again.returncode == 0, again.stderr
    assert [(root / "killed" / name).stat().st_mtime_ns for name in names] == stamps
    assert shards(root / "killed") == shards(root / "whole")
    assert not list((root / "killed").rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.usefixtures("forked_workers")
def test_two_processes_make_the_cache_of_one(root: Path) -> None:
    assert here(root, main, *WORDS, "shard=4", "out=one").returncode == 0
    done = here(root, main, *WORDS, "shard=4", "out=two", "device=cpu", "devices=2")
    assert done.returncode == 0, done.stderr
    assert shards(root / "two") == shards(root / "one")
