"""Signatures of our own classes and their constructors, read from source without importing them.

Importing an objective would import torch, which takes longer than a user should wait to learn
about a typing error. The signature stays the only place where a parameter is declared: a dataclass
has its bases' fields, and `**options` that go on to `super()` are what the base takes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from sdpo_exp.config.annotations import UNKNOWN, evaluate
from sdpo_exp.config.parsed import (
    Class,
    TargetError,
    find_class,
    foreign_bases,
    lineage,
    module_exists,
    parse,
)

__all__ = ["UNKNOWN", "Parameter", "Signature", "TargetError", "read_signature"]
_CONSTRUCTOR = "__init__"
# Foreign bases whose constructors take nothing.
_BARE = {"object", "Callback"}


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


@lru_cache(maxsize=256)
def read_signature(target: str) -> Signature:
    """Signature of a dotted `sdpo_exp...` class, function, or classmethod `module.Class.method`.

    Raises:
        TargetError: no such module or name.
    """
    module, _, name = target.rpartition(".")
    if not module_exists(module) and (owner := find_class(module)) is not None:
        return _of_class(owner, name)
    tree = parse(module, target)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return Signature(_own(node, tree), open_ended=node.args.kwarg is not None)
    if (owner := find_class(target)) is not None:
        return _of_class(owner, _CONSTRUCTOR)
    raise TargetError(f"{module} has no {name}")


def _of_class(owner: Class, builder: str) -> Signature:
    """Of a class as its constructor or one of its classmethods builds it, own or inherited."""
    line = lineage(owner)
    methods = frozenset(name for one in line for name in one.methods)
    if builder != _CONSTRUCTOR and builder not in methods:
        raise TargetError(f"{owner.path} has no {builder}")
    return replace(_of_method(line, builder), methods=methods)


def _of_method(line: Sequence[Class], name: str, start: int = 0) -> Signature:
    """The first method of that name in a lineage, or the constructor that a dataclass is given."""
    for place, one in enumerate(line[start:], start):
        if (node := one.methods.get(name)) is not None:
            if name != _CONSTRUCTOR and "classmethod" not in map(ast.unparse, node.decorator_list):
                raise TargetError(
                    f"{one.path}.{name} is no classmethod, so nothing can be built by it"
                )
            return _with_passed_on(node, line, place)
        if name == _CONSTRUCTOR and _dataclass_options(one) is not None:
            return Signature(_of_dataclass(line[place:]))
    return Signature({}, open_ended=any(foreign_bases(one) - _BARE for one in line))


def _own(node: ast.FunctionDef, tree: ast.Module) -> dict[str, Parameter]:
    """The parameters that a function names itself."""
    arguments = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(arguments) - len(node.args.defaults)) + list(node.args.defaults)
    pairs = list(zip(arguments, defaults, strict=True))
    pairs += list(zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True))
    return {
        argument.arg: Parameter(evaluate(argument.annotation, tree), default is None)
        for argument, default in pairs
    }


# -- `**options` that a method hands to its base -------------------------------------------------


def _with_passed_on(node: ast.FunctionDef, line: Sequence[Class], place: int) -> Signature:
    """A method's own parameters, in among those that its `**options` take to `super()`."""
    _, *named = _own(node, line[place].tree).items()
    own = dict(named)
    if node.args.kwarg is None:
        return Signature(own)
    call = _call_of_super(node, node.args.kwarg.arg)
    if call is None:
        return Signature(own, open_ended=True)
    base = _of_method(line, node.name, place + 1)
    given = {*list(base.parameters)[: _count_by_place(call)], *(word.arg for word in call.keywords)}
    passed_on = {
        name: own.get(name, parameter)
        for name, parameter in base.parameters.items()
        if name in own or name not in given
    }
    return Signature(passed_on | own, open_ended=base.open_ended)


def _call_of_super(node: ast.FunctionDef, options: str) -> ast.Call | None:
    """`super().<the same method>(..., **options)` in a method."""
    calls = (
        inner
        for inner in ast.walk(node)
        if isinstance(inner, ast.Call)
        and ast.unparse(inner.func) == f"super().{node.name}"
        and any(word.arg is None and ast.unparse(word.value) == options for word in inner.keywords)
    )
    return next(calls, None)


def _count_by_place(call: ast.Call) -> int:
    return sum(not isinstance(argument, ast.Starred) for argument in call.args)


# -- dataclasses ---------------------------------------------------------------------------------


class _Field(NamedTuple):
    parameter: Parameter
    by_name_only: bool


def _dataclass_options(owner: Class) -> dict[str, str] | None:
    """Keywords of a class's `@dataclass`, as written; None: it is no dataclass."""
    for decorator in owner.node.decorator_list:
        if "dataclass" in ast.unparse(decorator):
            return _keywords(decorator)
    return None


def _keywords(node: ast.expr | None) -> dict[str, str]:
    words = node.keywords if isinstance(node, ast.Call) else ()
    return {str(word.arg): ast.unparse(word.value) for word in words}


def _of_dataclass(line: Sequence[Class]) -> dict[str, Parameter]:
    """Fields of a dataclass and its bases: the bases' first, those given by name only last.

    A field that is declared again keeps its place.
    """
    found: dict[str, _Field] = {}
    for one in reversed(line):
        found |= _fields(one)
    ordered = sorted(found, key=lambda name: found[name].by_name_only)
    return {name: found[name].parameter for name in ordered}


def _fields(owner: Class) -> Iterator[tuple[str, _Field]]:
    options = _dataclass_options(owner)
    if options is None:
        return
    for node in owner.node.body:
        if not isinstance(node, ast.AnnAssign) or "ClassVar" in ast.unparse(node.annotation):
            continue
        is_call = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "field"
        said = _keywords(node.value) if is_call else {}
        if said.get("init") == "False":
            continue
        has_default = {"default", "default_factory"} & said.keys() if is_call else node.value
        by_name_only = said.get("kw_only", options.get("kw_only")) == "True"
        parameter = Parameter(evaluate(node.annotation, owner.tree), not has_default)
        yield ast.unparse(node.target), _Field(parameter, by_name_only)
