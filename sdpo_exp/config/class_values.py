"""Values that a class of ours declares, read from source without importing its file."""

from __future__ import annotations

import ast
from importlib import import_module
from typing import Any

from sdpo_exp.config.parsed import Class, find_class, imports_of, lineage


def class_value(target: str, name: str) -> Any | None:
    """What the class of a dotted `target` or its nearest base declares as `name`, built anew.

    Only the file of the constructor that is called there is imported, never the class's own: it
    has to do without what takes long to import.

    Args:
        target: dotted name of a class; one outside the package has no values here.
        name: of an attribute declared as a call with literal arguments given by name, of a class
            that is imported from the package.
    """
    owner = find_class(target)
    for one in lineage(owner) if owner is not None else ():
        if (call := _declared(one, name)) is not None:
            module, _, kind = imports_of(one.tree)[ast.unparse(call.func)].rpartition(".")
            arguments = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
            return getattr(import_module(module), kind)(**arguments)
    return None


def _declared(owner: Class, name: str) -> ast.Call | None:
    for node in owner.node.body:
        targets = node.targets if isinstance(node, ast.Assign) else ()
        if name in map(ast.unparse, targets) and isinstance(node, ast.Assign):
            return node.value if isinstance(node.value, ast.Call) else None
    return None
