"""`python -m sdpo_exp.make_pairs`: every form of table, what is refused, and pairs that train."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.checkpoints import SD15_ID, cache_folder, save_sd15
from tests.cli.command import ROOT, looking, python
from tests.cli.make_pairs.rankings import (
    image_files,
    json_lines,
    pairs_of,
    parquet,
    png,
    run,
    scored,
)
from tests.hub_cache import SMALL_REAL, environment_of

OUT = "output=pairs.parquet"
# Of two prompts with three images each, scored 1, 3, 2: shades of winner and loser.
EXPECTED = [
    (f"prompt {p}, please", 10 * p + winner, 10 * p + loser)
    for p in range(2)
    for winner, loser in ((1, 2), (1, 0), (2, 0))
]
SCORES, RANKS = (1, 3, 2), (3, 1, 2)


def long_form(folder: Path, form: str) -> list[str]:
    """Write the expected pairs' table in a form; the words that name it."""
    rows = scored(2, SCORES)
    if form == "parquet":
        parquet(folder / "t.parquet", rows)
        return ["path=t.parquet"]
    if form == "shards":
        cells = [{**row, "image": {"bytes": row["image"], "path": "x"}} for row in rows]
        parquet(folder / "t" / "a-0.parquet", cells[:4], 3)
        parquet(folder / "t" / "a-1.parquet", cells[4:], 3)
        return ["path=t"]
    image_files(folder / "t", 2, 3)
    names = [f"{p}_{k}.png" for p in range(2) for k in range(3)]
    if form == "csv":
        lines = [
            f'{name},"{row["prompt"]}",{rank}'
            for name, row, rank in zip(names, rows, RANKS * 2, strict=True)
        ]
        (folder / "t" / "metadata.csv").write_text("\n".join(["file_name,text,place", *lines]))
        return ["path=t", "columns.rank=place"]
    if form == "jsonl":
        lines = [
            {"caption": row["prompt"], "file": f"t/{name}", "rating": row["score"]}
            for name, row in zip(names, rows, strict=True)
        ]
        json_lines(folder / "t.jsonl", lines)
        return ["path=t.jsonl"]
    wide: list[dict[str, Any]] = [
        {"prompt": rows[3 * p]["prompt"], "images": names[3 * p : 3 * p + 3], "ranking": [*RANKS]}
        for p in range(2)
    ]
    if form == "wide jsonl":
        json_lines(folder / "t" / "t.jsonl", wide)
        return ["path=t/t.jsonl"]
    if form == "wide csv":
        lines = [
            "\t".join([w["prompt"], json.dumps(w["images"]), json.dumps(w["ranking"])])
            for w in wide
        ]
        (folder / "t" / "t.tsv").write_text("\n".join(["prompt\timages\tranks", *lines]))
        return ["path=t/t.tsv"]
    assert form == "wide parquet"
    for p, row in enumerate(wide):
        row["images"] = [png(10 * p + k) for k in range(3)]
    parquet(folder / "t.parquet", wide)
    return ["path=t.parquet"]


FORMS = ["parquet", "shards", "csv", "jsonl", "wide jsonl", "wide csv", "wide parquet"]


@pytest.mark.few(4)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_table_gives_the_same_pairs(tmp_path: Path, form: str) -> None:
    done = run(tmp_path, *long_form(tmp_path, form), OUT)
    assert done.returncode == 0, done.stderr
    assert pairs_of(tmp_path / "pairs.parquet") == EXPECTED
    table = pq.read_table(tmp_path / "pairs.parquet")
    assert table["margin"].to_pylist() == [1, 2, 1] * 2
    assert "6 images of 2 prompts: 6 pairs of 2 prompts\nleft out: nothing" in done.stdout
    assert not list(tmp_path.glob("*.partial"))
    assert not (tmp_path / "outputs").exists()


def test_paths_stay_where_they_are(tmp_path: Path) -> None:
    words = long_form(tmp_path, "csv")
    done = run(tmp_path, *words, "output=deep/er/pairs.parquet", "images=paths")
    assert done.returncode == 0, done.stderr
    first = pq.read_table(tmp_path / "deep/er/pairs.parquet")["winner"][0].as_py()
    assert first == "../../t/0_1.png"
    assert pairs_of(tmp_path / "deep/er/pairs.parquet") == EXPECTED


def test_files_in_a_table_have_no_paths(tmp_path: Path) -> None:
    done = run(tmp_path, *long_form(tmp_path, "parquet"), OUT, "images=paths")
    assert "t.parquet row 0: the table holds the image itself" in done.stderr
    assert not (tmp_path / "pairs.parquet").exists()


def test_a_group_is_one_ranking_and_the_account_is_complete(tmp_path: Path) -> None:
    rows = scored(2, (1, 1, 5, 5.5))
    for i, row in enumerate(rows):
        row |= {"prompt": "the same", "session": i // 4}
    parquet(tmp_path / "t.parquet", [*rows, {**scored(9, (1,))[8], "session": 7}])
    words = ("path=t.parquet", OUT, "columns.group=session", "min_gap=1")
    done = run(tmp_path, *words, "max_pairs_per_prompt=3")
    assert done.returncode == 0, done.stderr
    assert (
        "9 images of 3 prompts: 6 pairs of 2 prompts\n"
        "left out: 2 ties (images of equal value), 2 pairs below min_gap, "
        "2 pairs beyond max_pairs_per_prompt, 1 prompt with one image alone\n"
    ) in done.stdout
    assert all(winner // 10 == loser // 10 for _, winner, loser in pairs_of(tmp_path / OUT[7:]))


def test_an_output_is_never_replaced_unasked(tmp_path: Path) -> None:
    words = [*long_form(tmp_path, "parquet"), OUT]
    (tmp_path / "pairs.parquet").write_bytes(b"of great value")
    done = run(tmp_path, *words)
    assert "output=pairs.parquet is there already; give another name, or overwrite=true" in (
        done.stderr
    )
    assert (tmp_path / "pairs.parquet").read_bytes() == b"of great value"
    bad = run(tmp_path, *words, "overwrite=true", "min_gap=99")
    assert "t.parquet: no pair; " in bad.stderr
    assert (tmp_path / "pairs.parquet").read_bytes() == b"of great value"
    assert run(tmp_path, *words, "overwrite=true").returncode == 0
    assert len(pairs_of(tmp_path / "pairs.parquet")) == 6
    swept = run(tmp_path, "-m", *words[:-1], "pairs=all,adjacent", "output=new.parquet")
    assert "output=new.parquet is there already" in swept.stderr
    assert len(pairs_of(tmp_path / "new.parquet")) == 6
    same = run(tmp_path, "path=pairs.parquet", OUT, "overwrite=true", "columns.score=margin")
    assert "output=pairs.parquet is the table that is read" in same.stderr


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": " "}, "empty caption"),
    ({"image": b""}, "empty image (zero bytes)"),
    ({"image": png(3)[:50]}, "damaged image ("),
    ({"image": None}, "no image (null)"),
    ({"score": None}, "no score (null)"),
    ({"score": float("inf")}, "score is no finite number (inf)"),
    ({"image": png(0)}, "the same image again under its prompt (as t.parquet row 0)"),
]


@pytest.mark.few(3)
@pytest.mark.parametrize(("change", "reason"), BAD, ids=lambda value: str(value)[:20])
def test_a_bad_row_is_told_or_left_out(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    rows = scored(2, SCORES)
    rows[2] |= change
    parquet(tmp_path / "t.parquet", rows)
    done = run(tmp_path, "path=t.parquet", OUT)
    assert f"t.parquet row 2: {reason}" in done.stderr
    assert "on_bad_row=skip" in done.stderr
    assert not (tmp_path / "pairs.parquet").exists()
    done = run(tmp_path, "path=t.parquet", OUT, "on_bad_row=skip")
    assert done.returncode == 0, done.stderr
    assert f"1 bad row skipped; 1 {reason.partition(' (')[0]}: t.parquet row 2" in done.stdout
    assert pairs_of(tmp_path / "pairs.parquet") == [EXPECTED[1], *EXPECTED[3:]]


def test_bad_cells_of_lists_are_told_by_row_and_image(tmp_path: Path) -> None:
    image_files(tmp_path / "t", 3, 2)
    names = [[f"{p}_{k}.png" for k in range(2)] for p in range(3)]
    rows = [
        {"prompt": "a", "images": names[0], "scores": [1, 2, 3]},
        {"prompt": "b", "images": names[1], "scores": ["1", "a" * 500]},
        {"prompt": "c", "images": names[2], "scores": [2, 1]},
        {"prompt": "d", "images": names[2], "scores": 1},
        {"prompt": "e", "images": "2_0.png", "scores": [1, 2]},
        {"prompt": "f", "images": [], "scores": []},
    ]
    json_lines(tmp_path / "t" / "t.jsonl", rows)
    done = run(tmp_path, "path=t/t.jsonl", OUT, "on_bad_row=skip")
    for words in (
        "numbers of images and scores differ: t/t.jsonl row 0 (line 1)",
        "1 score is no number: t/t.jsonl row 1 (line 2) image 1",
        "1 a list of images, but one score: t/t.jsonl row 3 (line 4)",
        "1 a list of scores, but one image: t/t.jsonl row 4 (line 5)",
        "1 an empty list of scores: t/t.jsonl row 5 (line 6)",
    ):
        assert words in done.stdout
    assert [shades for _, *shades in pairs_of(tmp_path / "pairs.parquet")] == [[20, 21]]
    told = run(tmp_path, "path=t/t.jsonl", OUT, "overwrite=true").stderr
    assert len(told) < 250


def test_mistakes_are_told_at_once_and_without_torch(tmp_path: Path) -> None:
    words = ("output=x.csv", "pairs=al", "min_gap=-1", "columns.promt=a", "sead=1", "num_workers=0")
    done = looking(tmp_path, "make_pairs.make_pairs", *words)
    for fragment in (
        "7 mistakes",
        "path: a value is required",
        "output=x.csv: pairs are a parquet table; give for example output=x.parquet",
        "pairs: must be 'all', 'adjacent', 'best_worst' or 'smallest_gap', got 'al'",
        "min_gap: must be greater than or equal to 0",
        "columns.promt=a: unknown key; did you mean 'columns.prompt'?",
        "sead=1: unknown key; did you mean 'seed'?",
        "num_workers: must be greater than or equal to 1",
    ):
        assert fragment in done.stderr
    assert "LOADED []" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("rows", "arguments", "words"),
    [
        (
            [{"image": "a", "score": 1}],
            [],
            "no column of a usual name for prompt; give columns.prompt",
        ),
        (
            [{"prompt": "a", "image": "a"}],
            [],
            "for score or rank; give columns.score=<name> or col",
        ),
        (
            [{"prompt": "a", "image": "a", "score": 1, "rank": 1}],
            [],
            "columns 'score', 'rank' could all be meant; give columns.score=<name> or columns.rank",
        ),
        (
            [{"prompt": "a", "image": "a", "score": 1}],
            ["columns.image=img"],
            "no column 'img' (col",
        ),
        (
            [{"prompt": "a", "image": "a", "score": 1}],
            ["columns.score=score", "columns.rank=score"],
            "columns.score and columns.rank: give one",
        ),
        ([{"prompt": "a", "image": "a", "score": 1}], ["output=test.parquet"], "another split"),
        (["no objects"], [], "no columns in it"),
    ],
)
def test_what_cannot_be_read_is_told_before_anything_is(
    tmp_path: Path, rows: list[Any], arguments: list[str], words: str
) -> None:
    json_lines(tmp_path / "t.jsonl", rows)
    done = run(tmp_path, "path=t.jsonl", OUT, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(list(tmp_path.iterdir())) == 1


def test_places_without_a_table_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for name in ("a.csv", "b.jsonl"):
        (tmp_path / "two" / name).touch()
    (tmp_path / "t.xlsx").touch()
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    for path, words in {
        "nowhere": "nowhere: no such file or folder",
        "empty": "empty: no table in it; looked for .parquet",
        "two": "two: several tables (a.csv, b.jsonl); name one of them",
        "t.xlsx": "t.xlsx: a table is one of .parquet",
        "t.parquet": "t.parquet: cannot be read as parquet",
    }.items():
        assert words in run(tmp_path, f"path={path}", OUT).stderr


@pytest.mark.slow
def test_the_printed_command_trains_on_the_pairs(tmp_path: Path) -> None:
    save_sd15(cache_folder(tmp_path / "hub", SD15_ID))
    rows = scored(24, SCORES)
    parquet(
        tmp_path / "t.parquet",
        [{**r, "prompt": f"{r['prompt']} {i // 3}"} for i, r in enumerate(rows * 4)],
    )
    done = run(tmp_path, "path=t.parquet", "output='my pairs/a=b.parquet'")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("train on it: ")]
    words = shlex.split(line.removeprefix("train on it: "))
    assert words[:3] == ["python", "-m", "sdpo_exp"]
    tuned = python(tmp_path, *words[1:], *SMALL_REAL, extra=environment_of(tmp_path / "hub"))
    assert tuned.returncode == 0, tuned.stdout + tuned.stderr
    assert "finished: 2 steps" in tuned.stdout


def test_the_documented_command_prints_the_documented_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text().partition("## Rankings")[2]
    made, trained = page.partition("```text\n")[2].partition("\n```")[0].splitlines()
    parquet(tmp_path / "ranked.parquet", scored(2, SCORES))
    done = run(tmp_path, *shlex.split(made)[3:])
    assert done.returncode == 0, done.stderr
    assert f"train on it: {trained}" in done.stdout.splitlines()
