"""A folder of generated images: what is there already, and how it was made. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sdpo_exp.errors import UserError, first_line
from sdpo_exp.evaluation.manifests import MANIFEST_FILE, manifest_in, read_entries
from sdpo_exp.evaluation.pairing import ImageKey
from sdpo_exp.whole_files import write_json

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdpo_exp.generation.noise import Draw
    from sdpo_exp.types import Prompt

SETTINGS_FILE = "generation.json"
_IMAGES = "images"


@dataclass(frozen=True)
class ImageRecord:
    """An image of a manifest; `labels` by axis, such as `{"category": "anime"}`."""

    set: str
    index: int
    seed: int
    prompt: str
    labels: Mapping[str, str]
    file: Path


class Manifest(NamedTuple):
    """Images, and whether they are known by index, or, from a public manifest, by prompt only."""

    images: list[ImageRecord]
    by_index: bool
    dropped: int


class ImageFolder:
    """Images below `folder/images/`, each written whole or not at all, and what made them.

    An image's file name follows from its prompt's index and its seed, so a run that was stopped
    goes on where it was, and further seeds join the ones that are there.

    Args:
        folder: need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, settings: Mapping[str, Any]) -> list[str]:
        """Write `generation.json`, or check that what is there was made in the same way.

        Returns:
            Remarks about what differs without making images wrong, such as package versions.

        Raises:
            UserError: images of another model, prompt set or protocol are there.
        """
        file = self.folder / SETTINGS_FILE
        before = read_settings(self.folder)
        if not any((self.folder / _IMAGES).glob("*.png")):
            self._make(before)
            write_json(file, settings)
            return []
        if before is None:
            raise UserError(f"folder={self.folder} holds something else; give another folder")
        now = json.loads(json.dumps(settings))
        if changed := list(_differences(_decisive(before), _decisive(now))):
            raise UserError(
                f"folder={self.folder} holds images made otherwise ({'; '.join(changed[:6])}); "
                "give another folder, or the same values"
            )
        others = {key: before.get(key) for key in ("versions", "accelerator")}
        return [f"earlier images were drawn with {line}" for line in _differences(others, now)]

    def _make(self, before: Mapping[str, Any] | None) -> None:
        """The folder, if it is not there or was made by a call that drew nothing."""
        try:
            (self.folder / _IMAGES).mkdir(parents=True, exist_ok=True)
            if before is None and any(p.name != _IMAGES for p in self.folder.iterdir()):
                raise UserError(f"folder={self.folder} holds something else; give another folder")
        except OSError as error:
            raise UserError(
                f"folder={self.folder}: cannot be made ({first_line(error)}); give another folder"
            ) from None

    def file_of(self, draw: Draw) -> Path:
        """Where an image belongs."""
        return self.folder / _IMAGES / f"{draw.index:05d}_seed{draw.seed}.png"

    def missing(self, draws: Iterable[Draw]) -> list[Draw]:
        """Those not drawn yet, in order."""
        return [draw for draw in draws if not self.file_of(draw).is_file()]

    def save(self, draw: Draw, image: Image) -> None:
        """Write a PNG that carries its prompt."""
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("prompt", draw.prompt)
        target = self.file_of(draw)
        partial = target.with_name(f"{target.name}.partial")
        image.save(partial, format="PNG", pnginfo=info)
        partial.replace(target)

    def write_manifest(self, set_name: str, prompts: Sequence[Prompt]) -> int:
        """Write `manifest.json` over all images of `prompts` that are there; how many they are.

        A list in the public format (`prompt`, `gen_image_path`, `raw_image_path`, `metadata`) with
        `set`, `index` and `seed` besides; paths are relative to the folder.
        """
        by_index = {prompt.index: prompt for prompt in prompts}
        rows = []
        for file in sorted((self.folder / _IMAGES).glob("*_seed*.png")):
            index, _, seed = file.stem.partition("_seed")
            if (prompt := by_index.get(int(index))) is None:
                continue
            key = ImageKey(set_name, prompt.index, int(seed))
            path = str(file.relative_to(self.folder))
            rows.append(manifest_entry(prompt.text, path, prompt.labels, key))
        write_json(self.folder / MANIFEST_FILE, rows)
        return len(rows)


def manifest_entry(
    prompt: str, path: str, labels: Mapping[str, str], key: ImageKey
) -> dict[str, Any]:
    """An image's entry in a manifest; `path` is relative to the manifest's folder."""
    return {
        "prompt": prompt,
        "gen_image_path": path,
        "raw_image_path": "",
        "metadata": dict(labels),
        "set": key.set,
        "index": key.prompt,
        "seed": key.seed,
    }


def read_settings(folder: Path) -> dict[str, Any] | None:
    """`generation.json` of a folder; None where there is none.

    Raises:
        UserError: it is broken.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise UserError(f"{file}: broken ({error}); give another folder") from None
    return content


def read_manifest(path: Path) -> Manifest:
    """Images of our own manifest, of a public one or of a CSV, by its file or the folder around it.

    See `manifests.read_entries` for the rules.

    Raises:
        UserError: no manifest, a broken one, one without images, or an image that is not there.
    """
    file = manifest_in(path) if path.is_dir() else path
    entries, by_index, dropped = read_entries(file)
    images = [
        ImageRecord(*entry.image, entry.prompt, entry.labels, _found(file, entry.path))
        for entry in entries
    ]
    if absent := [record.file for record in images if not record.file.is_file()]:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise UserError(f"{file}: names images that are not there: {absent[0]}{more}")
    return Manifest(images, by_index, dropped)


def _found(manifest: Path, image: str) -> Path:
    """Beside the manifest, or, as public manifests have it, from the current folder."""
    beside = manifest.parent / image
    return beside if beside.is_file() or not Path(image).is_file() else Path(image)


def _decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decides an image; where the weights lay, and the names of things, do not."""
    model, prompts = settings.get("model") or {}, settings.get("prompts") or {}
    return {
        "model": model.get("parts"),
        "prompts": prompts.get("sha256"),
        "protocol": settings.get("protocol"),
    }


def _differences(before: Any, now: Any, path: str = "") -> Iterable[str]:
    """`path: before -> now` for every leaf of `before` that is another in `now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key, value in before.items():
            yield from _differences(value, now.get(key), f"{path}.{key}" if path else key)
    elif before != now:
        yield f"{path}: {before} -> {now}"
