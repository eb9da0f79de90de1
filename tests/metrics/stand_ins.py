"""Small random models in the released files' layout, where the hub's cache would have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel

from sdpo_exp.metrics.aesthetic import HEAD_FILE, AestheticScore
from sdpo_exp.metrics.clip_score import ClipScore
from sdpo_exp.metrics.hps import HumanPreferenceScore
from sdpo_exp.metrics.image_reward import ImageReward
from sdpo_exp.metrics.pick_score import PickScore
from sdpo_exp.metrics.preprocessing import MEAN, STD
from sdpo_exp.protocols import Scorer
from tests.checkpoints import cache_folder, clip_tokenizer
from tests.metrics import test_aesthetic, test_image_reward
from tests.metrics.small import CLIP, as_transformers, bert_tokenizer, clip_config, clip_model

PICKSCORE, AESTHETIC = "yuvalkirstain/PickScore_v1", "openai/clip-vit-large-patch14"
LAION, HPS = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "xswu/HPSv2"
IMAGE_REWARD, BERT = "THUDM/ImageReward", "google-bert/bert-base-uncased"
# No two have the same weights, as no two of the released ones have.
SEEDS = {"pickscore": 1, "clip": 2, "hpsv2": 3, "hpsv21": 4}
# With these a command builds all five metrics of the published evaluation, and HPS v2.1.
ALL = ("pickscore", "clip", "hpsv2", "hpsv21", "aesthetic", "imagereward")


def head_overrides(head: Path) -> tuple[str, str]:
    """Command-line words for a head that is not the released one."""
    return f"metric.aesthetic.head={head}", "metric.aesthetic.head_sha256=null"


def fill(cache: Path) -> Path:
    """Make the cache, 35 MB; returns the aesthetic head's file, which lies beside it."""
    _save_clip(cache_folder(cache, PICKSCORE), "gelu", pick_state())
    laion, hps = cache_folder(cache, LAION), cache_folder(cache, HPS)
    clip_tokenizer().save_pretrained(laion)
    save_file(open_clip_state("clip"), laion / "open_clip_model.safetensors")
    torch.save({"state_dict": open_clip_state("hpsv2")}, hps / "HPS_v2_compressed.pt")
    torch.save({"state_dict": open_clip_state("hpsv21")}, hps / "HPS_v2.1_compressed.pt")
    images = {"mean": list(MEAN), "std": list(STD)}
    for folder in (laion, hps):
        text = json.dumps({"model_cfg": CLIP, "preprocess_cfg": images})
        (folder / "open_clip_config.json").write_text(text)
    _save_clip(cache_folder(cache, AESTHETIC), "quick_gelu", test_aesthetic.state())
    torch.save(test_image_reward.state(), cache_folder(cache, IMAGE_REWARD) / "ImageReward.pt")
    bert_tokenizer().save_pretrained(cache_folder(cache, BERT))
    head = cache.parent / HEAD_FILE
    torch.save(test_aesthetic.head_state(), head)
    return head


def open_clip_state(name: str) -> dict[str, Tensor]:
    return clip_model(seed=SEEDS[name]).state_dict()


def pick_state() -> dict[str, Tensor]:
    return as_transformers(open_clip_state("pickscore"))


def _save_clip(folder: Path, act: str, state: dict[str, Tensor]) -> None:
    model = CLIPModel(clip_config(act))
    model.load_state_dict(state)
    model.save_pretrained(folder)


# The same without files; that these score rightly is shown elsewhere.
IN_MEMORY: dict[str, Callable[[], Scorer]] = {
    "pickscore": lambda: PickScore.from_state_dict(pick_state(), clip_config(), clip_tokenizer()),
    "clip": lambda: ClipScore.from_state_dict(open_clip_state("clip"), CLIP),
    "hpsv2": lambda: HumanPreferenceScore.from_state_dict(open_clip_state("hpsv2"), "v2.0", CLIP),
    "hpsv21": lambda: HumanPreferenceScore.from_state_dict(open_clip_state("hpsv21"), "v2.1", CLIP),
    "aesthetic": lambda: AestheticScore.from_state_dict(
        test_aesthetic.state(), test_aesthetic.head_state(), test_aesthetic.config()
    ),
    "imagereward": lambda: ImageReward.from_state_dict(test_image_reward.state(), bert_tokenizer()),
}
