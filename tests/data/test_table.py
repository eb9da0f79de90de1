"""Tables of every format give the pairs that were put in, and nothing is read that need not be."""

from __future__ import annotations

import io
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sdpo_exp.data.columns import Columns
from sdpo_exp.data.table import TablePairs
from sdpo_exp.errors import BadRow, UserError
from tests.data.pictures import FLAWS, PICKAPIC, ROWS, label, pickapic_rows, stored, write_pickapic

ORDERED = Columns(winner="winner", loser="loser")
COLOURS = ["red", "lime", "blue", "white", "black", "yellow"]


def png(name: str) -> bytes:
    return stored(Image.new("RGB", (4, 4), name), "PNG")


def colour(image: Image.Image) -> Any:
    return image.getpixel((0, 0))


def rgb(name: str) -> Any:
    return Image.new("RGB", (1, 1), name).getpixel((0, 0))


def table(path: Path | str, columns: Columns = ORDERED, **options: Any) -> TablePairs:
    return TablePairs(str(path), columns, cache_dir=str(Path(path).parent / "cache"), **options)


@pytest.fixture(scope="module")
def pickapic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pickapic(tmp_path_factory.mktemp("pickapic") / "pairs")


def test_a_thousand_rows_are_chosen_ordered_and_counted(
    pickapic: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        pairs = table(pickapic, PICKAPIC)
    ties = [i for i in range(ROWS) if label(i) in (0.5, None)]
    assert len(ties) == 200
    assert pairs.counts["ties"] == 200
    assert len(pairs) == pairs.counts["kept"] == 800
    assert pairs.rows.tolist() == [i for i in range(ROWS) if i not in ties]
    assert pairs.description == f"{pickapic} (train): 1,000 rows, 200 ties, 800 kept"
    assert pairs.description in caplog.text
    rows = pickapic_rows()
    for index in (0, 1, 2, 3, 500, 799 - 2):
        row = int(pairs.rows[index])
        first, second = rows[row]["jpg_0"], rows[row]["jpg_1"]
        winner, loser = (first, second) if row % 3 == 0 else (second, first)
        got = pairs[index]
        assert got.prompt == f"caption {row // 4}"
        for image, data in ((got.winner, winner), (got.loser, loser)):
            expected = np.asarray(Image.open(io.BytesIO(data)))
            assert np.array_equal(np.asarray(image), expected)


def test_every_bad_row_is_told_by_its_number_in_the_table(pickapic: Path) -> None:
    pairs = table(pickapic, PICKAPIC)
    told = {}
    for index in range(len(pairs)):
        try:
            pairs[index]
        except BadRow as error:
            told[error.row] = error.reason
    gap = "aspect ratios"  # the transform's business
    expected = {f"{pickapic} row {i}": why for i, (_, why) in FLAWS.items() if gap not in why}
    assert told.keys() == expected.keys()
    assert {row: told[row][: len(why)] for row, why in expected.items()} == expected


def test_max_samples_counts_pairs(pickapic: Path) -> None:
    pairs = table(pickapic, PICKAPIC, max_samples=5)
    assert pairs.rows.tolist() == [0, 1, 2, 3, 4]
    assert "5 kept, 795 beyond max_samples" in pairs.description
    with pytest.raises(IndexError, match="pair 5 of 5"):
        pairs[5]


def test_a_holdout_splits_by_caption(pickapic: Path) -> None:
    sides = [table(pickapic, PICKAPIC, holdout=0.2, part=p) for p in ("train", "validation")]
    captions = [{row // 4 for row in side.rows.tolist()} for side in sides]
    assert not captions[0] & captions[1] - {50 // 4, 60 // 4}  # those with rows of no caption
    assert sum(len(side) for side in sides) == 800
    assert 100 < len(sides[1]) < 220
    assert f"{len(sides[1])} other part" in sides[0].description


def rows_of_colours(as_path: Path | None = None) -> list[dict[str, Any]]:
    """Row i: colour i wins over colour i + 1."""
    rows = []
    for i in range(5):
        pair = {"winner": COLOURS[i], "loser": COLOURS[i + 1]}
        if as_path is None:
            rows.append({**{k: png(v) for k, v in pair.items()}, "caption": f"c{i}"})
            continue
        for name in pair.values():
            (as_path / f"{name}.png").write_bytes(png(name))
        rows.append({**{k: f"{v}.png" for k, v in pair.items()}, "caption": f"c{i}"})
    return rows


def assert_colours(pairs: TablePairs) -> None:
    assert len(pairs) == 5
    for i, pair in enumerate(pairs[j] for j in range(5)):
        assert (colour(pair.winner), colour(pair.loser)) == (rgb(COLOURS[i]), rgb(COLOURS[i + 1]))
        assert pair.prompt == f"c{i}"


@pytest.mark.parametrize(
    "kind", ["parquet", "csv", "jsonl", "image_feature", "saved", "saved_split"]
)
def test_every_format(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pairs"
    path.mkdir()
    if kind in ("parquet", "csv", "jsonl"):
        rows = rows_of_colours(None if kind == "parquet" else path)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path / "x.parquet")
    elif kind == "csv":
        lines = ["caption,winner,loser", *("{caption},{winner},{loser}".format(**r) for r in rows)]
        (path / "x.csv").write_text("\n".join(lines))
    elif kind == "jsonl":
        (path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    else:
        image = datasets.Image()
        features = datasets.Features(
            {"winner": image, "loser": image, "caption": datasets.Value("string")}
        )
        made = datasets.Dataset.from_list(rows_of_colours(), features=features)
        if kind == "image_feature":
            made.to_parquet(path / "train.parquet")
        elif kind == "saved":
            made.save_to_disk(path)
        else:
            datasets.DatasetDict({"train": made, "other": made.select([0])}).save_to_disk(path)
    assert_colours(table(path))


def test_a_missing_split_of_a_saved_table_is_told(tmp_path: Path) -> None:
    datasets.Dataset.from_list(rows_of_colours()).save_to_disk(tmp_path / "pairs")
    with pytest.raises(UserError, match="no split validation; it has train"):
        table(tmp_path / "pairs", split="validation")


def test_missing_columns_unreadable_files_and_empty_choices_are_told(tmp_path: Path) -> None:
    path = tmp_path / "pairs"
    path.mkdir()
    pq.write_table(pa.Table.from_pylist(rows_of_colours()), path / "train.parquet")
    with pytest.raises(
        UserError, match=r"no column 'best' \(columns.winner\).*winner, loser, capt"
    ):
        table(path, Columns(winner="best", loser="loser"))
    rows = [{**row, "m": 0.1} for row in rows_of_colours()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    named = Columns(winner="winner", loser="loser", margin="m")
    with pytest.raises(UserError, match=r"no pair left \(5 rows, 0 ties, 5 below min_margin"):
        table(tmp_path / "m.parquet", named, min_margin=0.5)
    (path / "train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"train.parquet: cannot be read as parquet"):
        table(path)


def test_the_fingerprint_is_of_the_pairs_and_not_of_their_place(tmp_path: Path) -> None:
    rows = pickapic_rows()[:120]

    def of(name: str, changed: list[dict[str, Any]], **options: Any) -> str:
        write_pickapic(tmp_path / name, changed)
        return table(tmp_path / name, PICKAPIC, **options).fingerprint()

    original = of("a", rows)
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    assert table(tmp_path / "elsewhere" / "b", PICKAPIC).fingerprint() == original
    assert of("without a tie", [*rows[:5], *rows[6:]]) == original

    def with_row_3(**values: Any) -> list[dict[str, Any]]:
        return [*rows[:3], {**rows[3], **values}, *rows[4:]]

    changes = {
        "caption": with_row_3(caption="other"),
        "label": with_row_3(label_0=0.0),
        "image": with_row_3(jpg_1=rows[4]["jpg_1"]),
        "same length": with_row_3(jpg_0=rows[3]["jpg_0"][:-1] + b"?"),
        "order": [rows[1], rows[0], *rows[2:]],
        "fewer": rows[:-1],
    }
    prints = {name: of(name, changed) for name, changed in changes.items()}
    assert len({original, *prints.values()}) == len(changes) + 1


def test_the_fingerprint_looks_at_a_thousand_pairs_from_the_first_to_the_last(
    tmp_path: Path,
) -> None:
    # 2,998 pairs at steps of 3: every third pair, and both ends.
    rows = [{"caption": f"c{i}", "winner": f"{i}.png", "loser": f"{i}.png"} for i in range(2998)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")

    def of_table() -> str:
        return table(tmp_path / "train.parquet").fingerprint()

    prints = [of_table()]
    for looked_at in (0, 3, 2997, 1, 2996):
        image = tmp_path / f"{looked_at}.png"
        image.write_bytes(b"an image")
        prints.append(of_table())
        image.unlink()
    assert len(set(prints)) == 4
    assert prints[0] == prints[4] == prints[5]


def test_half_a_split_is_told_with_its_split_and_the_keys_to_set(pickapic: Path) -> None:
    way_out = r"\(validation_unique\): .* give data.validation.part=validation data.validation.spl"
    with pytest.raises(UserError, match=way_out):
        table(pickapic, PICKAPIC, split="validation_unique", holdout=0.3)
