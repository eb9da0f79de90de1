"""Tables as people have them: nothing guessed from first rows, and nothing lost without a word."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdpo_exp.data.columns import Columns
from sdpo_exp.data.datamodule import PairDataModule
from sdpo_exp.data.stream import StreamPairs
from sdpo_exp.data.stream_head import StreamHead
from sdpo_exp.data.table import TablePairs
from sdpo_exp.data.transform import PairCrop
from sdpo_exp.errors import BadRow, UserError

ORDERED = Columns(winner="winner", loser="loser")
TWO = {"image_0": "img_a", "image_1": "img_b"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def png(grey: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (9, 9), grey).save(stream, "PNG")
    return stream.getvalue()


def with_images(folder: Path, grey: Sequence[int] = (10, 200)) -> Path:
    folder.mkdir(exist_ok=True)
    for value in grey:
        (folder / f"{value}.png").write_bytes(png(value))
    return folder


def written(folder: Path, text: str, name: str = "pairs.csv") -> str:
    (with_images(folder) / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def told(path: str, columns: Columns = ORDERED) -> list[tuple[int, int, str]]:
    """Grey of winner and loser, and caption, by a table and by a stream of it."""
    table = TablePairs(path, columns)
    found = _read(table, len(table))
    stream = StreamPairs(path, columns, buffer_size=1)
    assert sorted(_read(stream, len(table))) == sorted(found)
    head = StreamHead(path, columns, rows=1_000)
    assert _read(head, len(head)) == found
    return found


def _read(source: Any, pairs: int) -> list[tuple[int, int, str]]:
    found = [source[i] for i in range(pairs)]
    return [(_grey(pair.winner), _grey(pair.loser), pair.prompt) for pair in found]


def _grey(image: Image.Image) -> int:
    pixel: Any = image.getpixel((0, 0))
    return int(pixel[0])


CAPTIONS = ("1984", "2024-01-01", "NA", "None", "null", "a cat, asleep", "0.50", 'said "no"')


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_captions_are_the_text_that_stands_there(tmp_path: Path, separator: str) -> None:
    cells = ['"' + caption.replace('"', '""') + '"' for caption in CAPTIONS]
    lines = [separator.join(("10.png", "200.png", cell)) for cell in cells]
    header = separator.join(("winner", "loser", "caption"))
    path = written(tmp_path / "t", "\n".join([header, *lines]) + "\n")
    assert told(path) == [(10, 200, caption) for caption in CAPTIONS]


def test_a_comma_without_quotes_is_told_by_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "t", "winner,loser,caption\n10.png,200.png,a cat, asleep\n")
    for source in (TablePairs, StreamPairs):
        with pytest.raises(UserError, match=r"pairs.csv row 0 \(line 2\): 4 cells under 3"):
            source(path, ORDERED)


@pytest.mark.parametrize("first", ["1", "True", "true", "1.0", "yes"])
def test_labels_are_read_whatever_the_first_ten_thousand_rows_hold(
    tmp_path: Path, first: str
) -> None:
    lines = [f"10.png,200.png,{first},x"] * 10_001 + [
        "10.png,200.png,0.5,tie",
        "10.png,200.png,0,y",
    ]
    path = written(tmp_path / "t", "\n".join(["img_a,img_b,label,caption", *lines]) + "\n")
    table = TablePairs(path, Columns(**TWO, label_0="label"))
    assert table.counts == {
        "rows": 10_003,
        "ties": 1,
        "other part": 0,
        "below min_margin": 0,
        "kept": 10_002,
    }
    assert (_grey(table[0].winner), _grey(table[10_001].winner)) == (10, 200)


def test_a_label_that_is_none_is_told_by_its_row(tmp_path: Path) -> None:
    path = written(tmp_path / "t", "img_a,img_b,label,caption\n10.png,200.png,maybe,x\n")
    with pytest.raises(UserError, match=r"column 'label' should hold numbers; row 0 has 'maybe'"):
        TablePairs(path, Columns(**TWO, label_0="label"))


def parquet(folder: Path, *shards: Mapping[str, pa.Array]) -> str:
    with_images(folder)
    for number, shard in enumerate(shards):
        name = f"train-{number:05d}-of-{len(shards):05d}.parquet"
        pq.write_table(pa.table(dict(shard)), folder / name)
    return str(folder)


def shard(captions: Any, **more: Any) -> dict[str, Any]:
    count = len(captions)
    return {"winner": ["10.png"] * count, "loser": ["200.png"] * count, "caption": captions, **more}


def test_shards_need_to_agree_on_needed_columns_only(tmp_path: Path) -> None:
    first = shard(pa.nulls(1), note=pa.array([1]))
    second = shard(pa.array(["x"]), note=pa.array(["text"]), more=pa.array([2]))
    third = shard(pa.array([1984]))
    path = parquet(tmp_path / "t", first, second, third)
    table = TablePairs(path, ORDERED)
    assert [table[i].prompt for i in (1, 2)] == ["x", "1984"]
    with pytest.raises(BadRow, match="no caption"):
        table[0]
    stream = StreamPairs(path, ORDERED, buffer_size=1)
    captions = set()
    for i in range(3):
        try:
            captions.add(stream[i].prompt)
        except BadRow as error:
            captions.add(error.reason)
    assert captions == {"x", "1984", "no caption (null)"}


def test_a_shard_without_a_needed_column_is_named(tmp_path: Path) -> None:
    lacking = {"winner": ["10.png"], "loser": ["200.png"], "text": ["x"]}
    path = parquet(tmp_path / "t", shard(pa.array(["x"])), lacking)
    with pytest.raises(UserError, match=r"train-00001-of-00002.parquet: no column 'caption'"):
        TablePairs(path, ORDERED)


@pytest.mark.parametrize("part", ["all", "train"])
def test_lists_of_captions_are_told(tmp_path: Path, part: Any) -> None:
    path = parquet(tmp_path / "t", shard(pa.array([["a", "b"], ["c"]])))
    with pytest.raises(UserError, match=r"column 'caption' .* holds list<.*one value a row"):
        TablePairs(path, ORDERED, part=part, holdout=0.5 if part == "train" else 0.0)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_no_rows_are_told(tmp_path: Path, form: str) -> None:
    if form == "parquet":
        path = parquet(tmp_path / "t", shard(pa.array([], pa.string())))
    else:
        text = "winner,loser,caption\n" if form == "csv" else ""
        path = written(tmp_path / "t", text, f"pairs.{form}")
    for source in (TablePairs, StreamPairs):
        with pytest.raises(UserError, match=r"no rows|no column"):
            source(path, ORDERED)


def as_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


@pytest.mark.parametrize(
    "cell",
    [
        lambda grey: f"{grey}.png",
        lambda grey: as_uri(png(grey)),
        lambda grey: base64.b64encode(png(grey)).decode(),
        lambda grey: {"bytes": base64.b64encode(png(grey)).decode(), "path": None},
        lambda grey: {"path": f"{grey}.png"},
    ],
    ids=["path", "uri", "base64", "bytes", "path in a dict"],
)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_images_come_in_many_ways(tmp_path: Path, form: str, cell: Any) -> None:
    winner, loser = cell(10), cell(200)
    row = {"winner": winner, "loser": loser, "caption": "x"}
    text = json.dumps(row) + "\n"
    if form == "csv":
        if isinstance(winner, dict):
            pytest.skip("a cell of CSV is no object")
        text = f'winner,loser,caption\n"{winner}","{loser}",x\n'
    path = written(tmp_path / "t", text, f"pairs.{form}")
    assert told(path) == [(10, 200, "x")]


def test_a_fingerprint_covers_images_that_are_written_out(tmp_path: Path) -> None:
    prints = set()
    for grey in (10, 11):
        row = {"winner": as_uri(png(grey)), "loser": as_uri(png(200)), "caption": "x"}
        path = written(tmp_path / str(grey), json.dumps(row) + "\n", "pairs.jsonl")
        prints.add(TablePairs(path, ORDERED).fingerprint())
    assert len(prints) == 2


def test_a_message_never_prints_more_than_the_beginning_of_a_cell(tmp_path: Path) -> None:
    row = {"winner": "A" * 7_000, "loser": "200.png", "caption": "x"}
    path = written(tmp_path / "t", json.dumps(row) + "\n", "pairs.jsonl")
    with pytest.raises(BadRow) as error:
        TablePairs(path, ORDERED)[0]
    assert len(str(error.value)) < 200 + len(path)


def test_files_that_are_hidden_are_none(tmp_path: Path) -> None:
    path = written(tmp_path / "t", "winner,loser,caption\n10.png,200.png,x\n", "train.csv")
    (Path(path).parent / "._train.csv").write_bytes(b"\0\5\26\7")
    assert len(TablePairs(str(Path(path).parent), ORDERED)) == 1


@pytest.mark.skipif(shutil.which("iconv") is None, reason="the printed command is run")
def test_another_encoding_is_named_with_the_command_that_converts(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "t", "winner,loser,caption\n"))
    text = "winner,loser,caption\n10.png,200.png,café\n"
    for encoding in ("latin1", "utf-16", "utf-16le"):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(UserError) as caught:
            TablePairs(str(path), ORDERED)
        command = str(caught.value).partition("as by: ")[2].partition(", and")[0]
        assert command.startswith(f"iconv -f {encoding} ")
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        assert (tmp_path / "utf8.csv").read_text("utf-8-sig") == text


def test_a_file_of_another_kind_is_known_by_its_content(tmp_path: Path) -> None:
    path = Path(parquet(tmp_path / "t", shard(pa.array(["x"]))))
    named = next(path.glob("*.parquet")).rename(path / "pairs.csv")
    with pytest.raises(UserError, match="by its content it is a parquet file: give it the ending"):
        TablePairs(str(named), ORDERED)


def test_lists_in_the_column_of_preferences_are_told(tmp_path: Path) -> None:
    votes = {"img_a": ["10.png"], "img_b": ["200.png"], "choice": [[1, 0]], "caption": ["x"]}
    path = parquet(tmp_path / "t", votes)
    for source in (TablePairs, StreamPairs):
        with pytest.raises(UserError, match=r"'choice' \(columns.preferred\) holds list<"):
            source(path, ORDERED)


def test_of_many_or_long_columns_a_message_names_a_few(tmp_path: Path) -> None:
    path = written(tmp_path / "t", ",".join(["x" * 5_000, *map(str, range(400))]) + "\n")
    Path(path).write_text(Path(path).read_text() + "1" + ",1" * 400)
    with pytest.raises(UserError, match="and 381 more") as caught:
        TablePairs(path, ORDERED)
    assert len(str(caught.value)) < 500 + len(path)


COLUMNS = "winner,loser,caption"
OBJECT = '{"winner": "10.png", "loser": "200.png", "caption": "a, b; c|d"}'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.tsv", "winner\tloser\tcaption\n10.png\t200.png\ta, b; c|d\n"),
        ("PAIRS.CSV", f'{COLUMNS}\n10.png,200.png,"a, b; c|d"\n'),
        ("pairs.csv", f'{COLUMNS}\r10.png,200.png,"a, b; c|d"\r'),
        ("pairs.csv", 'winner, loser, caption\n10.png, 200.png, "a, b; c|d"\n'),
        ("pairs.csv", 'winner;loser;caption;"size; px"\n10.png;200.png;"a, b; c|d";1,5\n'),
        ("pairs.csv", "winner;loser;caption;size, px\n10.png;200.png;\"a, b; c|d\";1,5\n"),
        ("pairs.csv", 'sep=;\nwinner;loser;caption\n10.png;200.png;"a, b; c|d"\n'),
        ("pairs.csv", '\n,winner,loser,caption,,\n0,10.png,200.png,"a, b; c|d",,\n'),
        ("pairs.json", f"{OBJECT}\n{OBJECT}\n"),
        ("pairs.jsonl", f"\n{OBJECT}\n\n".replace("10.png", ".\\\\10.png")),
    ],
)  # fmt: skip
def test_text_as_programs_and_people_write_it(tmp_path: Path, name: str, text: str) -> None:
    assert {*told(written(tmp_path / "t", text, name))} == {(10, 200, "a, b; c|d")}


def lines(*rows: Mapping[str, Any]) -> str:
    return "".join(
        json.dumps({"winner": "10.png", "loser": "200.png"} | row) + "\n" for row in rows
    )


def test_numbers_in_json_are_captions_as_written(tmp_path: Path) -> None:
    text = lines({"caption": "x"}).replace('"x"', "0.50") + lines({"caption": 1984})
    path = written(tmp_path / "t", text, "pairs.jsonl")
    assert told(path) == [(10, 200, "0.50"), (10, 200, "1984")]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cell_that_is_null_or_missing_is_a_bad_row_of_a_stream(
    tmp_path: Path, workers: int
) -> None:
    rows = [{"caption": f"c{i}"} for i in range(70)]
    rows[40] = {"caption": None}  # the types of a batch are not those of its first rows
    path = written(tmp_path / "t", lines(*rows[:60], {}, *rows[60:]), "pairs.jsonl")
    data = PairDataModule(
        StreamPairs(path, ORDERED, buffer_size=1), StreamHead(path, ORDERED, rows=9),
        micro_batch=4, effective_batch=4, max_steps=17, num_workers=workers,
        transform=PairCrop(8), on_bad_row="skip",
    )  # fmt: skip
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=0, world_size=1, accumulate_grad_batches=1, global_step=0
    )
    batches = [data.on_before_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    assert [p for batch in batches for p in batch.prompts][:66] == [
        "c41" if i == 40 else f"c{i - (i > 60)}" if i != 60 else "c60" for i in range(66)
    ]
    assert {bad.reason for bad in data.skipped_rows()} == {"no caption (null)"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"caption": ["a", "b"]}, "column 'caption' holds a list; one text is needed"),
        ({"caption": "\ud83d"}, "column 'caption' holds half a character"),
        ({"winner": [1, 2]}, "column 'winner' holds a list; a path, base64"),
    ],
)
def test_cells_that_are_no_text_are_told_by_file_and_line(
    tmp_path: Path, row: Mapping[str, Any], said: str
) -> None:
    path = written(tmp_path / "t", lines({"caption": "x"}, {"caption": "y"} | row), "pairs.jsonl")
    for source in (TablePairs, StreamPairs):
        with pytest.raises(UserError) as caught:
            source(path, ORDERED, holdout=0.5, part="train")
        assert str(caught.value).startswith(f"{path} row 1 (line 2): {said}")


def test_an_image_that_is_written_out_may_be_large(tmp_path: Path) -> None:
    large = base64.b64encode(png(10) + bytes(150_000)).decode()
    path = written(tmp_path / "t", f"{COLUMNS}\n{large},200.png,x\n")
    assert told(path) == [(10, 200, "x")]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "no image (winner: an empty cell)"),
        (
            "https://a.b/c.png",
            "no image file but an address; fetch it, and give its path (",
        ),
        ("data:image/png;base64,%%", "no image file but a data URI; it should be base64 (winner: "),
    ],
)
def test_what_is_no_image_is_told(tmp_path: Path, cell: str, said: str) -> None:
    path = written(tmp_path / "t", f'{COLUMNS}\n"{cell}",200.png,x\n')
    with pytest.raises(BadRow) as caught:
        TablePairs(path, ORDERED)[0]
    assert caught.value.reason.startswith(said)


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_images_may_be_of_another_kind_in_every_shard(tmp_path: Path) -> None:
    def images(grey: int) -> list[pa.Array]:
        return [
            pa.array([f"{grey}.png"]),
            pa.array([png(grey)]),
            pa.array([png(grey)], pa.large_binary()),
            pa.array([{"bytes": png(grey), "path": None}], STRUCT),
            pa.array([{"path": f"{grey}.png"}]),
            pa.array([base64.b64encode(png(grey)).decode()]),
        ]

    sides = zip(images(10), images(200), strict=True)
    shards = [{"winner": better, "loser": worse, "caption": ["x"]} for better, worse in sides]
    path = parquet(tmp_path / "t", *shards)
    assert told(path) == [(10, 200, "x")] * 6
    lone = parquet(tmp_path / "lone", shards[4])
    assert told(lone) == [(10, 200, "x")]
    assert len({TablePairs(p, ORDERED).fingerprint() for p in (path, lone)}) == 2


def test_a_number_that_is_none_is_told_by_path_and_row_or_caption(tmp_path: Path) -> None:
    rows = [f"10.png,200.png,1,c{i}" for i in range(50)] + ["10.png,200.png,left,odd one"]
    path = written(tmp_path / "t", "\n".join(["img_a,img_b,label_0,caption", *rows]))
    columns = Columns(**TWO, label_0="label_0")
    said = f"{path}: column 'label_0' should hold numbers; "
    with pytest.raises(UserError) as caught:
        TablePairs(path, columns)
    assert str(caught.value) == f"{said}row 50 has 'left'"
    with pytest.raises(UserError) as caught:
        StreamPairs(path, columns, buffer_size=1)[50]
    assert str(caught.value) == f"{said}the row of 'odd one' has 'left'"


def test_captions_of_saved_tables_and_arrow_files_are_text(tmp_path: Path) -> None:
    with_images(tmp_path / "t")
    made = datasets.Dataset.from_dict(shard([1984, 5]))
    made.save_to_disk(tmp_path / "saved")
    shutil.copy(next((tmp_path / "saved").glob("*.arrow")), tmp_path / "t" / "train.arrow")
    assert told(str(tmp_path / "t")) == [(10, 200, "1984"), (10, 200, "5")]
    saved = TablePairs(str(tmp_path / "saved"), ORDERED, holdout=0.5, part="train")
    assert {saved._row(i)["caption"] for i in range(len(saved))} <= {"1984", "5"}
    made.select([]).save_to_disk(tmp_path / "empty")
    with pytest.raises(UserError, match="empty: no rows"):
        TablePairs(str(tmp_path / "empty"), ORDERED)


def test_what_lies_beside_a_table_is_left_alone(tmp_path: Path) -> None:
    path = Path(written(tmp_path / "t", f"{COLUMNS}\n10.png,200.png,x\n"))
    (path.parent / "dataset_infos.json").write_text("{}")
    (path.parent / ".ipynb_checkpoints").mkdir()
    (path.parent / ".ipynb_checkpoints" / "pairs-checkpoint.csv").write_text("x")
    assert told(str(path.parent)) == [(10, 200, "x")]


def test_cells_of_csv_on_the_hub_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is opened as a hub id is: what the hub sends is read by `datasets` alike."""
    path = tmp_path / "t" / "pairs.csv"
    path.parent.mkdir()
    path.write_text(f"{COLUMNS}\n10.png,200.png,1984\n10.png,200.png,NA\n")
    monkeypatch.setattr("sdpo_exp.data.passing._is_here", lambda *_: False)
    stream = StreamPairs(str(path.parent), ORDERED, buffer_size=1)
    assert [raw.table["caption"][0].as_py() for raw in islice(stream._rows, 2)] == ["1984", "NA"]
