"""README.md of an exported model: a model card that the hub understands. Imports no torch."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sdpo_exp.reports.licences import EMBEDDED, LICENCES, describe, licence_of
from sdpo_exp.reports.loading import LORA_FILE, how_to_load
from sdpo_exp.reports.summary import markdown_tables, pictures

CARD = "README.md"
_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_OWN_WORLD = "sdpo_exp.testbed."
_WEIGHTS = {
    "last": "as they were after the step",
    "best": "of the best step by the held-out probe",
    "ema": "an exponential moving average over the steps",
}


class Exported(NamedTuple):
    """Which weights of a run a folder holds: `last`, `best` or `ema`, their step and dtype."""

    weights: str
    step: int
    dtype: str


class Run(NamedTuple):
    """What a card is written from: the contents of a run's files, empty where one is missing."""

    name: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    summary: Mapping[str, Any]
    best: Mapping[str, Any]


def write_card(run: Path, folder: Path, exported: Exported) -> None:
    """Write the card of the export in `folder`, and beside it the pictures that it shows."""
    for file, _ in pictures(run):
        shutil.copyfile(run / file, folder / Path(file).name)
    (folder / CARD).write_text(model_card(run, folder, exported), encoding="utf-8")


def end_of_run(run: Path) -> Exported:
    """What a run leaves in its own `model/`."""
    files = read_run_files(run)
    ema = files.config.get("callbacks", {}).get("ema", {})
    weights = "ema" if ema.get("export") else "last"
    return Exported(weights, int(files.summary.get("steps", 0)), "float32")


def read_run_files(run: Path) -> Run:
    """The files of a run's folder that a card needs."""
    config = run / "config.yaml"
    return Run(
        name=f"{run.resolve().parent.name}/{run.resolve().name}",
        config=yaml.safe_load(config.read_text()) or {} if config.is_file() else {},
        environment=_read(run / "environment.json"),
        summary=_read(run / "summary.json"),
        best=_read(run / "checkpoints" / "best.json"),
    )


def model_card(run: Path, folder: Path, exported: Exported) -> str:
    """The card's markdown, from the files of a run and the names of those in `folder`.

    Args:
        run: folder of the run.
        folder: of the export; what lies in it decides how it is loaded.
        exported: which of the run's weights these are.
    """
    files = read_run_files(run)
    adapter = (folder / LORA_FILE).is_file()
    code = how_to_load(folder, exported.dtype, files.config, files.environment)
    parts = [
        _front_matter(files, adapter),
        f"# {files.name}\n\n{_opening(files, adapter)}",
        "## Training\n\n" + _table(_training(files, exported)),
        "## Numbers\n\n" + _numbers(files, exported),
        *_images(run),
        f"## Loading\n\n```python\n{code}```",
        "## Versions\n\n" + _table(_versions(files.environment)),
        "## Licences\n\n" + "\n".join(f"- {line}" for line in _licences(files)),
    ]
    return "\n\n".join(parts) + "\n"


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return content


def _front_matter(files: Run, adapter: bool) -> str:
    """What the hub reads; names that are no hub ids are left out, because it refuses them."""
    base = _base(files)
    objective = _kind(files.config, "objective").lower()
    content: dict[str, Any] = {"license": licence_of(base).hub}
    if is_hub_id(base):
        content["base_model"] = base
        content["base_model_relation"] = "adapter" if adapter else "finetune"
    content |= {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if datasets := [source for source in _data(files) if is_hub_id(source)]:
        content["datasets"] = datasets
    tags = ["text-to-image", "diffusion", "preference-optimization", objective, "sdpo_exp"]
    content["tags"] = [tag for tag in tags if tag] + (["lora"] if adapter else [])
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---"


def is_hub_id(source: str | None) -> bool:
    """Whether a name is one of the hub's, as far as its spelling and the disk tell."""
    if source is None or source == EMBEDDED:
        return False
    return source in LICENCES or (bool(_ID.match(source)) and not Path(source).exists())


def _opening(files: Run, adapter: bool) -> str:
    what = "Low-rank adapters for" if adapter else "A preference-tuned copy of"
    return (
        f"{what} `{_name(_base(files))}`, trained by `sdpo_exp` on pairs of a preferred and a "
        "rejected image for one prompt."
    )


def _training(files: Run, exported: Exported) -> Iterator[tuple[str, str]]:
    config, recipe = files.config, files.config.get("recipe") or {}
    yield "objective", _node(config, "objective")
    yield "safeguard", _node(config, "safeguard")
    yield "tuning", _node(config, "tuning")
    yield "optimizer", _node(config, "optimizer")
    yield (
        "learning rate",
        f"{config.get('lr')}, after {config.get('warmup_steps')} steps of warm-up",
    )
    yield "effective batch", f"{config.get('effective_batch')} pairs per optimiser step"
    yield "steps", f"{exported.step} of {config.get('max_steps')}"
    yield "weights", f"{_WEIGHTS[exported.weights]}; stored in {exported.dtype}"
    yield "seed", str(config.get("seed"))
    yield "recipe", recipe.get("source") or "none published for this cell"
    yield "base", _base_row(files)
    yield "data", _data_row(files)


def _numbers(files: Run, exported: Exported) -> str:
    summary = files.summary
    if not summary:
        return "The run has left no summary."
    lines = [f"Of the run's step {summary['steps']} ({summary['status']})."]
    if exported.step != summary["steps"]:
        lines[0] += f" The weights here are those of step {exported.step}."
    if exported.weights == "best" and files.best:
        lines[0] += f" Chosen by {files.best['monitor']}, {files.best['value']:.4g} at that step."
    return "\n".join(lines + markdown_tables(dict(summary)))


def _images(run: Path) -> Iterator[str]:
    """The run's pictures, which lie beside the card."""
    if shown := [f"![{what}]({Path(file).name})" for file, what in pictures(run)]:
        said = "Drawn by the run, at the step that is named or its last."
        yield "\n\n".join(["## Images", said, *shown])


def _versions(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    revision = environment.get("git_revision")
    if revision:
        yield "git revision", revision + (", changed" if environment.get("git_dirty") else "")
    for name, version in (environment.get("versions") or {}).items():
        if version is not None:
            yield name, str(version)


def _licences(files: Run) -> Iterator[str]:
    model = files.config.get("model") or {}
    yield f"base `{_name(_base(files))}`: {describe(_name(_base(files)))}"
    for key, what in (("unet", "UNet weights"), ("vae", "VAE")):
        if model.get(key):
            yield f"{what} `{_name(model[key])}`: {describe(_name(model[key]))}"
    for source in _data(files):
        yield f"data `{_name(source)}`: {describe(_name(source))}"
    yield "This model may be used only as all of these allow."


def _base(files: Run) -> str | None:
    base: str | None = (files.config.get("model") or {}).get("pretrained")
    return base


def _base_row(files: Run) -> str:
    origin = files.environment.get("base") or {}
    row = f"`{_name(_base(files))}`"
    return f"{row}, commit {origin['commit']}" if origin.get("commit") else row


def _data(files: Run) -> list[str]:
    """Hub ids or folders of the training pairs, or that they are the embedded world's."""
    train = (files.config.get("data") or {}).get("train") or {}
    found = list(dict.fromkeys(_paths(train)))
    return found or ([EMBEDDED] if str(train.get("_target_")).startswith(_OWN_WORLD) else [])


def _paths(node: Any) -> Iterator[str]:
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key in ("path", "folder") and isinstance(value, str):
            yield value
        yield from _paths(value)


def _data_row(files: Run) -> str:
    pairs = files.environment.get("pairs") or {}
    sizes = [f"{n:,} {name}" for name, n in pairs.items() if n is not None]
    source = ", ".join(f"`{_name(source)}`" for source in _data(files)) or "unnamed"
    kind = _kind((files.config.get("data") or {}), "train")
    fingerprint = str(files.environment.get("data_fingerprint"))
    counted = [f"pairs: {', '.join(sizes)}"] if sizes else []
    return "; ".join([f"{source} ({kind})", *counted, f"fingerprint {fingerprint}"])


def _name(source: str | None) -> str:
    """A hub id as it is; of a path the last two parts, which tell nothing about a machine."""
    if source is None or source == EMBEDDED:
        return EMBEDDED
    return source if is_hub_id(source) else str(Path(*Path(source).parts[-2:]))


def _kind(config: Mapping[str, Any], group: str) -> str:
    return str((config.get(group) or {}).get("_target_", "")).rpartition(".")[2]


def _node(config: Mapping[str, Any], group: str) -> str:
    """`DPO (beta 5000.0)`: a node's class and its plain values."""
    node = config.get(group) or {}
    values = [
        f"{key} {value}" for key, value in node.items() if key[0] != "_" and value is not None
    ]
    return f"{_kind(config, group)} ({', '.join(values)})" if values else _kind(config, group)


def _table(rows: Iterator[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)])
