"""Another sampler for a pipeline, with what must not be left to its configuration file."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from typing import Any

import diffusers

from sdpo_exp.errors import UserError, first_line


def set_sampler(pipeline: Any, name: str, options: Mapping[str, Any]) -> None:
    """Give `pipeline` the diffusers scheduler `name`, from its own scheduler's configuration.

    Betas and prediction type stay the checkpoint's. What `options` names does not: a PNDM
    configuration that was saved again names a timestep spacing which Euler then takes over, and
    one as released does not, so a protocol has to say.

    Raises:
        UserError: diffusers has no such scheduler, or it knows no such option.
    """
    kind: Any = getattr(diffusers, name, None)
    is_scheduler = inspect.isclass(kind) and issubclass(kind, diffusers.SchedulerMixin)
    if not is_scheduler:
        raise UserError(f"sampler.name={name}: diffusers has no such scheduler")
    if not isinstance(options, Mapping):
        raise UserError(f"sampler.options: give {{key: value}}, got {options!r}")
    known = inspect.signature(kind.__init__).parameters
    if unknown := sorted(set(options) - set(known)):
        raise UserError(f"sampler.options: {name} knows no {', '.join(unknown)}")
    try:
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)
        copy.deepcopy(pipeline.scheduler).set_timesteps(2)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"sampler: {name} refuses {dict(options)} ({first_line(error)})") from None


def sampler_config(pipeline: Any) -> dict[str, Any]:
    """The scheduler's class and whole configuration, for a manifest."""
    # Names with an underscore are diffusers' own notes, such as its version.
    config = {k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")}
    return {"class": type(pipeline.scheduler).__name__, **_plain(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value if isinstance(value, str | int | float | bool | None) else str(value)
