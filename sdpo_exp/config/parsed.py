"""Modules and classes of the package as they are written: parsed, never imported."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[2]


class TargetError(Exception):
    """A `_target_` that names nothing in the package."""


class Class(NamedTuple):
    """A class in the file that defines it."""

    node: ast.ClassDef
    tree: ast.Module
    module: str

    @property
    def path(self) -> str:
        """`module.Class`."""
        return f"{self.module}.{self.node.name}"

    @property
    def methods(self) -> dict[str, ast.FunctionDef]:
        """Its own, by name; no inherited ones."""
        return {node.name: node for node in self.node.body if isinstance(node, ast.FunctionDef)}


def module_exists(module: str) -> bool:
    """Whether there is a file or a package of this dotted name."""
    return _file_of(module) is not None


def parse(module: str, target: str) -> ast.Module:
    """The source of a dotted module, on behalf of `target`.

    Raises:
        TargetError: no such module.
    """
    path = _file_of(module)
    if path is None:
        raise TargetError(f"no module {module} for {target}")
    return _parse_file(path)


def _file_of(module: str) -> Path | None:
    base = _ROOT.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@lru_cache(maxsize=256)
def _parse_file(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def find_class(path: str) -> Class | None:
    """The class of a dotted `module.Class`, where the module itself defines it."""
    module, _, name = path.rpartition(".")
    if not module_exists(module):
        return None
    tree = parse(module, path)
    nodes = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    return next((Class(node, tree, module) for node in nodes), None)


def lineage(owner: Class) -> list[Class]:
    """A class and its bases of ours, in the order in which Python looks for a method.

    A base that several of them share comes after all of these.
    """
    bases = (base for base in _bases(owner).values() if base is not None)
    found = [owner, *(ancestor for base in bases for ancestor in lineage(base))]
    return [one for place, one in enumerate(found) if one not in found[place + 1 :]]


def foreign_bases(owner: Class) -> set[str]:
    """Bases that are not ours, as the class names them."""
    return {name for name, base in _bases(owner).items() if base is None}


def imports_of(tree: ast.Module) -> dict[str, str]:
    """Dotted names of what a file imports from the package, by its names there."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdpo_exp")
        for alias in node.names
    }


def _bases(owner: Class) -> dict[str, Class | None]:
    """Base classes as named there: of the same file or imported from the package, or None."""
    imported = imports_of(owner.tree)
    names = map(ast.unparse, owner.node.bases)
    return {name: find_class(imported.get(name, f"{owner.module}.{name}")) for name in names}
