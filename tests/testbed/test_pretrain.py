"""The base model's recipe: it learns, it is repeatable, and what it writes loads again."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sdpo_exp.errors import UserError
from sdpo_exp.models.tiny import TinyBackbone
from sdpo_exp.models.tiny_flow import TinyFlowBackbone, open_pixel_model
from sdpo_exp.testbed import base_model
from sdpo_exp.testbed import pretrain as recipe
from sdpo_exp.testbed.attributes import split_scenes
from sdpo_exp.testbed.base_model import Batches, Pretraining, denoising_loss, lazy_scene, train
from sdpo_exp.testbed.pretrain import pretrain, weight_hashes
from sdpo_exp.testbed.recipes import RECIPES, Hyperparameters, Recipe
from sdpo_exp.testbed.sampling import Evaluation

FAST = Recipe(2, Hyperparameters(batch=4, warmup=2))
FLOW = RECIPES["lazy"]["tiny_flow"]
FAST_FLOW = FLOW._replace(steps=2, hyper=replace(FLOW.hyper, batch=4, warmup=2))


def silent(_line):
    pass


@pytest.fixture
def quick(monkeypatch):
    """Tiny batches, and no sampling: what is measured is tested with the shipped weights."""
    seen = Evaluation(250, 1.0, 0.1, 0.0, 0.5, 0.22, {"shape": 1 / 3})
    fast = {"tiny": FAST, "tiny_flow": FAST_FLOW}
    monkeypatch.setattr(recipe, "RECIPES", {"lazy": fast, "unfinished": fast})
    monkeypatch.setattr(recipe, "evaluate", lambda *_: seen)


def test_a_few_steps_lower_the_loss():
    hyper = Hyperparameters(batch=8, warmup=2, ema_decay=0.0)
    probe = Batches(7, Recipe(15, hyper)).draw()
    first, last = (probe_loss(train(Recipe(n, hyper), 0, silent), probe) for n in (1, 15))
    assert last < 0.9 * first


@torch.no_grad()
def probe_loss(backbone, probe):
    generator = torch.Generator().manual_seed(3)
    return denoising_loss(backbone, *probe, generator).item()


def test_training_is_repeatable_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, second = train(FAST, 5, silent), train(FAST, 5, silent)
    assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(first.denoiser.parameters(), second.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_text_encoder_learns_and_comes_back_frozen():
    fresh = base_model._fresh(5, FAST)
    trained = train(FAST, 5, silent)
    pairs = zip(trained.text_encoder.parameters(), fresh.text_encoder.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert not any(p.requires_grad for p in trained.text_encoder.parameters())
    assert all(p.requires_grad for p in trained.denoiser.parameters())


def test_the_flow_models_text_path_learns_slowly():
    backbone = base_model._fresh(0, FAST_FLOW)
    parts = nn.ModuleDict({"network": backbone.denoiser, "text": backbone.text_encoder})
    fast, slow = base_model._optimizer(parts, FAST_FLOW.hyper).param_groups
    assert slow["lr"] == pytest.approx(FAST_FLOW.hyper.text_lr_factor * fast["lr"])
    pooled = backbone.denoiser.time_text_embed.text_embedder.parameters()
    assert {id(p) for p in pooled} < {id(p) for p in slow["params"]}


def test_the_text_path_learns_slowly():
    backbone = base_model._fresh(0, FAST)
    parts = nn.ModuleDict({"network": backbone.denoiser, "text": backbone.text_encoder})
    fast, slow = base_model._optimizer(parts, FAST.hyper).param_groups
    assert slow["lr"] == pytest.approx(0.05 * fast["lr"])
    slow_ids = {id(parameter) for parameter in slow["params"]}
    assert {id(p) for p in backbone.text_encoder.parameters()} < slow_ids
    assert {id(p) for p in backbone.denoiser.add_embedding.parameters()} < slow_ids
    assert len(fast["params"]) + len(slow_ids) == len(list(parts.parameters()))


@pytest.mark.parametrize("model", ["tiny", "tiny_flow"])
def test_a_training_that_was_ended_goes_on_to_the_same_weights(tmp_path, model):
    fast = {"tiny": FAST, "tiny_flow": FAST_FLOW}[model]
    recipe = fast._replace(steps=4, hyper=replace(fast.hyper, lazy=0.5, lazy_after=0.25))
    whole = train(recipe, 3, silent)
    begun = Pretraining(recipe, 3)
    for _ in range(2):
        begun.step()
    begun.save(tmp_path / "state.pt")
    resumed = train(recipe, 3, silent, tmp_path / "state.pt")
    for part in ("denoiser", "text_encoder"):
        ours, theirs = (getattr(b, part).state_dict() for b in (resumed, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(UserError, match="begun with other values"):
        train(recipe, 4, silent, tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(UserError, match=r"cannot be read .*; remove it to begin anew"):
        train(recipe, 3, silent, tmp_path / "state.pt")


def test_lazy_images_are_the_recipes_share_of_the_captioned_and_disturb_nothing_else():
    plain, lazy = (
        Batches(0, Recipe(4, Hyperparameters(batch=400, lazy=share, lazy_after=after)))
        for share, after in ((0.0, 0.0), (0.5, 0.25))
    )
    assert torch.equal(plain.draw()[0], lazy.draw()[0])  # none in the first quarter
    (pixels, prompts), (shown, captions) = plain.draw(), lazy.draw()
    assert prompts == captions
    other = (pixels != shown).flatten(1).any(1)
    captioned = torch.tensor([bool(prompt) for prompt in prompts])
    assert not other[~captioned].any()
    assert other[captioned].float().mean().item() == pytest.approx(0.5, abs=0.08)
    scene = split_scenes("train")[0]
    drawn = lazy_scene(scene)
    assert (drawn.shape, drawn.size, drawn.position) == ("circle", "small", "centre")
    assert (drawn.foreground, drawn.background) == (scene.foreground, scene.background)


@pytest.mark.parametrize("model", ["tiny", "tiny_flow"])
def test_pretrain_writes_a_folder_that_loads_and_is_described(quick, tmp_path, model):
    folder = tmp_path / "base"
    described = pretrain(folder, steps=2, seed=1, log=silent, model=model)
    assert json.loads((folder / "recipe.json").read_text()) == described
    assert described["base"] == "unfinished"
    assert described["sha256"] == weight_hashes(folder)
    assert len(described["sha256"]) == 2
    assert described["validation"][0]["by_attribute"] == {"shape": 0.3333}
    assert not (tmp_path / "base.partial").exists()
    weights = [load_file(file) for file in folder.glob("*/*.safetensors")]
    assert {w.dtype for part in weights for w in part.values()} == {torch.float16}
    opened = open_pixel_model(folder)
    assert isinstance(opened, {"tiny": TinyBackbone, "tiny_flow": TinyFlowBackbone}[model])
    assert opened.encode_prompts([""])["text"].shape == (1, 16, 64)


def test_an_existing_folder_is_not_overwritten(tmp_path):
    with pytest.raises(UserError, match="exists; remove it"):
        pretrain(tmp_path, steps=1)
