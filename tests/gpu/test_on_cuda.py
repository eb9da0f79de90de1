"""What only a GPU can show. `make test-gpu`; without one every test here is skipped."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sdpo_exp.data.keyed import Sealed
from sdpo_exp.models.reference import AdapterOff, FrozenReference
from sdpo_exp.models.sdxl import StableDiffusionXL
from sdpo_exp.models.stable_diffusion import StableDiffusion
from sdpo_exp.models.tuning import FullTuning, LoraTuning
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.safeguard import PreserveWinner
from sdpo_exp.training import PreferenceModule
from sdpo_exp.types import Geometry, PairBatch, PairKey
from tests.checkpoints import save_sd15, save_sdxl, small_vae
from tests.cli.command import SMALL, metric_rows, python

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
KINDS: dict[str, Any] = {
    "sd15": (StableDiffusion, save_sd15),
    "sdxl": (StableDiffusionXL, save_sdxl),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {name: save(root / name) for name, (_, save) in KINDS.items()}
    small_vae(0.13025, force_upcast=False).save_pretrained(root / "vae")
    return {**made, "vae": root / "vae"}


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Convolutions in plain float32, so that a comparison with the CPU says something."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before
    torch._dynamo.reset()


def make(
    folders: dict[str, Path], kind: str, device: torch.device = CUDA, **changes: Any
) -> PreferenceModule:
    lora = changes.pop("lora", False)
    options = changes.pop("options", {})
    parts: dict[str, Any] = {
        "backbone": KINDS[kind][0](str(folders[kind]), **changes.pop("backbone", {})),
        "objective": DPO(beta=500.0),
        "safeguard": PreserveWinner(mu=0.6),
        "reference": AdapterOff() if lora else FrozenReference(),
        "tuning": LoraTuning(rank=4, **options) if lora else FullTuning(**options),
        "optimizer": partial(torch.optim.AdamW, lr=1e-3),
    }
    module = PreferenceModule(**{**parts, **changes})
    module.backbone.to(device)
    module.reference.to(device)
    return module.to(device).train()


def batch_on(device: torch.device, pairs: int = 4, size: int = 64) -> PairBatch:
    generator = torch.Generator().manual_seed(0)
    winner, loser = (torch.rand(2, pairs, 3, size, size, generator=generator) * 2 - 1).to(device)
    geometry = [Geometry(size, size, 0, 0, size, size)] * pairs
    keys = [PairKey(0, i, i) for i in range(pairs)]
    return PairBatch(winner, loser, [f"prompt {i}" for i in range(pairs)], keys, geometry, [])


def losses(module: PreferenceModule, steps: int = 3, autocast: bool = False) -> list[float]:
    device = next(module.policy.parameters()).device
    batch = batch_on(device)
    optimizer = module.make_optimizer([p for p in module.policy.parameters() if p.requires_grad])
    found = []
    for step in range(steps):
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = module.training_step(batch, step)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bf16"])
def test_before_the_first_update_nothing_is_preferred(
    folders: dict[str, Path], kind: str, lora: bool, autocast: bool
) -> None:
    module = make(folders, kind, lora=lora)
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        record = module.training_step(batch_on(CUDA), 0)["record"]
    assert record.logits.abs().max() == 0.0
    assert record.loss.tolist() == pytest.approx([math.log(2)] * 4, abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_and_lambda_are_the_cpus(folders: dict[str, Path], kind: str) -> None:
    records = []
    for device in (CPU, CUDA):
        module = make(folders, kind, device)
        with torch.no_grad():
            records.append(module.training_step(batch_on(device), 0)["record"])
    ours, theirs = records
    assert torch.equal(ours.timestep, theirs.timestep.cpu())
    for name in ("winner_error", "loser_error", "lambda_safe", "cosine"):
        found = getattr(theirs, name).cpu()
        torch.testing.assert_close(found, getattr(ours, name), rtol=1e-4, atol=1e-5)


def test_a_vae_made_for_it_runs_in_half_precision(folders: dict[str, Path]) -> None:
    both = [
        make(folders, "sdxl", backbone={"vae": str(folders["vae"]), "vae_dtype": dtype})
        for dtype in ("auto", "float32")
    ]
    assert [m.backbone.vae.dtype for m in both] == [torch.float16, torch.float32]  # type: ignore[attr-defined]
    half, full = (m.draw(batch_on(CUDA))[0].x_t for m in both)
    assert torch.isfinite(half).all()
    torch.testing.assert_close(half, full, rtol=2e-2, atol=2e-2)


def test_a_vae_that_overflows_stays_in_float32(folders: dict[str, Path]) -> None:
    assert make(folders, "sd15").backbone.vae.dtype == torch.float32  # type: ignore[attr-defined]


def test_a_reference_in_main_memory_trains_the_same_numbers(folders: dict[str, Path]) -> None:
    there = losses(make(folders, "sd15", reference=FrozenReference(device="cpu")))
    here = losses(make(folders, "sd15"))
    assert there[0] == here[0]
    assert there == pytest.approx(here, rel=1e-4)  # a backward pass there is not repeatable to bits


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_compiled_networks_train_the_same_numbers(folders: dict[str, Path], lora: bool) -> None:
    eager = losses(make(folders, "sd15", lora=lora))
    compiled = losses(make(folders, "sd15", lora=lora, options={"compile": True}))
    assert compiled == pytest.approx(eager, rel=1e-3)


def test_checkpointed_activations_give_the_same_gradients(folders: dict[str, Path]) -> None:
    plain = losses(make(folders, "sdxl"), autocast=True)
    again = losses(make(folders, "sdxl", options={"gradient_checkpointing": True}), autocast=True)
    assert again == pytest.approx(plain, rel=2e-3)


def test_host_and_device_meet_only_where_inputs_are_drawn(folders: dict[str, Path]) -> None:
    """After the inputs are there a step reads nothing back."""
    module = make(folders, "sdxl")
    batch = batch_on(CUDA)
    module.training_step(batch, 0)["loss"].backward()  # allocations and handles are made
    inputs = module.draw(batch)
    module.draw = lambda _: inputs  # type: ignore[method-assign]
    torch.cuda.set_sync_debug_mode("error")
    try:
        module.training_step(batch, 1)["loss"].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_drawing_inputs_meets_the_host_a_known_number_of_times(
    folders: dict[str, Path], record_property: Any
) -> None:
    module = make(folders, "sdxl")
    batch = batch_on(CUDA)
    module.draw(batch)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            module.draw(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    count = sum("synchronizing" in str(warning.message) for warning in told)
    record_property("syncs_in_draw", count)
    print(f"syncs in draw: {count}")
    # Timesteps, noise, posterior noise, ids of both text encoders, order of prompts, sizes.
    assert count <= 7


def test_a_batch_of_the_loader_is_pinned_and_sent_whole() -> None:
    batch = batch_on(CPU)
    pinned = Sealed(batch).pin_memory().content
    assert isinstance(pinned, PairBatch)
    assert pinned.winner.is_pinned()
    assert pinned.loser.is_pinned()
    sent = pinned.winner.to(CUDA, non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(sent.cpu(), batch.winner)
    assert pinned.prompts == batch.prompts


COMMANDS = {
    "default": (),
    "bf16": ("trainer.precision=bf16-mixed",),
    "fp16": ("trainer.precision=16-mixed",),
    "fused": ("optimizer=adamw_fused", "trainer.precision=bf16-mixed"),
    "lora": ("tuning=lora",),
    "ddp": ("trainer.strategy=ddp", "trainer.devices=1"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_trains_on_it(tmp_path: Path, name: str) -> None:
    done = python(
        tmp_path,
        "-m",
        "sdpo_exp",
        *SMALL,
        "trainer.accelerator=gpu",
        "run_dir=run",
        *COMMANDS[name],
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "finished: 2 steps" in done.stdout
    assert "START-UP CHECK" not in done.stdout
    first = next(row for row in metric_rows(tmp_path / "run") if row["train/loss"])
    assert float(first["train/loss"]) == pytest.approx(math.log(2), abs=1e-6)
    if name != "default":
        return
    again = python(tmp_path, "-m", "sdpo_exp", "resume=run", "max_steps=3", "run_dir=on")
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-2000:]


def test_the_command_line_trains_sdxl_adapters_on_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from PIL import Image

    for name in ("winner", "loser"):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        for i in range(40):
            color = (i * 6, 255 if name == "winner" else 20, 90)
            Image.new("RGB", (64, 64), color).save(tmp_path / "pairs" / name / f"{i}.png")
    rows = "".join(f"{i}.png,picture {i}\n" for i in range(40))
    (tmp_path / "pairs" / "captions.csv").write_text("file,caption\n" + rows)
    done = python(
        tmp_path, "-m", "sdpo_exp", "model=sdxl", f"model.pretrained={folders['sdxl']}",
        f"model.vae={folders['vae']}", "tuning=lora", "lr=1e-4", "objective=dmpo", "data=folder",
        "data.train.path=pairs", "data.train.holdout=0.2", "data.validation_pairs=2",
        "resolution=64",
        "effective_batch=4", "data.micro_batch=2", "max_steps=2", "warmup_steps=0",
        "callbacks.probe.pairs=4", "run_dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "finished: 2 steps" in done.stdout
