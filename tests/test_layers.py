"""Who may import whom, and how large things may grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sdpo_exp"
RANKS = {
    0: (
        "types",
        "protocols",
        "errors",
        "bounds",
        "randomness",
        "statistics",
        "clustered",
        "comparison",
        "hub",
        "precision",
        "trained_state",
        "scores",
        "pairing",
        "manifests",
        "whole_files",
        "per_prompt",
        "panels",
    ),
    1: ("objectives", "safeguard", "models", "data", "metrics", "gradient_rules"),
    2: ("training", "generation", "callbacks", "loggers", "memory"),
    3: ("testbed",),
    4: ("config", "cli", "launchers"),
}
# One command per root module, and all of them thin.
COMMANDS = (
    "__main__",
    "__init__",
    "pretrain",
    "generate",
    "evaluate",
    "compare",
    "report",
    "relabel",
    "sample_pairs",
    "export",
    "check_data",
    "runs",
    "dashboard",
)
RANK = {room: rank for rank, rooms in RANKS.items() for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def own_rooms(path: Path) -> set[str]:
    names = [name.split(".") for name in imported(path)]
    return {parts[1] for parts in names if parts[0] == "sdpo_exp" and len(parts) > 1}


def allowed(room: str, other: str) -> bool:
    if room == other or other == "__init__":
        return True
    if room == "reports":
        return other in ("statistics", "clustered", "comparison", "scores")
    if other == "reports":
        return room in ("cli", "launchers")
    if room == "training":
        return RANK[other] == 0 or other == "gradient_rules"
    if RANK[room] == 1:
        return RANK[other] == 0
    if RANK[room] == 2:
        return RANK[other] in (0, 2)
    return RANK[other] < RANK[room] or RANK[room] == RANK[other] in (0, 4)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_what_its_rank_allows(path: Path) -> None:
    room = room_of(path)
    if room in COMMANDS:
        assert len(path.read_text().splitlines()) <= 15
        assert own_rooms(path) <= {"cli"}
        return
    assert room in RANK or room == "reports", f"give {room} a rank"
    for other in own_rooms(path):
        assert allowed(room, other), f"{room} may not import {other}"


def test_reports_import_no_torch() -> None:
    for path in (PACKAGE / "reports").rglob("*.py"):
        heavy = {name.split(".")[0] for name in imported(path)} & {"torch", "lightning"}
        assert not heavy, f"{path.name} imports {heavy}"


def test_the_rule_can_fail() -> None:
    assert not allowed("training", "objectives")
    assert not allowed("objectives", "models")
    assert not allowed("callbacks", "testbed")
    assert not allowed("reports", "types")
    assert allowed("cli", "training")


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or 0) - node.lineno + 1


def test_files_and_functions_stay_small() -> None:
    lengths = sorted(len(path.read_text().splitlines()) for path in FILES)
    assert lengths[-1] <= 300
    assert lengths[len(lengths) // 2] <= 130
    sizes = sorted(size for path in FILES for _, size in functions(path))
    assert sizes[-1] <= 60
    assert sizes[len(sizes) // 2] <= 12
