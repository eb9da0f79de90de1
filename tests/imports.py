"""The package's files and who imports whom, read from source."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "sdpo_exp"
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The dotted name below the package; a folder's `__init__` has the folder's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


NAMES = {name_of(path): path for path in FILES}


def imported(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = inner.removeprefix("sdpo_exp.") in NAMES
                yield inner if is_module else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """The package's own files that a file imports."""
    names = {name.removeprefix("sdpo_exp.") for name in imported(path)}
    return {name for name in names if name in NAMES and name != name_of(path)}


def room_of(name: str) -> str:
    """A file or folder of the package; of `cli`, whose folders are rooms of their own, these."""
    first, *rest = name.split(".")
    if first == "cli" and rest and NAMES[name].parent.name != "cli":
        return f"cli.{rest[0]}"
    return first


def file_graph() -> dict[str, set[str]]:
    """Every file's own imports."""
    return {name: own_imports(path) for name, path in NAMES.items()}


def room_graph(left_out: Set[str]) -> dict[str, set[str]]:
    """Every room's other rooms, without those left out."""
    graph: dict[str, set[str]] = {}
    for name, others in file_graph().items():
        room = room_of(name)
        if room not in left_out:
            rooms = {room_of(other) for other in others} - {room} - left_out
            graph.setdefault(room, set()).update(rooms)
    return graph


def circle(graph: Mapping[str, Set[str]]) -> list[str]:
    """One circle of a graph; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
