"""Which keys of a configuration decide what is learned, and which are worth a name."""

from __future__ import annotations

# Where a run is, what it tells, how long it goes on and how it is executed: not how it learns.
_FREE = frozenset(
    (
        *("name", "run_dir", "resume", "resume_changes", "redo", "max_steps", "max_time"),
        *("torch_threads", "hydra", "logger", "evaluation", "callbacks"),
        *("recipe.source", "recipe.note"),
        *(f"trainer.{key}" for key in ("default_root_dir", "max_steps", "max_epochs")),
        *("trainer.accelerator", "model.encode_batch", "reference.device"),
        *("data.max_steps", "data.num_workers", "data.validation", "data.validation_pairs"),
        "data.cache",
        *("data.train.cache_dir", "tuning.gradient_checkpointing", "tuning.channels_last"),
        *("tuning.compile", "tuning.compile_backend"),
    )
)
# Of the callbacks, the one that changes what is saved of a training.
_BOUND = "callbacks.ema"
# How a run is executed, fed and looked at, which no name of it needs to say.
_PLUMBING = frozenset({"callbacks", "evaluation", "trainer", "max_time", "recipe"})
_PLUMBING_ENDS = frozenset(
    (
        *("_target_", "path", "pretrained", "revision", "variant", "config", "split", "cache_dir"),
        *("labels", "holdout", "part", "num_workers", "prefetch_factor", "micro_batch", "cache"),
        *("validation_pairs", "on_bad_row", "max_aspect_gap", "device", "encode_batch"),
        *("vae", "unet", "vae_dtype", "text_dtype", "gradient_checkpointing", "channels_last"),
        *("compile", "compile_backend"),
    )
)


def shapes(key: str) -> bool:
    """Whether a dotted key of the configuration decides what is learned."""
    parts = key.split(".")
    above = {".".join(parts[: i + 1]) for i in range(len(parts))}
    return not above & _FREE or _BOUND in above


def is_plumbing(key: str) -> bool:
    """Whether a dotted key says how a run is executed, fed or looked at, and not what it tries."""
    parts = key.split(".")
    return parts[0] in _PLUMBING or parts[-1] in _PLUMBING_ENDS or "columns" in parts
