"""Annotations of the package's source as objects, without importing the files they stand in."""

from __future__ import annotations

import ast
import collections.abc
import typing
from typing import Any

import annotated_types

from sdpo_exp import bounds
from sdpo_exp.config.parsed import parse

UNKNOWN = object()
_NAMES: dict[str, Any] = {
    **vars(typing),
    **vars(collections.abc),
    **vars(annotated_types),
    **vars(bounds),
}
_TYPES = {t.__name__: t for t in (int, float, bool, str, list, tuple, dict)}


def evaluate(annotation: ast.expr | None, tree: ast.Module) -> Any:
    """The annotation as an object, or UNKNOWN where it needs an import.

    Known are names of `typing` and of `bounds`, and the file's own aliases.
    """
    if annotation is None:
        return UNKNOWN
    return _try_eval(annotation, _names_of(tree))


def _names_of(tree: ast.Module) -> dict[str, Any]:
    """What annotations of a file may use: its own aliases, and those it imports from us."""
    names = dict(_NAMES)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sdpo_exp."):
            source = _aliases(parse(str(node.module), str(node.module)))
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
