"""Stage 1: everything that can be known to be wrong without importing torch, all at once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from sdpo_exp.config.schema import GROUPS, RECIPE_KEYS, ROOT_KEYS, TIMESTEP_KEYS, type_problem
from sdpo_exp.config.signatures import UNKNOWN, TargetError, read_signature

_TOLD_ELSEWHERE = object()
INSTANTIATE_KEYS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
_DERIVED = {
    "accumulate_grad_batches": "it follows from effective_batch, data.micro_batch and the devices",
    "val_check_interval": "callbacks.validation.every_n_steps says when",
    "limit_val_batches": "data.validation_pairs says how many",
    "use_distributed_sampler": "the sampler is the data module's",
    "max_time": "give max_time, without trainer",
    "logger": "choose with logger=[csv,...]",
    "callbacks": "choose with callbacks=[default,...]",
}

_OF_THE_WORLD = ("sdpo_exp.models.tiny.", "sdpo_exp.models.tiny_flow.")


def check_config(config: DictConfig) -> list[str]:
    """All problems of a composed configuration, in words; an empty list means none.

    Covers root keys, and keys, types and ranges of every node whose `_target_` is ours. Nodes of
    other libraries are left to `check_third_party`.
    """
    problems = list(_check_root(config))
    for group in GROUPS:
        node = config.get(group)
        if isinstance(node, DictConfig):
            problems += check_node(node, group)
        elif node is None:
            problems.append(f"{group}: no choice made; give {group}=<choice>")
    problems += _check_timesteps(config.timesteps)
    problems += [f"recipe.{problem}" for problem in check_keys(config.recipe, RECIPE_KEYS)]
    if not problems:
        problems += [problem for rule in _RULES if (problem := rule(config))]
    return problems


def _check_timesteps(node: Any) -> list[str]:
    if not isinstance(node, DictConfig):
        return [f"timesteps: give timesteps.min and timesteps.max, got {node!r}"]
    problems = [f"timesteps.{problem}" for problem in check_keys(node, TIMESTEP_KEYS)]
    if not problems and node.max is not None and node.min >= node.max:
        problems = [f"timesteps.min={node.min}: must be below timesteps.max={node.max}"]
    return problems


def check_keys(config: DictConfig, schema: Mapping[str, Any]) -> list[str]:
    """Problems of a flat configuration: unknown keys, types and ranges."""
    problems = [
        f"{key}: unknown key{close_matches(str(key), schema)}"
        for key in config
        if key not in schema and key != "hydra"
    ]
    return problems + list(_check_values(config, "", schema))


def _check_root(config: DictConfig) -> Iterator[str]:
    known = [*ROOT_KEYS, *GROUPS, "recipe", "timesteps", "hydra"]
    for key in config:
        if key not in known:
            yield f"{key}: unknown key{close_matches(str(key), known)}"
    yield from _check_values(config, "", ROOT_KEYS)


def _check_values(node: DictConfig, path: str, schema: Mapping[str, Any]) -> Iterator[str]:
    for key, annotation in schema.items():
        # A mandatory value, `???`, is not "in" its node.
        if key not in node and not OmegaConf.is_missing(node, key):
            continue
        where = f"{path}.{key}" if path else key
        if _repeats_checked_key(node, key):
            continue
        value, problem = _resolve(node, key)
        if problem is None and value is not _TOLD_ELSEWHERE and not _is_built(value):
            problem = type_problem(value, annotation) if annotation is not UNKNOWN else None
        if problem:
            yield f"{where}: {problem}"


def _repeats_checked_key(node: DictConfig, key: str) -> bool:
    """Whether the value is `${lr}`, `${recipe.mu}` or that of training: told where it is set."""
    if not OmegaConf.is_interpolation(node, key):
        return False
    source = str(node._get_node(key)._value()).removeprefix("${").removesuffix("}")  # type: ignore[union-attr]
    known = source in ROOT_KEYS or source.removeprefix("recipe.") in RECIPE_KEYS
    return known or source == f"data.train.{key}"


def _resolve(node: DictConfig, key: str) -> tuple[Any, str | None]:
    """The plain value of a key, or why it has none."""
    try:
        if OmegaConf.is_missing(node, key):
            return None, "a value is required"
        value = node[key]
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
    except InterpolationToMissingValueError:
        return _TOLD_ELSEWHERE, None
    except OmegaConfBaseException as error:
        return None, str(error).splitlines()[0]
    return value, None


def _is_built(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def check_node(node: DictConfig, path: str) -> Iterator[str]:
    """Check a node and the nodes below it that are built on their own."""
    target = node.get("_target_")
    if isinstance(target, str) and target.startswith("sdpo_exp."):
        yield from _check_own(node, path, target)
    for key in node:
        child = node._get_node(key)
        if child is None or child._is_interpolation() or child._is_missing():
            continue
        if isinstance(child, DictConfig):
            if target is None and "_target_" not in child:
                yield f"{path}.{key}: has no _target_, so nothing can be built from it"
            yield from check_node(child, f"{path}.{key}")


def _check_own(node: DictConfig, path: str, target: str) -> Iterator[str]:
    try:
        signature = read_signature(target)
    except TargetError as error:
        yield f"{path}._target_: {error}"
        return
    given = [str(key) for key in node if key not in INSTANTIATE_KEYS]
    for key in given:
        if key not in signature.parameters and not signature.open_ended:
            yield f"{path}.{key}: unknown key{close_matches(key, signature.parameters)}"
    if not node.get("_partial_"):
        for key, parameter in signature.parameters.items():
            if parameter.required and key not in given:
                yield f"{path}.{key}: a value is required"
    annotations = {key: p.annotation for key, p in signature.parameters.items()}
    yield from _check_values(node, path, annotations)


def close_matches(word: str, known: Any) -> str:
    """`; did you mean 'x'?` for the nearest of `known`, and what there is if they are few."""
    names = [str(name) for name in known]
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there are: {', '.join(names)}" if 0 < len(names) <= 12 else ""


# -- rules between groups ----------------------------------------------------------------------


def _weighted_needs_weights(config: DictConfig) -> str | None:
    if not config.safeguard.get("weighted"):
        return None
    target = config.objective.get("_target_", "")
    if not target.startswith("sdpo_exp.") or "weights" in read_signature(target).methods:
        return None
    return (
        f"safeguard.weighted=true: {target.rpartition('.')[2]} has no closed-form pair weights. "
        "Use safeguard=on or safeguard=pair with it."
    )


def _compat_is_microbatch(config: DictConfig) -> str | None:
    guard = config.safeguard
    if guard.get("official_compat") and (guard.scope != "microbatch" or guard.weighted):
        return (
            "safeguard.official_compat=true: the public code knows one lambda per micro-batch "
            "without weights. Use it with safeguard=on."
        )
    return None


def _whole_passes(config: DictConfig) -> str | None:
    micro, effective = config.data.get("micro_batch"), config.effective_batch
    if micro and effective % micro:
        return (
            f"effective_batch={effective} is not a multiple of data.micro_batch={micro}. Set "
            f"data.micro_batch to a divisor, or effective_batch={-(-effective // micro) * micro}."
        )
    return None


def _adapters_to_switch_off(config: DictConfig) -> str | None:
    tuning, reference = (str(config[group].get("_target_")) for group in ("tuning", "reference"))
    if not (tuning.endswith(".FullTuning") and reference.endswith(".AdapterOff")):
        return None
    return (
        "reference=adapter_off: tuning=full has no adapters to switch off. Use tuning=lora, or "
        "reference=frozen."
    )


def _fused_needs_no_scaler(config: DictConfig) -> str | None:
    scaled = str(config.trainer.get("precision")) in ("16", "16-mixed")
    if not (scaled and config.optimizer.get("fused")):
        return None
    return (
        f"trainer.precision={config.trainer.precision}: a fused optimizer undoes the loss scale "
        "inside its step, after gradients are looked at and clipped. Use optimizer=adamw, or "
        "trainer.precision=bf16-mixed."
    )


def _resume_exists(config: DictConfig) -> str | None:
    if config.resume is not None and not Path(config.resume).exists():
        return f"resume={config.resume}: no such checkpoint or run folder"
    return None


def _bounds_of_lambda(config: DictConfig) -> str | None:
    low, high = (config.safeguard.get(f"lambda_{end}") for end in ("min", "max"))
    numbers = all(isinstance(value, int | float) for value in (low, high))
    if not numbers or low <= high:
        return None
    return f"safeguard.lambda_min={low}: must not be above safeguard.lambda_max={high}"


def _evaluation_is_chosen(config: DictConfig) -> str | None:
    values = [str(key) for key in config.evaluation]
    if not values or "_target_" in values:
        return None
    return f"evaluation.{values[0]}: evaluation=off takes no values; leave them out"


def _evaluation_draws_with_the_model(config: DictConfig) -> str | None:
    judged = str(config.evaluation.get("_target_", ""))
    model = str(config.model.get("_target_", ""))
    latent = model.startswith("sdpo_exp.models.") and not model.startswith(_OF_THE_WORLD)
    if not (judged.startswith("sdpo_exp.testbed.") and latent):
        return None
    return (
        f"evaluation: {judged.rpartition('.')[2]} judges pictures of the embedded world, which "
        f"{model.rpartition('.')[2]} does not draw. Use evaluation=prompts, or evaluation=off."
    )


def _reference_has_the_policys_dtype(config: DictConfig) -> str | None:
    halves = {"bf16-true": "bfloat16", "16-true": "float16"}
    dtype = halves.get(str(config.trainer.get("precision")))
    given = config.reference.get("dtype")
    full = str(config.tuning.get("_target_", "")).endswith(".FullTuning")
    if dtype is None or given in (None, dtype) or not full:
        return None
    return (
        f"trainer.precision={config.trainer.precision}: the policy's weights are {dtype}, the "
        f"reference's {given}, so they would differ before the first step. Give "
        f"reference.dtype={dtype}."
    )


def _kept_by_one_rule(config: DictConfig) -> str | None:
    saver = config.callbacks.get("checkpoint") or {}
    if not saver.get("keep_all") or saver.get("keep_last", 1) == 1:
        return None
    return "callbacks.checkpoint.keep_all=true keeps every one: leave out keep_last"


def _derived_trainer_keys(config: DictConfig) -> str | None:
    derived = [key for key in config.trainer if key in _DERIVED]
    return "; ".join(f"trainer.{key} cannot be set: {_DERIVED[key]}" for key in derived) or None


_RULES: tuple[Callable[[DictConfig], str | None], ...] = (
    _weighted_needs_weights,
    _compat_is_microbatch,
    _bounds_of_lambda,
    _whole_passes,
    _adapters_to_switch_off,
    _fused_needs_no_scaler,
    _resume_exists,
    _evaluation_is_chosen,
    _evaluation_draws_with_the_model,
    _reference_has_the_policys_dtype,
    _kept_by_one_rule,
    _derived_trainer_keys,
)
