"""`python -m sdpo_exp.export`: what it writes is the policy, wherever it is loaded."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from sdpo_exp.cli.checkpoints.pipelines import load_base, load_pipeline
from sdpo_exp.cli.command import preflight
from sdpo_exp.cli.export import files as export_files
from sdpo_exp.cli.export.export import check_export, check_weights, main
from sdpo_exp.cli.export.source import build_policy, find_source, read_checkpoint
from sdpo_exp.cli.generate import generate
from sdpo_exp.cli.train import train
from sdpo_exp.errors import UserError
from sdpo_exp.models.lora import adapter_config, merged
from sdpo_exp.models.sdxl import StableDiffusionXL
from sdpo_exp.models.stable_diffusion import StableDiffusion
from sdpo_exp.models.tuning import LoraTuning
from tests.checkpoints import save_sd15, save_sdxl
from tests.cli.command import BARE, here, looking, python, run

LORA = "pytorch_lora_weights.safetensors"
STEPS = (
    "data=tiny", "trainer.precision=32-true", "max_steps=2", "warmup_steps=0", "effective_batch=4",
    "data.micro_batch=4", "callbacks.probe.pairs=4", "callbacks.probe.times=[0.5]",
)  # fmt: skip


def command(folder: Path, *arguments: str, body: Callable[[], None] = main) -> str:
    """What a command in `folder`, by default the export, says; it must succeed."""
    done = here(folder, body, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def told(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        preflight("export", list(arguments), check_export, check_weights)
    return str(caught.value)


def images(pipeline: Any) -> Tensor:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    pipeline.set_progress_bar_config(disable=True)
    noise = noise.to(pipeline.unet.dtype)
    settings = {"num_inference_steps": 2, "output_type": "pt", "guidance_scale": 2.0}
    return pipeline("a cat", latents=noise, **settings).images.float()


def distance(ours: Any, theirs: Any) -> float:
    return float((images(ours) - images(theirs)).abs().max())


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name.removeprefix("policy."): tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps that tunes all of a tiny SD 1.5, `run`, with its `base`."""
    root = tmp_path_factory.mktemp("sd15")
    save_sd15(root / "base")
    # The winners' error falls while training, so of its largest values the first is the best.
    best = ("callbacks.best.monitor=probe/winner_minus_ref", "callbacks.best.mode=max")
    done = run(
        root, "model=sd15", "model.pretrained=base", "run_dir=run", *STEPS, *best, "lr=1e-3",
        "callbacks=[probe,checkpoint,best,ema]", "callbacks.ema.export=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with adapters in a tiny SDXL; their alpha is not their rank."""
    root = tmp_path_factory.mktemp("sdxl")
    save_sdxl(root / "base")
    lora = ("tuning=lora", "tuning.rank=4", "tuning.alpha=24", "lr=1e-2")
    done = run(
        root, "model=sdxl", "model.pretrained=base", "model.vae=null", "run_dir=run", *STEPS, *lora,
        "callbacks=[probe,checkpoint]",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model/ holds the adapters alone" in done.stdout
    return root


@pytest.fixture
def in_sd15(sd15: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(sd15)
    return sd15


@pytest.fixture
def in_sdxl(sdxl: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(sdxl)
    return sdxl


@pytest.fixture(scope="module")
def exports(sd15: Path) -> dict[tuple[str, str], Path]:
    """Both formats of whole weights, one of them in every choice of weights."""
    command(
        sd15, "-m", "checkpoint=run", "format=unet_pth", "weights=last,best,ema", "folder=unets"
    )  # fmt: skip
    command(sd15, "checkpoint=run", "folder=whole")
    unets = {
        ("unet_pth", weights): sd15 / "unets" / str(job)
        for job, weights in enumerate(("last", "best", "ema"))
    }
    return {("diffusers", "last"): sd15 / "whole", **unets}


def expected_weights(sd15: Path) -> dict[str, dict[str, Tensor]]:
    folder = sd15 / "run" / "checkpoints"
    callbacks = torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]
    averages = [state["averaged"] for state in callbacks.values() if "averaged" in state]
    last, best = weights_of(folder / "last.ckpt"), weights_of(folder / "best.ckpt")
    return {"last": last, "best": best, "ema": {**last, **averages[0]}}


@pytest.mark.slow
def test_each_choice_of_weights_is_what_is_exported(
    in_sd15: Path, exports: dict[tuple[str, str], Path]
) -> None:
    expected = expected_weights(in_sd15)
    name = "conv_in.weight"
    for one, other in itertools.combinations(expected.values(), 2):
        assert (one[name] - other[name]).abs().max() > 1e-5
    for (form, weights), folder in exports.items():
        file = "unet.pth" if form == "unet_pth" else "unet/diffusion_pytorch_model.safetensors"
        read = torch.load if form == "unet_pth" else load_file
        written: dict[str, Tensor] = read(folder / file)
        assert written.keys() == expected[weights].keys()
        assert all(torch.equal(written[n], w) for n, w in expected[weights].items()), folder


def test_plain_diffusers_draws_the_policy_s_images(
    in_sd15: Path, exports: dict[tuple[str, str], Path]
) -> None:
    policy = StableDiffusion("base")
    assert distance(StableDiffusion("base").pipeline(), load_base(in_sd15 / "run")) == 0
    policy.denoiser.load_state_dict(weights_of(in_sd15 / "run" / "checkpoints" / "last.ckpt"))
    tuned = policy.pipeline()
    assert distance(tuned, load_base(in_sd15 / "run")) > 0.02
    for folder in (exports["diffusers", "last"], in_sd15 / "run" / "model"):
        assert distance(StableDiffusionPipeline.from_pretrained(folder), tuned) < 1e-5
        assert distance(load_pipeline(folder), tuned) < 1e-5
    assert distance(load_pipeline(in_sd15 / "run"), tuned) < 1e-5
    base = StableDiffusionPipeline.from_pretrained("base")
    base.unet.load_state_dict(
        torch.load(exports["unet_pth", "last"] / "unet.pth", weights_only=True)
    )
    assert distance(base, tuned) < 1e-5


@pytest.mark.slow
def test_an_exported_unet_goes_back_into_training(
    in_sd15: Path, exports: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    file = exports["unet_pth", "last"] / "unet.pth"
    again = ("model=sd15", f"model.pretrained={in_sd15 / 'base'}", f"model.unet={file}")
    still = (*STEPS, "lr=1e-30", "optimizer.weight_decay=0", "callbacks=[probe,checkpoint]")
    command(tmp_path, *again, *still, "max_steps=1", "run_dir=again", body=train.main)
    weights = weights_of(tmp_path / "again" / "checkpoints" / "last.ckpt")
    expected = weights_of(in_sd15 / "run" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    origin = json.loads((tmp_path / "again" / "environment.json").read_text())["base"]
    assert origin["unet"] == str(file)
    # What this run calls its base has the other weights in it.
    base = load_base(tmp_path / "again").unet.state_dict()
    assert all(torch.equal(base[name], tensor) for name, tensor in expected.items())


@pytest.mark.slow
def test_half_precision_of_a_run_that_never_finished(in_sd15: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(in_sd15 / "run" / "checkpoints", stopped / "checkpoints")
    shutil.copy(in_sd15 / "run" / "config.yaml", stopped)
    file = stopped / "checkpoints" / "last.ckpt"
    said = command(in_sd15, f"checkpoint={file}", "dtype=float16", f"folder={tmp_path / 'half'}")
    assert "last.ckpt, step 2 (last)" in said
    for weights in (tmp_path / "half").rglob("*.safetensors"):
        kinds = {tensor.dtype for tensor in load_file(weights).values()}
        assert torch.float16 in kinds <= {torch.float16, torch.int64}, weights
        with safe_open(weights, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    text = json.loads((tmp_path / "half" / "text_encoder" / "config.json").read_text())
    assert text["dtype"] == "float16"
    tuned = load_pipeline(in_sd15 / "run")
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "half", torch_dtype=torch.float16)
    assert loaded.unet.dtype == loaded.vae.dtype == loaded.text_encoder.dtype == torch.float16
    assert 0 < distance(loaded, tuned) < 0.02
    whole = load_pipeline(tmp_path / "half")
    assert whole.unet.dtype == whole.text_encoder.dtype == torch.float32
    assert "has left no summary" in (tmp_path / "half" / "README.md").read_text()


@pytest.mark.slow
def test_adapters_come_back_with_their_alpha(in_sdxl: Path) -> None:
    command(in_sdxl, "-m", "checkpoint=run", "format=lora,diffusers,unet_pth", "folder=exports")
    policy = StableDiffusionXL("base")
    base = policy.pipeline()
    before = images(base)
    LoraTuning(rank=4, alpha=24).apply(policy.denoiser)
    policy.denoiser.load_state_dict(
        weights_of(in_sdxl / "run" / "checkpoints" / "last.ckpt"), strict=False
    )
    policy.denoiser.eval()
    assert (images(base) - before).abs().max() > 0.02
    lora, whole, unet = (in_sdxl / "exports" / str(job) for job in range(3))
    assert sorted(path.name for path in lora.iterdir()) == ["README.md", LORA]
    for folder in (lora, in_sdxl / "run" / "model"):
        loaded = StableDiffusionXLPipeline.from_pretrained("base")
        loaded.load_lora_weights(folder)
        assert distance(loaded, base) < 1e-5
        assert adapter_of(loaded).lora_alpha == 24
    loaded.unload_lora_weights()
    loaded.load_lora_weights(without_alpha(lora, in_sdxl / "flat"))
    assert distance(loaded, base) > 1e-3  # the comparison above can tell
    assert distance(load_pipeline(in_sdxl / "run"), base) < 1e-5
    assert distance(load_pipeline(in_sdxl / "run" / "model"), base) < 1e-5
    assert distance(StableDiffusionXLPipeline.from_pretrained(whole), base) < 1e-5
    state = torch.load(unet / "unet.pth", weights_only=True)
    plain = merged(policy.denoiser).state_dict()
    assert not [name for name in plain if "lora" in name]
    assert state.keys() == plain.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.items())


def adapter_of(pipeline: Any) -> Any:
    (config,) = pipeline.unet.peft_config.values()
    return config


def without_alpha(lora: Path, folder: Path) -> Path:
    """The same adapters as a file that says nothing of alpha, which then is taken for the rank."""
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(load_file(lora / LORA), folder / LORA)
    return folder


@pytest.mark.slow
def test_adapters_away_from_their_run_ask_for_their_base(in_sdxl: Path, tmp_path: Path) -> None:
    shutil.copytree(in_sdxl / "run" / "model", tmp_path / "alone")
    with pytest.raises(UserError, match=r"alone: adapters alone, which need their base"):
        load_pipeline(tmp_path / "alone")
    broken = tmp_path / "run"
    shutil.copytree(in_sdxl / "run" / "model", broken / "model")
    shutil.copy(in_sdxl / "run" / "config.yaml", broken)
    file = broken / "model" / LORA
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=rf"cannot be loaded: {LORA} is broken"):
        load_pipeline(broken)
    (broken / "config.yaml").write_text(
        (broken / "config.yaml").read_text().replace("pretrained: base", "pretrained: gone/base")
    )
    with pytest.raises(UserError, match=r"gone/base: .*hf download gone/base"):
        load_pipeline(broken)


@pytest.mark.slow
def test_a_tuned_sdxl_is_shown_beside_its_base(
    in_sdxl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ("prompt=a cat", "checkpoint=run", "n=1", "steps=2", "folder=drawn")
    command(in_sdxl, *ask, body=generate.main)
    assert "no row of the base" not in capsys.readouterr().out
    rows = [(in_sdxl / "drawn" / name).read_bytes() for name in ("000.png", "base/000.png")]
    assert rows[0] != rows[1]


@pytest.mark.slow
def test_the_code_on_every_card_runs(
    in_sd15: Path,
    sdxl: Path,
    exports: dict[tuple[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuned = load_pipeline(in_sd15 / "run")
    for form in ("diffusers", "unet_pth"):
        assert distance(run_card(exports[form, "last"], in_sd15), tuned) < 1e-5
    monkeypatch.chdir(sdxl)
    assert distance(run_card(sdxl / "run" / "model", sdxl), load_pipeline("run")) < 1e-5


def run_card(folder: Path, root: Path) -> Any:
    """What the card's code leaves as `pipeline`, run in `root`, where its base is."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace('folder = "."', f'folder = "{folder}"'), names)
    return names["pipeline"]


@pytest.mark.slow
def test_the_tiny_world_merges_its_adapters(tmp_path: Path) -> None:
    limits = (*BARE[:1], "callbacks=[checkpoint]", "evaluation=off", "run_dir=run")
    command(tmp_path, "tuning=lora", "tuning.targets=[to_q]", *limits, body=train.main)
    assert (tmp_path / "run" / "model" / "unet").is_dir()
    assert "trust_remote_code=True" in (tmp_path / "run" / "model" / "README.md").read_text()
    words = told(f"checkpoint={tmp_path / 'run'}", "format=lora", f"folder={tmp_path / 'x'}")
    assert "format=lora: the pipeline of TinyBackbone loads no adapters. Use" in words
    command(tmp_path, "checkpoint=run", "folder=whole")
    ours, theirs = (
        load_file(tmp_path / folder / "unet" / "diffusion_pytorch_model.safetensors")
        for folder in ("whole", "run/model")
    )
    assert not [name for name in ours if "lora" in name]
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


@pytest.mark.few(4)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "checkpoint: of which run? For example checkpoint=outputs/run/CELL/TIME"),
        (("checkpoint=none",), "checkpoint=none: no such file or folder. Give a run's folder"),
        (("checkpoint=base",), "checkpoint=base: a model's folder, exported already"),
        (("checkpoint=run/plots",), "checkpoint=run/plots: no run's folder: it has no config.yaml"),
        (("checkpoint=run/metrics.csv",), "not in the checkpoints/ of a run"),
        (("checkpoint=loose.ckpt",), "not in the checkpoints/ of a run, whose config.yaml says"),
        (("checkpoint=empty",), "checkpoint=empty: no checkpoint in empty/checkpoints"),
        (("checkpoint=bare",), "in bare/checkpoints; weights=best takes the best"),
        (("checkpoint=cut",), "checkpoint=cut/checkpoints/last.ckpt: the file cannot be read"),
        (("checkpoint=other",), "last.ckpt: not a training checkpoint of this package"),
        (("checkpoint=bad",), "bad/config.yaml: cannot be read as a run's configuration"),
        (("checkpoint=nothing",), "nothing/config.yaml: does not say which model and tuning"),
        (("checkpoint=empty", "weights=best"), "weights=best: there is no empty/checkpoints/best"),
        (
            ("checkpoint=run/checkpoints/last.ckpt", "weights=best"),
            "weights=best: checkpoint=run/checkpoints/last.ckpt is another; give the run's folder",
        ),
        (("checkpoint=plain", "weights=ema"), "holds no averaged weights; a run keeps them with"),
        (("checkpoint=run", "format=lora"), "the run run tuned all weights, so it has no adapters"),
        (("checkpoint=moved",), "model.pretrained: model gone/base: "),
        (("checkpoint=run", "format=ckpt"), "format: must be 'diffusers', 'lora' or 'unet_pth'"),
        (("checkpoint=run", "dtype=half"), "dtype: must be 'float32', 'float16' or 'bfloat16'"),
        (("checkpoint=run", "folder=base"), "folder=base exists; give another folder"),
        (("checkpiont=run",), "checkpiont=run: unknown key; did you mean 'checkpoint'"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_a_mistake_is_told_before_anything_is_written(
    mistaken: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = sorted(mistaken.rglob("*"))
    message = told(*arguments)
    assert words in message
    assert message.startswith("1 mistake in the configuration; nothing was run:")
    assert sorted(mistaken.rglob("*")) == before


@pytest.fixture
def mistaken(in_sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that is fine, and several that are not."""
    good = in_sd15 / "run"
    for name in ("run", "base"):
        (tmp_path / name).symlink_to(in_sd15 / name)
    for name in ("empty", "bare", "cut", "other", "bad", "nothing", "plain", "moved"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        shutil.copy(good / "config.yaml", tmp_path / name)
    (tmp_path / "loose.ckpt").touch()
    (tmp_path / "bare" / "checkpoints" / "best.ckpt").touch()
    content = (good / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut" / "checkpoints" / "last.ckpt").write_bytes(content[: len(content) // 2])
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other" / "checkpoints" / "last.ckpt")
    for name in ("bad", "nothing", "moved"):
        (tmp_path / name / "checkpoints" / "last.ckpt").write_bytes(content)
    (tmp_path / "bad" / "config.yaml").write_text("model: [")
    (tmp_path / "nothing" / "config.yaml").write_text("model: {}\ntuning: {}\n")
    text = (good / "config.yaml").read_text()
    assert "pretrained: base\n" in text
    (tmp_path / "moved" / "config.yaml").write_text(
        text.replace("pretrained: base\n", "pretrained: gone/base\n")
    )
    state = torch.load(good / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save({**state, "callbacks": {}}, tmp_path / "plain" / "checkpoints" / "last.ckpt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_weights_of_another_model_are_refused(in_sd15: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(in_sd15 / "run" / "checkpoints", other / "checkpoints")
    text = (in_sd15 / "run" / "config.yaml").read_text()
    full = "_target_: sdpo_exp.models.tuning.FullTuning"
    assert full in text
    lora = "_target_: sdpo_exp.models.tuning.LoraTuning"
    (other / "config.yaml").write_text(text.replace(full, lora))
    source = find_source(other, "last")
    content = read_checkpoint(source.checkpoint)
    with pytest.raises(UserError, match=r"last.ckpt: not of .*config.yaml: .*missing .*unknown"):
        build_policy(source, content, "last")


def test_a_full_disk_leaves_nothing_behind(in_sd15: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(backbone: Any, folder: Path, dtype: torch.dtype) -> None:
        (folder / "begun").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_files, "WRITERS", {"diffusers": full})
    done = here(in_sd15, main, "checkpoint=run", "folder=full")
    assert done.returncode != 0
    said = done.stderr
    assert "folder=full: cannot be written ([Errno 28] No space left on device)" in said
    assert "Traceback" not in said
    assert not list(in_sd15.glob("full*"))


def test_looking_and_simple_mistakes_need_no_torch(in_sd15: Path) -> None:
    for arguments, words in (
        (("--cfg", "job", "checkpoint=run"), "checkpoint: run"),
        (("checkpoint=none",), "LOADED []"),
    ):
        done = looking(in_sd15, "export.export", *arguments)
        assert words in done.stdout
        assert "LOADED []" in done.stdout
    shown = python(in_sd15, "-m", "sdpo_exp.export", "--help")
    assert "== Use ==" in shown.stdout


def test_the_run_says_where_its_base_came_from(in_sd15: Path) -> None:
    written = json.loads((in_sd15 / "run" / "environment.json").read_text())
    assert written["base"] == {"pretrained": "base", "commit": None, "unet": None}
    assert written["pairs"] == {"train": 2000, "validation": 200}


@pytest.mark.slow
def test_a_policy_of_adapters_knows_its_scale(in_sdxl: Path) -> None:
    source = find_source(in_sdxl / "run", "last")
    policy = build_policy(source, read_checkpoint(source.checkpoint), "last")
    assert adapter_config(policy.denoiser).lora_alpha == 24
