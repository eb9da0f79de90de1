"""Whatever names a model leads to its weights: run, folder, hub id, UNet or adapters on a base."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from huggingface_hub import constants
from safetensors.torch import save_file

from sdpo_exp import hub
from sdpo_exp.cli.checkpoints.model_choice import ModelChoice, absent, open_model, problems
from sdpo_exp.cli.checkpoints.model_identity import weights_hash
from sdpo_exp.cli.checkpoints.pipelines import ADAPTERS
from sdpo_exp.errors import UserError
from sdpo_exp.models.stable_diffusion import StableDiffusion
from sdpo_exp.models.tuning import LoraTuning
from sdpo_exp.models.unet_file import write_state
from tests.checkpoints import SD15_ID, cache_folder, save_sd15, small_sd_unet, small_vae
from tests.cli.checkpoints.test_pipelines import perturbed


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in a hub's cache and as a folder, and other weights for it in every form."""
    root = tmp_path_factory.mktemp("models")
    save_sd15(root / "base")
    save_sd15(cache_folder(root / "hub", SD15_ID))
    torch.manual_seed(9)
    unet = small_sd_unet()
    write_state(unet, root / "unet.pth")
    unet.save_pretrained(root / "lone" / "unet")
    small_vae().save_pretrained(root / "vae")
    backbone = StableDiffusion(str(root / "base"))
    LoraTuning(rank=2, alpha=2).apply(backbone.denoiser)
    with torch.no_grad():
        for name, value in backbone.denoiser.named_parameters():
            if "lora_B" in name:
                value.normal_()
    backbone.save_lora(root / "adapters")
    return root


@pytest.fixture(autouse=True)
def cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(root)
    for remembered in (hub._unreachable, hub._no_answer):
        remembered.cache_clear()
    yield
    for remembered in (hub._unreachable, hub._no_answer):
        remembered.cache_clear()


def opened(**choice: Any) -> Any:
    model = ModelChoice(**choice)
    assert problems(model) == []
    assert absent(model) == []
    return open_model(model, "cpu")


def base_hash() -> str:
    return str(opened(checkpoint="base").identity["weights"])


def test_nothing_named_is_the_embedded_base(tmp_path: Path) -> None:
    found = opened()
    assert type(found.pipeline).__name__ == "PixelShufflePipeline"
    assert ModelChoice().name == "base"
    (tmp_path / "run").mkdir()
    perturbed().save(tmp_path / "run" / "model")
    tuned = opened(checkpoint=str(tmp_path / "run"))
    assert tuned.identity["weights"] != found.identity["weights"]
    assert tuned.identity["checkpoint"] == str(tmp_path / "run")


@pytest.mark.parametrize("key", ["checkpoint", "base"])
def test_a_hub_id_is_its_snapshot_with_its_commit(key: str) -> None:
    found = opened(**{key: SD15_ID})
    assert found.identity["weights"] == base_hash()
    assert len(found.identity["commit"]) == 40
    assert found.identity[key] == SD15_ID
    assert ModelChoice(**{key: SD15_ID}).name == "stable-diffusion-v1-5"


@pytest.mark.parametrize("checkpoint", ["unet.pth", "lone", "lone/unet"])
@pytest.mark.parametrize("base", ["base", SD15_ID])
def test_weights_alone_go_into_their_base(checkpoint: str, base: str) -> None:
    found = opened(checkpoint=checkpoint, base=base)
    torch.manual_seed(9)
    assert found.identity["weights"] == weights_hash(small_sd_unet())
    assert isinstance(found.pipeline, StableDiffusionPipeline)


@pytest.mark.parametrize("checkpoint", ["adapters", f"adapters/{ADAPTERS}"])
def test_adapters_go_onto_their_base(checkpoint: str) -> None:
    found = opened(checkpoint=checkpoint, base="base")
    names = [name for name, _ in found.pipeline.unet.named_parameters()]
    assert any("lora" in name for name in names)
    assert found.identity["weights"] != base_hash()


def test_adapters_of_another_family_are_told(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"transformer.blocks.0.attn.lora_A.weight": torch.zeros(2, 4)}, file)
    with pytest.raises(UserError, match="LoRA of its base"):
        open_model(ModelChoice(str(file), "base"), "cpu")


def test_what_was_not_looked_at_is_not_told() -> None:
    whole = opened(checkpoint="base", base="nobody/nothing").identity
    assert whole["base"] is None
    assert opened(checkpoint="unet.pth", base="base").identity["base"] == "base"
    assert set(whole["parts"]) == {"unet", "vae", "text_encoder"}
    assert whole["parts"]["unet"] == whole["weights"]


def test_another_vae_takes_the_place_of_the_model_s_own() -> None:
    found = opened(checkpoint="base", vae="vae")
    (weight, other) = (
        vae.decoder.conv_in.weight
        for vae in (found.pipeline.vae, AutoencoderKL.from_pretrained("vae"))
    )
    assert torch.equal(weight, other)
    with pytest.raises(UserError, match="vae=vae: PixelShufflePipeline has no VAE"):
        opened(vae="vae")


def test_half_precision_leaves_the_vae_alone() -> None:
    found = open_model(ModelChoice(checkpoint="base"), "cpu", "bfloat16")
    pipeline: Any = found.pipeline
    kinds = [part.dtype for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae)]
    assert kinds == [torch.bfloat16, torch.bfloat16, torch.float32]
    # The hash is of the weights as stored, whatever they are rounded to.
    assert found.identity["weights"] == base_hash()
    assert found.identity["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"checkpoint": "unet.pth"}, "checkpoint=unet.pth: weights alone, which need their base"),
        ({"checkpoint": "adapters"}, "checkpoint=adapters: weights alone"),
        ({"checkpoint": "no/such/folder"}, "checkpoint=no/such/folder: no such folder"),
        ({"checkpoint": "nothing"}, "checkpoint=nothing: no such folder"),
        ({"checkpoint": "hub"}, "checkpoint=hub: neither a run's folder nor a model's"),
        ({"checkpoint": "base", "revision": "v1"}, "revision: nothing comes from the hub here"),
    ],
)
def test_a_wrong_path_is_told(choice: Any, words: str) -> None:
    (told,) = problems(ModelChoice(**choice))
    assert words in told


def test_what_is_on_the_hub_only_is_told() -> None:
    (told,) = absent(ModelChoice(checkpoint="owner/name"))
    assert "checkpoint: model owner/name" in told
    assert "hf download owner/name" in told
    told, vae = absent(ModelChoice(checkpoint="unet.pth", base="owner/base", vae="owner/vae"))
    assert "base: model owner/base" in told
    assert "vae: model owner/vae" in vae


def test_weights_of_another_model_are_told(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "unet.pth")
    with pytest.raises(UserError, match="not the weights of this model's denoiser"):
        open_model(ModelChoice(str(tmp_path / "unet.pth"), "base"), "cpu")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"broken.safetensors: cannot be read"):
        open_model(ModelChoice(str(tmp_path / "broken.safetensors"), "base"), "cpu")
