"""Signatures of our own classes and their constructors, read from source without importing them.

Importing an objective would import torch, which takes longer than a user should wait to learn
about a typing error. The signature stays the only place where a parameter is declared.
"""

from __future__ import annotations

import ast
import collections.abc
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import annotated_types

from sdpo_exp import bounds

_ROOT = Path(__file__).parents[2]
_NAMES: dict[str, Any] = {
    **vars(typing),
    **vars(collections.abc),
    **vars(annotated_types),
    **vars(bounds),
}
UNKNOWN = object()


@dataclass(frozen=True)
class Parameter:
    """One constructor parameter; `annotation` is UNKNOWN where it needs an import to evaluate."""

    annotation: Any
    required: bool


@dataclass(frozen=True)
class Signature:
    """What a `_target_` of ours takes, and which methods its class has."""

    parameters: dict[str, Parameter]
    methods: frozenset[str] = field(default_factory=frozenset)
    open_ended: bool = False


class TargetError(Exception):
    """A `_target_` that names nothing in the package."""


@lru_cache(maxsize=256)
def read_signature(target: str) -> Signature:
    """Signature of a dotted `sdpo_exp...` class, function, or classmethod `module.Class.method`.

    Raises:
        TargetError: no such module or name.
    """
    module, _, name = target.rpartition(".")
    if _file_of(module) is None and (owner := _find_class(module)) is not None:
        return _from_method(owner, name, target)
    tree = _parse(module, target)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return Signature(_from_function(node, tree, skip_self=False))
    if (found := _find_class(target)) is not None:
        return _from_class(found)
    raise TargetError(f"{module} has no {name}")


class _Class(NamedTuple):
    """A class in the file that defines it."""

    node: ast.ClassDef
    tree: ast.Module
    module: str


def _find_class(path: str) -> _Class | None:
    module, _, name = path.rpartition(".")
    if _file_of(module) is None:
        return None
    tree = _parse(module, path)
    nodes = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    return next((_Class(node, tree, module) for node in nodes), None)


def _file_of(module: str) -> Path | None:
    base = _ROOT.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _parse(module: str, target: str) -> ast.Module:
    path = _file_of(module)
    if path is None:
        raise TargetError(f"no module {module} for {target}")
    return _parse_file(path)


@lru_cache(maxsize=256)
def _parse_file(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _from_method(owner: _Class, name: str, target: str) -> Signature:
    """A classmethod, own or inherited, that makes an instance: so it has the class's methods."""
    for node in owner.node.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            if "classmethod" not in map(ast.unparse, node.decorator_list):
                raise TargetError(f"{target} is no classmethod, so nothing can be built by it")
            parameters = _from_function(node, owner.tree, skip_self=True)
            return Signature(parameters, _from_class(owner).methods)
    for base in _bases(owner):
        inherited = _from_method(base, name, target)
        return Signature(inherited.parameters, _from_class(owner).methods)
    raise TargetError(f"{owner.module}.{owner.node.name} has no {name}")


def _from_class(owner: _Class) -> Signature:
    node, tree, _ = owner
    methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
    names = frozenset(methods)
    if "__init__" in methods:
        parameters = _from_function(methods["__init__"], tree, skip_self=True)
        return Signature(parameters, names)
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
        return Signature(
            {
                ast.unparse(f.target): Parameter(_evaluate(f.annotation, tree), f.value is None)
                for f in fields
            },
            names,
        )
    for base in _bases(owner):
        parent = _from_class(base)
        return Signature(parent.parameters, names | parent.methods, parent.open_ended)
    return Signature({}, names, open_ended=_has_foreign_base(node))


def _has_foreign_base(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base) not in ("object", "Callback") for base in node.bases)


def _bases(owner: _Class) -> Iterator[_Class]:
    """Base classes of ours: of the same file, or imported from the package."""
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in owner.tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdpo_exp")
        for alias in node.names
    }
    for name in map(ast.unparse, owner.node.bases):
        if (found := _find_class(imported.get(name, f"{owner.module}.{name}"))) is not None:
            yield found


def _from_function(
    node: ast.FunctionDef, tree: ast.Module, *, skip_self: bool
) -> dict[str, Parameter]:
    arguments = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(arguments) - len(node.args.defaults)) + list(node.args.defaults)
    pairs = list(zip(arguments, defaults, strict=True))[1 if skip_self else 0 :]
    pairs += list(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))
    return {
        argument.arg: Parameter(_evaluate(argument.annotation, tree), default is None)
        for argument, default in pairs
    }


def _evaluate(annotation: ast.expr | None, tree: ast.Module) -> Any:
    """The annotation as an object: names of `typing`, of `bounds`, and the file's own aliases."""
    if annotation is None:
        return UNKNOWN
    return _try_eval(annotation, _names_of(tree))


def _names_of(tree: ast.Module) -> dict[str, Any]:
    """What annotations of a file may use: its own aliases, and those it imports from us."""
    names = dict(_NAMES)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdpo_exp."):
            source = _aliases(_parse(str(node.module), str(node.module)))
            imported = {alias.asname or alias.name: alias.name for alias in node.names}
            names |= {ours: source[theirs] for ours, theirs in imported.items() if theirs in source}
    return names | _aliases(tree, names)


def _aliases(tree: ast.Module, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Module-level assignments that evaluate without an import, such as `Scope = Literal[...]`."""
    names = dict(names or _NAMES)
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            value = _try_eval(node.value, names | found)
            if isinstance(target, ast.Name) and value is not UNKNOWN:
                found[target.id] = value
    return found


def _try_eval(expression: ast.expr, names: dict[str, Any]) -> Any:
    # Source of this package only, parsed from its own files: nothing of the user's is evaluated.
    try:
        return eval(ast.unparse(expression), {"__builtins__": _TYPES}, names)
    except Exception:
        return UNKNOWN


_TYPES = {t.__name__: t for t in (int, float, bool, str, list, tuple, dict)}
