"""Commands that are printed are run as printed, whatever the paths are called."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sdpo_exp.cli.printed import command, word
from sdpo_exp.cli.relabel.config import model_words


@pytest.mark.parametrize(
    "name", ["plain", "a folder", "it's", "a=b", "[x]", "a,b", "${x}", "1", "null"]
)
def test_a_path_comes_back_as_it_was(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = command("train", word("resume", tmp_path / name), "max_steps=3")
    arguments = shlex.split(printed)
    assert arguments[:3] == ["python", "-m", "sdpo_exp"]
    value = OverridesParser.create().parse_override(arguments[3]).value()
    assert getattr(value, "text", value) == name


def test_what_needs_no_quotes_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = command("export", word("checkpoint", tmp_path / "outputs" / "run" / "a-b_1"))
    assert printed == "python -m sdpo_exp.export checkpoint=outputs/run/a-b_1"


@pytest.mark.parametrize(
    ("target", "resolution", "expected"),
    [
        ("sdpo_exp.testbed.sampled.SampledPairs", 512, []),
        ("sdpo_exp.data.table.TablePairs", 512, ["model=sd15"]),
        ("sdpo_exp.data.folder.FolderPairs", 1024, ["model=sdxl"]),
    ],
)
def test_relabelled_data_name_their_model(
    target: str, resolution: int, expected: list[str]
) -> None:
    config = OmegaConf.create({"data": {"train": {"_target_": target}}, "resolution": resolution})
    assert model_words(config) == expected
