"""A hub cache with tiny stand-ins under the released ids, and limits for runs on them."""

from __future__ import annotations

from pathlib import Path

from tests.checkpoints import (
    OVIS_IMAGE_ID,
    OVIS_U1_ID,
    SD15_ID,
    SDXL_ID,
    VAE_FIX_ID,
    cache_folder,
    save_sd15,
    save_sdxl,
    small_vae,
)
from tests.models.ovis_u1 import folder as ovis_u1
from tests.ovis_image import save_ovis_image
from tests.pickapic import write_split

DATA_ID = "yuvalkirstain/pickapic_v2"
# Size limits and nothing else.
SMALL_REAL = (
    "max_steps=2",
    "effective_batch=4",
    "data.micro_batch=2",
    "data.num_workers=1",
    "data.validation_pairs=4",
    "resolution=64",
    "callbacks.probe.pairs=4",
    "callbacks.probe.times=[0.5]",
)


def fill(folder: Path) -> Path:
    """Make the cache, 60 MB."""
    save_sd15(cache_folder(folder, SD15_ID))
    save_sdxl(cache_folder(folder, SDXL_ID))
    save_ovis_image(cache_folder(folder, OVIS_IMAGE_ID))
    ovis_u1.write(cache_folder(folder, OVIS_U1_ID))
    small_vae(0.13025, force_upcast=False).save_pretrained(cache_folder(folder, VAE_FIX_ID))
    data = cache_folder(folder, DATA_ID, "dataset")
    write_split(data, "train", 20)
    write_split(data, "validation_unique", 10, first=100)
    return folder


def environment_of(cache: Path) -> dict[str, str]:
    """Environment under which only this cache is there."""
    return {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache.parent)}
