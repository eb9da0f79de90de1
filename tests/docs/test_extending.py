"""What the page on extending names is there, and its examples are the package's own source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra.utils import get_object

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:models|data|metrics|protocols)\.[\w.]+)`", PAGE)))
DERIVED = re.findall(r"^\| `([\w.]+)` \| [^|]* \| ([^|]*) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", NAMED)
def test_a_class_that_is_named_exists(name: str) -> None:
    assert isinstance(get_object(f"sdpo_exp.{name}"), type)


@pytest.mark.parametrize(("name", "left"), DERIVED, ids=lambda value: value[:30])
def test_methods_that_a_base_leaves_open_are_told(name: str, left: str) -> None:
    base = get_object(f"sdpo_exp.{name}")
    told = left.replace("the same", dict(DERIVED)["metrics.frozen.FrozenScorer"])
    code = {method: getattr(getattr(base, method), "__code__", None) for method in dir(base)}
    open_ones = [m for m, c in code.items() if "NotImplementedError" in getattr(c, "co_names", ())]
    assert [method for method in open_ones if f"`{method}" not in told] == []


def test_the_examples_are_the_packages_own_source() -> None:
    block = next(b for b in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL) if "class " in b)
    source = "".join(
        (ROOT / "sdpo_exp" / name).read_text() for name in ("data/table.py", "models/sdxl.py")
    )
    lines = [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]
    assert [line for line in lines if line not in source] == []
    assert len(lines) == 6


def test_no_other_code_knows_the_last_backbone() -> None:
    files = [path for path in (ROOT / "sdpo_exp").rglob("*.py") if path.name != "ovis_image.py"]
    assert [p for p in files if re.search(r"ovis_image|OvisImage", p.read_text())] == []
    assert "`sdpo_exp/models/ovis_image.py` and `conf/model/ovis_image.yaml`" in PAGE
