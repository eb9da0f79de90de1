"""Who may import whom, and how large things may grow."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imports import (
    FILES,
    NAMES,
    PACKAGE,
    circle,
    file_graph,
    imported,
    name_of,
    own_imports,
    room_graph,
    room_of,
)

RANKS = {
    0: (
        "types",
        "pair_errors",
        "tensor_checks",
        "protocols",
        "errors",
        "bounds",
        "randomness",
        "hub",
        "terminal",
        "whole_files",
        "words",
        "shaping",
        "durations",
    ),
    1: ("objectives", "safeguard", "models", "data", "metrics", "evaluation"),
    2: ("training", "generation", "callbacks", "loggers", "reports"),
    3: ("testbed", "rules"),
    4: ("config", "launchers", "cli"),
    5: tuple(
        f"cli.{command}"
        for command in (
            "train",
            "generate",
            "evaluate",
            "compare",
            "relabel",
            "make_pairs",
            "prepare",
            "export",
            "checkpoints",
            "dashboard",
            "runs",
            "data",
        )
    ),
}
# One command per root module, and all of them thin.
COMMANDS = (
    "__main__",
    "",
    "pretrain",
    "generate",
    "evaluate",
    "compare",
    "report",
    "relabel",
    "make_pairs",
    "prepare",
    "sample_pairs",
    "export",
    "check_data",
    "runs",
    "dashboard",
)
RANK = {room: rank for rank, rooms in RANKS.items() for room in rooms}
# What reports may know: numbers about scores, and nothing that needs torch.
OF_SCORES = ("statistics", "clustered", "comparison", "outcomes", "pairing", "scores")
OF_REPORTS = {
    "words",
    "shaping",
    *(f"evaluation.{name}" for name in OF_SCORES),
}


def allowed(room: str, other: str) -> bool:
    """Whether files of one room may import another room's."""
    if room == other:
        return True
    if "reports" in (room, other):
        return other in ("evaluation", "words", "shaping") or RANK[room] >= 4
    if RANK[room] <= 1:
        return RANK[other] == 0
    if RANK[room] == 2:
        return RANK[other] in (0, 2) or other == "evaluation"
    return RANK[other] < RANK[room] or RANK[room] == RANK[other] >= 4


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_what_its_rank_allows(path: Path) -> None:
    room = room_of(name_of(path))
    others = {room_of(name) for name in own_imports(path)}
    if room in COMMANDS:
        # The package's own is also the table of its public names.
        assert len(path.read_text().splitlines()) <= (35 if room == "" else 15)
        assert all(other.startswith("cli.") or (room, other) == ("", "errors") for other in others)
        return
    assert room in RANK, f"give {room} a rank"
    for other in others:
        assert allowed(room, other), f"{room} may not import {other}"


def test_training_knows_no_objective_safeguard_or_backbone() -> None:
    for name, path in NAMES.items():
        if room_of(name) == "training":
            assert {RANK[room_of(other)] for other in own_imports(path)} <= {0, 2}


def test_reports_import_no_torch_and_only_scores_of_ours() -> None:
    for path in (PACKAGE / "reports").rglob("*.py"):
        heavy = {name.split(".")[0] for name in imported(path)} & {"torch", "lightning"}
        assert not heavy, f"{path.name} imports {heavy}"
        others = {name for name in own_imports(path) if room_of(name) != "reports"}
        assert others <= OF_REPORTS


def test_nothing_imports_in_a_circle() -> None:
    assert circle(file_graph()) == []
    assert circle(room_graph(left_out=frozenset(COMMANDS))) == []


def test_the_map_in_the_docs_shows_every_room_on_its_floor() -> None:
    page = (PACKAGE.parent / "docs" / "design.md").read_text()
    floors = dict(zip(RANKS, reversed(page.split("\n  rank ")[1:]), strict=True))
    for rank, rooms in RANKS.items():
        drawn = set(re.findall(r"[\w/]+", floors[rank].partition("```")[0].replace(",", " ")))
        for room in rooms:
            short = room.removeprefix("cli.")
            assert drawn & {room, short, f"cli/{short}", f"{room}/"}, room


def test_the_rules_can_fail() -> None:
    assert not allowed("training", "objectives")
    assert not allowed("objectives", "models")
    assert not allowed("callbacks", "testbed")
    assert not allowed("reports", "types")
    assert not allowed("callbacks", "reports")
    assert not allowed("cli", "cli.train")
    assert allowed("cli.train", "training")
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


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
