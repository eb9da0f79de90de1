"""docs/python.md and the notebook: every block and every cell runs, in a process of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.command import ROOT, python, run_folders

pytestmark = pytest.mark.slow
# A notebook's frontend shows what the last line of a cell gives.
SHOW = """
import ast, json, sys
names = {}
for cell in json.load(open(sys.argv[1])):
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is not None:
        shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        print("SHOWN", type(shown).__name__)
"""
PROBE = '"callbacks.probe.pairs=4", "callbacks.probe.times=[0.5]"'
LIMITS = f'"max_steps=2", {PROBE}, "evaluation.steps=1"'


def test_the_notebooks_cells_run(tmp_path: Path) -> None:
    content = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
    cells = ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in content["cells"] if cell["cell_type"] == "code")
    text = json.dumps(cells)
    assert text.count('\\"max_steps=60\\"') == 1
    (tmp_path / "cells.json").write_text(
        text.replace('\\"max_steps=60\\"', json.dumps(LIMITS)[1:-1])
    )
    done = python(tmp_path, "-c", SHOW, "cells.json", extra={"MPLBACKEND": "svg"})
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"SHOWN (\w+)", done.stdout)
    assert shown == ["Figure", "dict", "PngImageFile", "Figure"]
    assert len(run_folders(tmp_path, "notebook")) == 2


def test_the_pages_blocks_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    code = code.replace('"max_steps=60"', f'{LIMITS}, "evaluation.n=2"')
    code = code.replace('"max_steps=4"', f'"max_steps=4", "evaluation=off", {PROBE}')
    done = python(tmp_path, "-c", code + "\nassert image.size == (32, 32)\n")
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout
    assert "'step': 4, 'changes': []" in done.stdout
    assert "objective=dpoo: no such choice; did you mean 'dpo'?" in done.stdout
