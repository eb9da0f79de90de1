"""Which scores of `python -m sdpo_exp.compare` meet which, and what stands against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sdpo_exp.cli.compare.sources import Source
from sdpo_exp.config.check import close_matches
from sdpo_exp.errors import UserError
from sdpo_exp.evaluation.outcomes import Match
from sdpo_exp.evaluation.pairing import (
    ImageKey,
    PromptKey,
    PromptPairing,
    Score,
    pair_by_key,
    pair_by_prompt,
    under_new_keys,
)

Labels = Mapping[str, Mapping[PromptKey, str]]
SET = "set"  # an axis that every table has


@dataclass(frozen=True)
class Choices:
    """What the command line says about the matching; see `conf/compare.yaml`."""

    only: Sequence[str] | None
    by: str | None
    cluster: str
    pairing: str


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes:
        matches: a model each, against the base.
        axis: of the categories; None without.
        notes: what to know before reading the numbers.
        problems: mistakes; with any of them the rest is not to be used.
    """

    matches: Sequence[Match]
    axis: str | None
    notes: Sequence[str]
    problems: Sequence[str]


@dataclass(frozen=True)
class _Met:
    """Base and model, under common keys."""

    base: Mapping[str, Sequence[Score]]
    scores: Mapping[str, Sequence[Score]]
    texts: Mapping[PromptKey, str]
    labels: Labels


def plan(base: Source, models: Sequence[Source], choices: Choices) -> Plan:
    """Match every model with the base."""
    metrics, problems = _metrics([base, *models], choices.only)
    notes = [note for source in (base, *models) for note in source.notes]
    met = []
    for model in models:
        if choices.pairing == "prompt" or base.by_prompt or model.by_prompt:
            found, said = _meet_by_prompt(base, model, metrics)
            notes += said
        else:
            problems += _other_prompts(base, model)
            found = _meet_by_key(base, model, metrics)
        notes += _made_otherwise(base, model, metrics)
        met.append(found)
    if problems:
        return Plan([], None, notes, problems)
    for model, found in zip(models, met, strict=True):
        problems += _unpaired(found, base.name, model.name)
    axis, missing = _axis(met, models, choices.by)
    if choices.cluster == "text":
        notes += dict.fromkeys(note for found in met for note in _repeats(found))
    return Plan(
        [
            Match(
                model.name,
                found.base,
                found.scores,
                found.texts if choices.cluster == "text" else None,
                None if axis is None else found.labels.get(axis),
            )
            for model, found in zip(models, met, strict=True)
        ],
        axis,
        notes,
        [*problems, *missing],
    )


def _metrics(sources: Sequence[Source], only: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The metrics to compare by, and where one of them is missing."""
    base = sources[0].table.scores
    common = [name for name in base if all(name in s.table.scores for s in sources)]
    if only is None:
        problems = [
            f"{source.name} ({source.path}) and {sources[0].name} must have the same metrics; only "
            f"one of them has {', '.join(odd)}. "
            + (
                f"Compare by what all have: only=[{','.join(common)}]"
                if common
                else "None is common"
            )
            for source in sources[1:]
            if (odd := sorted(base.keys() ^ source.table.scores.keys()))
        ]
        return common, problems
    problems = [
        f"only={name}: {source.name} ({source.path}) has no such metric"
        f"{close_matches(name, source.table.scores)}"
        for source in sources
        for name in dict.fromkeys(only)
        if name not in source.table.scores
    ]
    return [name for name in dict.fromkeys(only) if name in common], problems


def _meet_by_key(base: Source, model: Source, metrics: Sequence[str]) -> _Met:
    labels = {
        axis: {**model.table.labels.get(axis, {}), **base.table.labels.get(axis, {})}
        for axis in dict.fromkeys([*base.table.labels, *model.table.labels])
    }
    texts = base.table.texts
    return _Met(
        {metric: base.table.scores[metric] for metric in metrics},
        {metric: model.table.scores[metric] for metric in metrics},
        texts,
        {SET: {prompt: prompt.set for prompt in texts}, **labels},
    )


def _meet_by_prompt(base: Source, model: Source, metrics: Sequence[str]) -> tuple[_Met, list[str]]:
    pairing = pair_by_prompt(_texts(base), _texts(model))
    labels: dict[str, dict[PromptKey, str]] = {}
    for source, keys in ((model, pairing.b), (base, pairing.a)):
        own = {SET: {prompt: prompt.set for prompt in source.table.texts}, **source.table.labels}
        for old, new in reversed(list(keys.items())):
            for axis, values in own.items():
                if (label := values.get(_prompt(old))) is not None:
                    labels.setdefault(axis, {})[_prompt(new)] = label
    met = _Met(
        {m: under_new_keys(base.table.scores[m], pairing.a) for m in metrics},
        {m: under_new_keys(model.table.scores[m], pairing.b) for m in metrics},
        pairing.texts,
        labels,
    )
    return met, _said(pairing, base.name, model.name)


def _said(pairing: PromptPairing, base: str, model: str) -> list[str]:
    names = f"{base} and {model}"
    if pairing.by_index:
        return [
            f"warning: no prompt of {model} is one of {base}. Their {len(pairing.a)} images are "
            "paired in the order of the files, which is right only if both files show the same "
            "prompts in the same order."
        ]
    left = [
        f"{count} image{'s' * (count > 1)} of {name} {why}"
        for counts, why in (
            (pairing.surplus, "left over under a prompt that both have"),
            (pairing.unmatched, "of a prompt that the other does not have"),
        )
        for count, name in zip(counts, (base, model), strict=True)
        if count
    ]
    dropped = f" Left out: {'; '.join(left)}." if left else ""
    return [
        f"{names} are paired by prompt: {len(pairing.a)} pairs of {len(pairing.texts)} prompts."
        f"{dropped}"
    ]


def _texts(source: Source) -> dict[ImageKey, str]:
    """Prompts of the images, in order: for a manifest that of the file."""
    images = {score.image for scores in source.table.scores.values() for score in scores}
    return {image: source.table.texts[_prompt(image)] for image in sorted(images)}


def _prompt(image: ImageKey) -> PromptKey:
    return PromptKey(image.set, image.prompt)


def _other_prompts(base: Source, model: Source) -> list[str]:
    """Whether an index stands for another prompt; told once for a set."""
    way_out = "Generate from the same prompts, or pair equal texts: pairing=prompt"
    name = base.said("prompts", "name")
    hashes = [source.said("prompts", "sha256") for source in (base, model)]
    same_name = name is not None and name == model.said("prompts", "name")
    if same_name and None not in hashes and hashes[0] != hashes[1]:
        return [
            f"{model.name} ({model.path}): its prompts {name} are not those of {base.name}: "
            f"sha256 {hashes[1]} and {hashes[0]}. {way_out}"
        ]
    ours, theirs = base.table.texts, model.table.texts
    for prompt in sorted(ours.keys() & theirs.keys()):
        if ours[prompt] != theirs[prompt]:
            return [
                f"{model.name} ({model.path}): prompt {prompt.prompt} of set {prompt.set} is "
                f"{theirs[prompt]!r}, and {ours[prompt]!r} in {base.name}. {way_out}"
            ]
    return []


def _made_otherwise(base: Source, model: Source, metrics: Sequence[str]) -> Iterator[str]:
    """Differences that make numbers hard to compare without making images hard to pair."""
    names = f"{base.name} and {model.name}"
    first, second = (_leaves(source.said("protocol")) for source in (base, model))
    changed = [
        f"{key} {first.get(key)} and {second.get(key)}"
        for key in dict.fromkeys([*first, *second])
        if repr(first.get(key)) != repr(second.get(key))  # a value may be nan
    ]
    if first and second and changed:
        yield f"warning: {names} were drawn differently: {', '.join(changed)}."
    for metric in metrics:
        hashes = [source.said("metrics", metric, "origin", "sha256") for source in (base, model)]
        if None not in hashes and hashes[0] != hashes[1]:
            yield (
                f"warning: {metric} of {names} was computed with different weights: "
                f"{hashes[0]} and {hashes[1]}."
            )


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value} if path else {}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in _leaves(inner, f"{path}.{name}" if path else str(name)).items()
    }


def _unpaired(met: _Met, base: str, model: str) -> list[str]:
    """Why scores cannot be paired; metrics of which the same is to be said share a line."""
    said: dict[str, list[str]] = {}
    for metric in met.base:
        try:
            pair_by_key(met.base[metric], met.scores[metric], (base, model))
        except UserError as error:
            said.setdefault(str(error), []).append(metric)
    return [f"{', '.join(metrics)}: {problem}" for problem, metrics in said.items()]


def _axis(
    met: Sequence[_Met], models: Sequence[Source], by: str | None
) -> tuple[str | None, list[str]]:
    """The axis of the categories, and why it cannot be taken."""
    lacking = {
        model.name: _without(found, by or "category")
        for model, found in zip(models, met, strict=True)
    }
    if by is None:
        return (None if any(lacking.values()) else "category"), []
    known = dict.fromkeys(axis for found in met for axis in found.labels)
    if by not in known:
        return None, [f"by={by}: no such label{close_matches(by, known)}"]
    return by, [
        f"by={by}: {len(prompts)} prompts compared with {name} have no such label, the first is "
        f"{prompts[0].prompt} of set {prompts[0].set}"
        for name, prompts in lacking.items()
        if prompts
    ]


def _without(met: _Met, axis: str) -> list[PromptKey]:
    return sorted(_compared(met) - met.labels.get(axis, {}).keys())


def _repeats(met: _Met) -> Iterator[str]:
    compared = _compared(met)
    texts = {met.texts[prompt] for prompt in compared}
    if len(texts) < len(compared):
        yield (
            f"{len(compared)} prompts have {len(texts)} different texts; prompts of one text count "
            "as one observation. cluster=prompt counts them apart."
        )


def _compared(met: _Met) -> set[PromptKey]:
    return {_prompt(score.image) for scores in met.base.values() for score in scores}
