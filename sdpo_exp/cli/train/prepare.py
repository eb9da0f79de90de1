"""What a training sets in libraries before it begins."""

from __future__ import annotations

import logging
import warnings

from omegaconf import DictConfig


def prepare_torch(config: DictConfig) -> None:
    """Threads, seed, subnormals, and the words of libraries that mean nothing here."""
    import lightning as L
    import torch
    import transformers

    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    # Saturated pairs make subnormal gradients, which slow single CPU backward passes 7-10 times.
    torch.set_flush_denormal(True)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    for harmless in (
        # Of a class that is another since: nothing of its state is needed.
        r".*callbacks used to create the checkpoint.*\[\"StepCheckpoint\{[^}]*\}\"\].*",
        ".*all_gather is deprecated.*",
        ".*does not have many workers.*",
        ".*DataLoader will create .* worker processes.*",  # more than cores: slower, not wrong
        ".*exists and is not empty.*",
        ".*LeafSpec.* is deprecated.*",
        # Which checkpoint is the best is ours to know, too (callbacks/best.py).
        ".*dirpath has changed from.*",
        # Ours is: step k's pairs depend on k alone (data/sampler.py).
        ".*your dataloader is not resumable.*",
    ):
        warnings.filterwarnings("ignore", message=harmless)
    L.seed_everything(config.seed, workers=True, verbose=False)
