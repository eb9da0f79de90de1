"""The root of the configuration: its groups, and its keys with their types and ranges."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator, StringConstraints, TypeAdapter, ValidationError

from sdpo_exp.bounds import Guidance, NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval
from sdpo_exp.durations import seconds_of

GROUPS = (
    "model",
    "data",
    "objective",
    "safeguard",
    "tuning",
    "reference",
    "optimizer",
    "trainer",
    "callbacks",
    "logger",
    "evaluation",
)

FolderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _is_time(value: Any) -> Any:
    if value is not None:
        seconds_of(str(value))
    return value


Duration = Annotated[Any, PlainValidator(_is_time)]

ROOT_KEYS: dict[str, Any] = {
    "name": FolderName,
    "seed": NonNegativeInt,
    "resume": str | None,
    "resume_changes": bool,
    "redo": bool,
    "run_dir": str,
    "torch_threads": PositiveInt | None,
    "effective_batch": PositiveInt,
    "max_steps": PositiveInt,
    "max_time": Duration,
    "lr": PositiveFloat,
    "warmup_steps": NonNegativeInt,
    "schedule": Literal["constant", "linear", "cosine"],
    "resolution": PositiveInt,
}

PRETRAIN_KEYS: dict[str, Any] = {
    "model": Literal["tiny", "tiny_flow"],
    "base": Literal["lazy", "unfinished"],
    "folder": str,
    "steps": PositiveInt | None,
    "seed": NonNegativeInt,
    "torch_threads": PositiveInt,
}

# What decides how images are drawn, and where.
DRAW_KEYS: dict[str, Any] = {
    "checkpoint": str | None,
    "base": str | None,
    "revision": str | None,
    "vae": str | None,
    "n": PositiveInt | None,
    "seed": NonNegativeInt,
    "negative_prompt": str | None,
    "guidance": Guidance,
    "steps": PositiveInt,
    "noise": Literal["prompt", "shared"],
    "noise_device": Literal["cpu", "cuda"] | None,
    "height": PositiveInt | None,
    "width": PositiveInt | None,
    "sampler": dict[str, Any] | None,
    "dtype": Literal["auto", "float32", "bfloat16", "float16"],
    "device": Literal["auto", "cpu", "cuda"],
    "devices": PositiveInt | None,
    "batch": PositiveInt | None,
    "folder": str,
    "torch_threads": PositiveInt,
}

GENERATE_KEYS: dict[str, Any] = {"prompt": str | None, **DRAW_KEYS}

EVALUATE_KEYS: dict[str, Any] = {
    **DRAW_KEYS,
    "images": str | None,
    "label": str | None,
    "score_batch": PositiveInt,
}

EXPORT_KEYS: dict[str, Any] = {
    "checkpoint": str | None,
    "format": Literal["diffusers", "lora", "unet_pth"],
    "weights": Literal["last", "best", "ema"],
    "dtype": Literal["float32", "float16", "bfloat16"],
    "folder": str,
    "torch_threads": PositiveInt,
}

SAMPLE_PAIRS_KEYS: dict[str, Any] = {
    "folder": str,
    "pretrained": str | None,
    "model": Literal["tiny", "tiny_flow"],
    "base": Literal["unfinished"],
    "train": NonNegativeInt,
    "validation": NonNegativeInt,
    "k": PositiveInt,
    "seed": NonNegativeInt,
    "guidance": PositiveFloat,
    "steps": PositiveInt,
    "min_gap": UnitInterval,
    "torch_threads": PositiveInt,
}

TIMESTEP_KEYS: dict[str, Any] = {"min": NonNegativeInt, "max": PositiveInt | None}

RECIPE_KEYS: dict[str, Any] = {
    "source": str | None,
    "note": str | None,
    "beta": PositiveFloat,
    "alpha": UnitInterval,
    "mu": UnitInterval,
    "official_compat": bool,
}


def type_problem(value: Any, annotation: Any) -> str | None:
    """What is wrong with `value`, in words, or None."""
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
        message = str(first["msg"]).replace("Input should be", "must be")
        message = message.removeprefix("Value error, ")  # of a check of ours
        if first["type"] == "string_pattern_mismatch":
            message = "must be a plain folder name of letters, digits, '.', '_' and '-'"
        return f"{where + ' ' if where else ''}{message}, got {value!r}"
    return None
