"""What `sdpo_exp.compare` takes as a path, what it reads there, and how it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sdpo_exp.cli.compare.compare import KEYS
from sdpo_exp.cli.compare.sources import read_source, with_names
from sdpo_exp.cli.runs.gather_paths import gather_paths
from sdpo_exp.errors import UserError
from sdpo_exp.evaluation.scores import EVALUATION_FILE, SCORES_FILE
from tests.cli.compare.test_compare import CLIP, evaluation


@pytest.mark.parametrize(
    ("name", "files", "words"),
    [
        ("images", ["manifest.json"], "images without scores. Score them first: "
         "python -m sdpo_exp.evaluate images="),
        ("all", ["one/scores.parquet", "two/scores.parquet"], "no scores.parquet here, but in "),
        ("empty", [], "no scores.parquet in this folder; python -m sdpo_exp.evaluate writes one"),
    ],
)  # fmt: skip
def test_a_folder_without_scores_is_told_with_the_way_to_some(
    tmp_path: Path, name: str, files: list[str], words: str
) -> None:
    (tmp_path / name).mkdir()
    for file in files:
        (tmp_path / name / file).parent.mkdir(exist_ok=True)
        (tmp_path / name / file).touch()
    with pytest.raises(UserError) as caught:
        read_source(str(tmp_path / name))
    assert str(caught.value).startswith(f"{tmp_path / name}: {words}")


def test_a_manifest_without_scores_is_told_with_the_way_to_some(tmp_path: Path) -> None:
    file = tmp_path / "sd15.json"
    entry = {"prompt": "a cat", "gen_image_path": "0.png", "metadata": {"steps": 50}}
    file.write_text(json.dumps([entry]))
    with pytest.raises(UserError) as caught:
        read_source(str(file))
    assert f"python -m sdpo_exp.evaluate images={file} metric=[" in str(caught.value)
    assert "If one of steps is a score, name it: only=[<field>]." in str(caught.value)
    assert read_source(str(file), ["steps"]).table.scores["steps"][0].value == 50


def test_a_bare_table_is_named_after_its_folder_or_file(tmp_path: Path) -> None:
    file = evaluation(tmp_path / "dpo run", CLIP, name="dpo") / SCORES_FILE
    assert read_source(str(file)).name == "dpo"
    (file.parent / EVALUATION_FILE).write_text("[1]")
    assert read_source(str(file)).name == "dpo run"
    assert read_source(str(file.rename(tmp_path / "mine.parquet"))).name == "mine"


def test_a_broken_evaluation_file_is_told(tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "dpo", CLIP)
    (folder / EVALUATION_FILE).write_text("{")
    with pytest.raises(UserError, match=r"evaluation\.json: cannot be read"):
        read_source(str(folder))


def test_names_are_made_unique(tmp_path: Path) -> None:
    source = read_source(str(evaluation(tmp_path / "dpo", CLIP)))
    assert [s.name for s in with_names([source] * 3, None)] == ["dpo", "dpo (2)", "dpo (3)"]
    assert [s.name for s in with_names([source] * 2, ["a", "b"])] == ["a", "b"]


@pytest.mark.parametrize(
    "path",
    ["plain", "with blanks", "a,b", "outputs/lr=1,beta=2/x", "it's", "[x]", "a=b", "{y}", "x\\"],
)
def test_a_path_is_taken_as_it_stands(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / path).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    argv = ["compare", "other", path, "seed=1"]
    gather_paths(argv, KEYS)
    assert argv[2:] == ["seed=1"]
    override = OverridesParser.create().parse_override(argv[1])
    assert override.key_or_group == "paths"
    assert [str(getattr(item, "text", item)) for item in override.value()] == ["other", path]


def test_values_and_flags_stay_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed=1").mkdir()
    for argv in (["x", "seed=1", "--cfg", "job"], ["x", "hydra/job_logging=plain", "sede=2"]):
        before = list(argv)
        gather_paths(argv, KEYS)
        assert argv == before
    argv = ["x", "--config-dir", "mine", "-m", "mine", "only=[a],[b]", "./seed=1", "sub/gone=x"]
    gather_paths(argv, KEYS)
    assert argv == [
        "x", "--config-dir", "mine", "-m", "paths=['mine','./seed=1','sub/gone=x']", "only=[a],[b]"
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"paths= and a: give the paths in one way"):
        gather_paths(["x", "a", "paths=[b]"], KEYS)
