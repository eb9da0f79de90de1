"""Made-up source in the package's place, and what Python says of a real class."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hydra.utils import get_object

from sdpo_exp.config import parsed
from sdpo_exp.config.signatures import read_signature


def write_package(folder: Path, sources: Mapping[str, str]) -> None:
    """A package of modules by name."""
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)


@contextmanager
def read_instead(
    root: Path, sources: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Signatures are read from a package `sdpo_exp` of these modules."""
    write_package(root / "sdpo_exp", sources)
    monkeypatch.setattr(parsed, "_ROOT", root)
    read_signature.cache_clear()
    yield
    read_signature.cache_clear()


def accepted(target: str) -> dict[str, inspect.Parameter]:
    """What a builder really takes, by Python's own account; `**options` are the next base's."""
    built = get_object(target)
    if not inspect.isclass(built):
        return dict(inspect.signature(built).parameters)
    found: dict[str, inspect.Parameter] = {}
    for owner in built.__mro__[:-1]:
        if "__init__" not in vars(owner):
            continue
        _, *taken = inspect.signature(owner.__init__).parameters.values()
        named = {p.name: p for p in taken if p.kind is not inspect.Parameter.VAR_KEYWORD}
        found = {name: found.get(name, p) for name, p in named.items()} | found
        if len(named) == len(taken):
            break
    return found
