"""Parameters that a class has of its bases are read with its own, and not declared again."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sdpo_exp.config.check import check_node
from sdpo_exp.config.signatures import read_signature
from tests.config.made_up import accepted, read_instead, write_package

PACKAGE = {
    "choices": """
from typing import Literal
Kind = Literal["x", "y"]
class Base:
    def __init__(self, size: int = 3, *, path: str, kind: Kind = "x") -> None: ...
    @classmethod
    def load(cls, source: str, size: int = 3) -> "Base": ...
""",
    "options": """
from foreign import Thing
from lightning import Callback
from typing import Any
from sdpo_exp.choices import Base as Root
class Own(Root):
    def __init__(self, *, extra: int = 1, **options: Any) -> None:
        super().__init__(**options)
    @classmethod
    def load(cls, source: str, *, twice: bool = False, **options: Any) -> "Own":
        return super().load(source, **options)
class Fixed(Own):
    def __init__(self, path: str = "here", **options: Any) -> None:
        super().__init__(path=path, size=1, **options)
class ByPlace(Own):
    def __init__(self, **rest: Any) -> None:
        if rest:
            super().__init__(*(), 2, **rest)
class Deep(Own):
    def __init__(self, more: int, **options: Any) -> None:
        super().__init__(**options)
class Nothing(Callback):
    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
class Foreign(Thing):
    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
class Kept(Root):
    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(path="here")
""",
    "fields": """
from dataclasses import dataclass, field
from typing import ClassVar, Literal
Split = Literal["train", "test"]
@dataclass
class Table:
    path: str
    split: Split = "train"
    endless: ClassVar[bool] = False
    rows_read: int = field(init=False, default=0)
    @classmethod
    def absent(cls, path: str) -> str | None: ...
""",
    "table": """
from dataclasses import dataclass, field
from sdpo_exp.fields import Table
@dataclass(eq=False)
class Stream(Table):
    seed: int = 0
    def __post_init__(self) -> None: ...
@dataclass
class Head(Table):
    rows: int = field(kw_only=True)
@dataclass
class Named(Table):
    path: str = field(default_factory=str)
class Plain(Stream):
    note: str
@dataclass(kw_only=True)
class ByName(Table):
    first: int
    size: int = field(default=3)
""",
    "diamond": """
class Top:
    def __init__(self, top: int) -> None: ...
class Left(Top): ...
class Right(Top):
    def __init__(self, right: int) -> None: ...
class Bottom(Left, Right): ...
class Mixin:
    def weights(self) -> None: ...
class Mixed(Mixin, Top): ...
""",
}


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with read_instead(tmp_path, PACKAGE, monkeypatch):
        yield


def required(target: str) -> dict[str, bool]:
    """Parameters in their order, and whether they must be given."""
    return {n: p.required for n, p in read_signature(f"sdpo_exp.{target}").parameters.items()}


def test_options_that_go_on_to_the_base_are_the_bases_parameters() -> None:
    assert required("options.Own") == {"size": False, "path": True, "kind": False, "extra": False}
    found = read_signature("sdpo_exp.options.Own")
    assert typing.get_args(found.parameters["kind"].annotation) == ("x", "y")
    assert found.methods == {"__init__", "load"}
    assert not found.open_ended


def test_a_subclass_may_override_a_default_and_fix_a_value() -> None:
    assert required("options.Fixed") == {"path": False, "kind": False, "extra": False}
    assert required("options.ByPlace") == {"path": True, "kind": False, "extra": False}
    assert required("options.Deep") == {**required("options.Own"), "more": True}


def test_options_of_a_classmethod_go_on_to_the_bases() -> None:
    assert required("options.Own.load") == {"source": True, "size": False, "twice": False}


@pytest.mark.parametrize(
    ("target", "open_ended"),
    [
        ("options.Own", False),
        ("options.Nothing", False),
        ("options.Foreign", True),
        ("options.Kept", True),
    ],
)
def test_only_options_that_end_outside_the_package_are_open(target: str, open_ended: bool) -> None:
    assert read_signature(f"sdpo_exp.{target}").open_ended == open_ended


def test_a_dataclass_has_its_bases_fields_first() -> None:
    assert required("fields.Table") == {"path": True, "split": False}
    assert required("table.Stream") == {"path": True, "split": False, "seed": False}
    assert required("table.Head") == {"path": True, "split": False, "rows": True}
    assert required("table.Named") == {"path": False, "split": False}
    assert required("table.Plain") == required("table.Stream")
    assert required("table.ByName") == {"path": True, "split": False, "first": True, "size": False}
    split = read_signature("sdpo_exp.table.Stream").parameters["split"].annotation
    assert typing.get_args(split) == ("train", "test")
    assert read_signature("sdpo_exp.table.Stream").methods == {"absent", "__post_init__"}


def test_methods_are_looked_for_as_python_does() -> None:
    assert required("diamond.Bottom") == {"right": True}
    assert required("diamond.Mixed") == {"top": True}


def test_an_unknown_key_of_an_inheriting_class_is_told_with_the_nearest() -> None:
    def problems(target: str, **keys: object) -> list[str]:
        node = OmegaConf.create({"_target_": f"sdpo_exp.{target}", **keys})
        return list(check_node(node, "model"))

    assert problems("options.Own", path="p", extra=2) == []
    assert problems("options.Own", path="p", pth=1) == [
        "model.pth: unknown key; did you mean 'path'?"
    ]
    assert problems("options.Own") == ["model.path: a value is required"]
    assert problems("options.Own", path="p", kind="z") == [
        "model.kind: must be 'x' or 'y', got 'z'"
    ]
    assert problems("table.Stream", path="p", sped=1) == [
        "model.sped: unknown key; did you mean 'seed'?"
    ]
    assert problems("table.Head", path="p") == ["model.rows: a value is required"]


# All but those that fix a value of their base, which Python does not tell.
HONEST = (
    *("choices.Base", "options.Own", "options.Deep", "options.Nothing"),
    *("fields.Table", "table.Stream", "table.Head", "table.Named", "table.Plain", "table.ByName"),
    *("diamond.Bottom", "diamond.Mixed"),
)


def test_python_takes_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same source under another name is imported, and its classes are asked."""
    sources = {name: text.replace("sdpo_exp", "made_up") for name, text in PACKAGE.items()}
    write_package(tmp_path / "made_up", sources)
    (tmp_path / "foreign.py").write_text("class Thing: ...")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for target in HONEST:
        real = accepted(f"made_up.{target}")
        empty = inspect.Parameter.empty
        assert required(target) == {n: p.default is empty for n, p in real.items()}, target
