"""Every format gives its prompts byte for byte, and what is broken is named by file and row."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdpo_exp.data.prompt_files import PromptColumns, read_prompts
from sdpo_exp.errors import UserError

# Blanks at the ends, quotes, separators that are no line ends, and more than ASCII.
TEXTS = [" a cat ", 'a "dog", running', "line\u2028separator\x0b", "Dalí\u2019s 猫", "#1\\n"]
BY_CATEGORY = PromptColumns(labels={"category": "Kind"})


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def separated(rows: list[list[str]], delimiter: str) -> str:
    return "".join(delimiter.join(map(quoted, row)) + "\r\n" for row in rows)


def write(path: Path, texts: list[str], kinds: list[str]) -> Path:
    """A file of the format that the ending names; columns prompt, Kind and one more."""
    objects = [{"n": 1, "prompt": t, "Kind": k} for t, k in zip(texts, kinds, strict=True)]
    table = [["n", "prompt", "Kind"], *([str(o["n"]), o["prompt"], o["Kind"]] for o in objects)]
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(objects))
        case ".jsonl":
            lines = [json.dumps(o, ensure_ascii=False) for o in objects]
            path.write_text("\n".join(lines) + "\n\n", "utf-8")
        case ".csv" | ".tsv":
            delimiter = "," if path.suffix == ".csv" else "\t"
            path.write_text(separated(table, delimiter), "utf-8-sig", newline="")
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(objects), path)
    return path


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "tsv", "parquet"])
def test_columns_of_every_format(tmp_path: Path, ending: str) -> None:
    kinds = ["x", "y", "", "y", "z"]
    path = write(tmp_path / f"p.{ending}", TEXTS, kinds)
    rows = read_prompts(path, BY_CATEGORY)
    assert [row.text for row in rows] == TEXTS
    assert [row.labels for row in rows] == [{"category": kind} if kind else {} for kind in kinds]
    assert read_prompts(path.rename(tmp_path / f"P.{ending.upper()}"), BY_CATEGORY) == rows


def test_lists_of_texts(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(TEXTS))
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, TEXTS)))
    (tmp_path / "p.txt").write_bytes("\r\n".join(TEXTS).encode() + b"\r\n")
    for ending in ("json", "jsonl", "txt"):
        rows = read_prompts(tmp_path / f"p.{ending}", PromptColumns())
        assert rows == [(text, {}) for text in TEXTS], ending


def test_a_public_manifest(tmp_path: Path) -> None:
    entry = {"gen_image_path": "", "raw_image_path": "", "metadata": {}}
    (tmp_path / "m.json").write_text(json.dumps([{"prompt": t, **entry} for t in TEXTS]))
    assert [row.text for row in read_prompts(tmp_path / "m.json", PromptColumns())] == TEXTS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", '"a"\n"b"\n'),
        ("p.jsonl", '"a"\n\n  \n"b"\n'),
        ("p.csv", "prompt\r\na\r\nb"),
        ("p.csv", "prompt\ra\rb\r"),
        ("p.csv", "n|prompt\n1|a\n2|b\n"),
        ("p.csv", 'note; prompt\n1,5; a\n"2, 5"; "b"\n'),
    ],
)
def test_what_is_not_quite_as_it_should_be_is_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert [row.text for row in read_prompts(tmp_path / name, PromptColumns())] == ["a", "b"]


def test_quotes_in_a_tsv_are_read_as_the_public_lists_were_made(tmp_path: Path) -> None:
    """PartiPrompts has a prompt that begins with a quoted word; the public JSON lost its quotes."""
    text = 'Prompt\tNote\n"O K" painted on a wall\t\na sign that says "O K"\tx\n'
    (tmp_path / "p.tsv").write_text(text)
    rows = read_prompts(tmp_path / "p.tsv", PromptColumns(["Prompt"]))
    assert [row.text for row in rows] == ["O K painted on a wall", 'a sign that says "O K"']


def test_cells_over_several_lines_keep_them(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('prompt,x\n"one\ntwo",1\n" ",2\n')
    with pytest.raises(UserError, match=r"p.csv row 1 \(line 4\): blank prompt$"):
        read_prompts(tmp_path / "p.csv", PromptColumns())
    (tmp_path / "p.csv").write_text('prompt,x\n"one\ntwo",1\n')
    assert read_prompts(tmp_path / "p.csv", PromptColumns()) == [("one\ntwo", {})]


def test_labels_that_are_no_texts_become_some_and_null_is_none(tmp_path: Path) -> None:
    objects = [{"prompt": "a", "Kind": 3}, {"prompt": "b", "Kind": None}, {"prompt": "c"}]
    (tmp_path / "p.json").write_text(json.dumps(objects))
    rows = read_prompts(tmp_path / "p.json", BY_CATEGORY)
    assert [row.labels for row in rows] == [{"category": "3"}, {}, {}]


def test_the_first_column_that_a_file_has_is_taken(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("caption,prompt\na,b\n")
    (text, _), *_ = read_prompts(tmp_path / "p.csv", PromptColumns(["Prompt", "prompt", "caption"]))
    assert text == "b"


def test_columns_of_labels_may_be_optional(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "p.csv").write_text("prompt,Kind\na,x\n")
    columns = PromptColumns(labels={"category": "Kind", "challenge": "Challenge"})
    with pytest.raises(UserError, match="no column 'Challenge'"):
        read_prompts(tmp_path / "p.csv", columns)
    optional = PromptColumns(labels=columns.labels, labels_optional=True)
    with caplog.at_level(logging.WARNING):
        assert read_prompts(tmp_path / "p.csv", optional) == [("a", {"category": "x"})]
    assert "p.csv: no labels challenge; it has no such column" in caplog.text
    (tmp_path / "p.txt").write_text("a")
    assert read_prompts(tmp_path / "p.txt", optional) == [("a", {})]


COLUMNS = PromptColumns(["prompt"], {"category": "Kind"})
PLAIN = PromptColumns()
BROKEN: list[tuple[str, Any, PromptColumns, str]] = [
    ("p.docx", "x", PLAIN, "p.docx: prompts are read from .json, .jsonl, .txt, .csv, .tsv,"),
    ("p.txt", b"\xff\xfe\x00", PLAIN, "p.txt: cannot be read as UTF-8 text"),
    ("p.txt", "", PLAIN, "p.txt: no prompt in it"),
    ("p.txt", "\n \n", PLAIN, "p.txt: no prompt in it"),
    ("p.txt", "a\n\n \nb", PLAIN, "p.txt row 1 (line 2): blank prompt (and 1 more rows)"),
    ("p.txt", "a", COLUMNS, "p.txt: no column 'Kind': it is a list of texts, without columns"),
    ("p.json", "[]", PLAIN, "p.json: no prompt in it"),
    ("p.json", "", PLAIN, "p.json: not JSON (Expecting value"),
    ("p.json", '"a"\n"b', PLAIN, "p.json row 1 (line 2): not JSON"),
    (
        "p.json",
        '{"prompt": "a"}',
        PLAIN,
        "should be a JSON list of texts or of objects, it is a di",
    ),
    ("p.json", "[" * 100_000, PLAIN, "p.json: not JSON"),
    ("p.json", '["a", 3]', PLAIN, "p.json row 1: a int; all entries should be texts"),
    ("p.json", '["a", null]', PLAIN, "p.json row 1: null; all entries should be texts"),
    ("p.json", '["a", {"prompt": "b"}]', PLAIN, "p.json row 1: a dict; all entries"),
    ("p.json", '["a", "\\ud83d"]', PLAIN, "p.json row 1: prompt with half a character"),
    (
        "p.json",
        '[{"prompt": "a"}, {"prompt": null}]',
        PLAIN,
        "p.json row 1: no prompt (null, or no",
    ),
    (
        "p.json",
        '[{"prompt": "a"}, {"x": "b"}]',
        PLAIN,
        "p.json row 1: no prompt (null, or not there",
    ),
    ("p.json", '[{"prompt": ["a"]}]', PLAIN, "p.json row 0: no prompt but a list"),
    (
        "p.json",
        '[{"Prompt": "a"}]',
        PLAIN,
        "no column 'prompt'; did you mean 'Prompt'? It has: Prom",
    ),
    (
        "p.json",
        '[{"prompt": "a", "Kind": {}}]',
        COLUMNS,
        "row 0: label 'Kind' is a dict, not a text",
    ),
    ("p.jsonl", '{"prompt": "a"}\n{"prompt"', PLAIN, "p.jsonl row 1 (line 2): not JSON"),
    ("p.jsonl", '"a"\n\n"b', PLAIN, "p.jsonl row 1 (line 3): not JSON"),
    ("p.csv", "", PLAIN, "p.csv: no header"),
    ("p.csv", "prompt\n", PLAIN, "p.csv: no prompt in it"),
    ("p.csv", "a,b\nx,y\n", PLAIN, "p.csv: no column 'prompt'. It has: a, b"),
    (
        "p.csv",
        "prompt,kind\na,b\n",
        COLUMNS,
        "no column 'Kind'; did you mean 'kind'? It has: prompt,",
    ),
    ("p.csv", "prompt,prompt\na,b\n", PLAIN, "p.csv: two columns are named 'prompt'"),
    ("p.csv", "prompt,x\na,b\na cat, red,b\n", PLAIN, "p.csv row 1 (line 3): 3 cells under 2 col"),
    ("p.csv", 'prompt,x\na,b\n"a,b\nc,d\n', PLAIN, "p.csv line 3: a quote that is never closed"),
    ("p.csv", "prompt,x\na,b\n\nc,d\n", PLAIN, "p.csv row 1 (line 3): blank prompt"),
    ("p.parquet", b"PAR1 no more", PLAIN, "p.parquet: cannot be read as parquet"),
]


@pytest.mark.parametrize(("name", "content", "columns", "words"), BROKEN)
def test_what_is_broken_is_told(
    tmp_path: Path, name: str, content: Any, columns: PromptColumns, words: str
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_prompts(tmp_path / name, columns)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_parquet_with_a_null_or_another_type_is_told(tmp_path: Path) -> None:
    for values, words in (
        (["a", None], r"row 1: no prompt \(null"),
        ([1, 2], r"row 0: no prompt but a int \(and 1 more rows\)"),
    ):
        pq.write_table(pa.table({"prompt": values}), tmp_path / "p.parquet")
        with pytest.raises(UserError, match=words):
            read_prompts(tmp_path / "p.parquet", PromptColumns())


def test_of_a_parquet_no_other_column_is_read(tmp_path: Path) -> None:
    """Nor could it be: half of a pixel column is cut out of the file."""
    noise = [bytes([i]) * 200_000 for i in range(4)]
    columns = {"prompt": list("abcd"), "pixels": noise}
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    where = pq.read_metadata(path).row_group(0).column(1).data_page_offset
    data = bytearray(path.read_bytes())
    data[where : where + 400_000] = bytes(400_000)
    path.write_bytes(data)
    assert [row.text for row in read_prompts(path, PromptColumns())] == list("abcd")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        read_prompts(path, PromptColumns(["pixels"]))
