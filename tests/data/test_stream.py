"""A stream gives the table's pairs, each once per epoch, and is a function of the index."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sdpo_exp.data.columns import Columns
from sdpo_exp.data.datamodule import PairDataModule
from sdpo_exp.data.holdout import is_held_out
from sdpo_exp.data.sampler import BatchLayout, StepSampler
from sdpo_exp.data.stream import StreamPairs
from sdpo_exp.data.stream_head import StreamHead
from sdpo_exp.data.transform import PairCrop
from sdpo_exp.errors import BadRow, UserError
from sdpo_exp.types import PairBatch, PairKey
from tests.data.pictures import PICKAPIC, stored
from tests.harness import small_module, small_trainer

ROWS = 60
TIES = {7, 8, 30}


@pytest.fixture(autouse=True)
def _library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`datasets` rests five seconds after an epoch of several files, and leaves locks at home."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    """Row i: grey of value i beats black where i is even, and black beats it where i is odd."""
    black = stored(Image.new("RGB", (4, 4)), "PNG")
    made = []
    for i in range(ROWS):
        grey = stored(Image.new("RGB", (4, 4), (i,) * 3), "PNG")
        label = 0.5 if i in TIES else float(i % 2 == 0)
        row = {"jpg_0": grey, "jpg_1": black, "label_0": label, "caption": f"row {i}"}
        made.append(row | changed.get(f"row_{i}", {}))
    return made


def write(folder: Path, content: list[dict[str, Any]]) -> str:
    """Three files of 20 rows."""
    folder.mkdir()
    for i in range(3):
        part = pa.Table.from_pylist(content[20 * i : 20 * i + 20])
        pq.write_table(part, folder / f"train-{i}.parquet", row_group_size=6)
    return str(folder)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("stream") / "pairs", rows())


def stream(path: str, **options: Any) -> StreamPairs:
    return StreamPairs(path, PICKAPIC, **{"buffer_size": 10, **options})


def numbers(source: StreamPairs, indices: range) -> list[int]:
    """Which rows come, checked for their images and their order."""
    found = []
    for index in indices:
        pair = source[index]
        row = int(pair.prompt.removeprefix("row "))
        shades = [image.getpixel((0, 0))[0] for image in (pair.winner, pair.loser)]  # type: ignore[index]
        assert shades == ([row, 0] if row % 2 == 0 else [0, row])
        found.append(row)
    return found


KEPT = [i for i in range(ROWS) if i not in TIES]


def test_every_epoch_has_each_pair_once_in_another_order(path: str) -> None:
    source = stream(path)
    size = len(KEPT)
    epochs = [numbers(source, range(e * size, (e + 1) * size)) for e in range(3)]
    assert all(sorted(epoch) == KEPT for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, KEPT]}) == 4


def test_the_order_is_that_of_datasets(path: str) -> None:
    files = [f"{path}/train-{i}.parquet" for i in range(3)]
    plain = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    plain = plain.shuffle(seed=4, buffer_size=10)
    expected = []
    for epoch in range(2):
        plain.set_epoch(epoch)
        expected += [int(row["caption"][4:]) for row in plain if row["label_0"] != 0.5]
    assert numbers(stream(path, seed=4), range(2 * len(KEPT))) == expected


def test_a_pair_is_a_function_of_its_index(path: str) -> None:
    straight = numbers(stream(path), range(140))
    source = stream(path)
    for index in (0, 5, 100, 99, 3, 139, 20):  # forwards, back a little, back a lot
        assert numbers(source, range(index, index + 1)) == [straight[index]]
    assert numbers(stream(path, seed=1), range(140)) != straight


def test_skipping_decodes_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sdpo_exp.data.rows as rows_module

    decoded = []
    real = rows_module.decode
    monkeypatch.setattr(rows_module, "decode", lambda *a: decoded.append(a) or real(*a))
    stream(path)[110]
    assert len(decoded) == 2


def test_filters_are_those_of_a_table(path: str) -> None:
    held = [i for i in KEPT if is_held_out(f"row {i}", 0.3)]
    for part, expected in (("validation", held), ("train", sorted(set(KEPT) - set(held)))):
        source = stream(path, holdout=0.3, part=part)
        assert sorted(numbers(source, range(len(expected)))) == expected


def test_the_head_and_the_rest_share_no_row(path: str) -> None:
    head = StreamHead(path, PICKAPIC, rows=25)
    assert [head[i].prompt for i in range(len(head))] == [f"row {i}" for i in KEPT if i < 25]
    assert head.row_name(7) == f"{path} row 9"
    rest = [i for i in KEPT if i >= 25]
    source = stream(path, skip_first=25)
    for epoch in range(2):
        span = range(epoch * len(rest), (epoch + 1) * len(rest))
        assert sorted(numbers(source, span)) == rest


def module_of(path: str, **changes: Any) -> PairDataModule:
    parts: dict[str, Any] = {
        "train": stream(path),
        "validation": StreamHead(path, PICKAPIC, rows=10),
        "micro_batch": 4,
        "effective_batch": 8,
        "max_steps": 12,
        "transform": PairCrop(8),
    }
    return PairDataModule(**{**parts, **changes})


class _Stage:
    global_rank, world_size, accumulate_grad_batches = 0, 1, 1

    def __init__(self, step: int) -> None:
        self.global_step = step


def batches_of(data: PairDataModule, step: int = 0) -> list[PairBatch]:
    data.trainer = _Stage(step)  # type: ignore[assignment]
    data.setup("fit")
    return [data.on_before_batch_transfer(batch, 0) for batch in data.train_dataloader()]


def test_batches_follow_the_stream_with_workers_and_on_resuming(path: str) -> None:
    batches = batches_of(module_of(path))
    expected = [f"row {i}" for i in numbers(stream(path), range(96))]
    assert [prompt for batch in batches for prompt in batch.prompts] == expected
    assert [key for batch in batches for key in batch.keys] == [PairKey(0, i, i) for i in range(96)]
    for other in (
        batches_of(module_of(path, num_workers=2)),
        batches_of(module_of(path, micro_batch=8)),
    ):
        assert [prompt for batch in other for prompt in batch.prompts] == expected
        images = [torch.cat([batch.winner for batch in found]) for found in (batches, other)]
        assert torch.equal(*images)
    resumed = batches_of(module_of(path, num_workers=2), step=9)
    assert [prompt for batch in resumed for prompt in batch.prompts] == expected[72:]


def test_bad_rows_are_stood_in_for_without_going_back(tmp_path: Path) -> None:
    flaws = {"row_12": {"jpg_0": b"", "caption": "flawed"}, "row_40": {"caption": None}}
    path = write(tmp_path / "pairs", rows(**flaws))
    data = module_of(path, on_bad_row="skip", max_steps=7)
    rewound = []
    source: Any = data.train
    real = source._rewind
    source._rewind = lambda: rewound.append(1) or real()
    batches = batches_of(data)
    assert not rewound
    reasons = sorted(skipped.reason for skipped in data.skipped_rows())
    assert reasons == ["empty image (jpg_0: zero bytes)", "no caption (null)"]
    assert all(skipped.row.startswith(f"{path} stream row ") for skipped in data.skipped_rows())
    assert any(skipped.row.endswith("[flawed]") for skipped in data.skipped_rows())
    assert len({prompt for batch in batches for prompt in batch.prompts}) >= 53


def test_a_stream_trains(path: str, tmp_path: Path) -> None:
    module = small_module()
    small_trainer(tmp_path, max_steps=12).fit(module, datamodule=module_of(path, num_workers=2))
    assert all(torch.isfinite(p).all() for p in module.policy.parameters())


def test_the_samplers_keys_of_an_endless_source_are_positions() -> None:
    sampler = StepSampler(None, 0, BatchLayout(2, 2), max_steps=2, start_step=1)
    assert [key.row for batch in sampler for key in batch] == [4, 5, 6, 7]


def test_a_stream_cannot_be_held_out(path: str) -> None:
    with pytest.raises(UserError, match=r"data.validation: an endless stream"):
        module_of(path, validation=stream(path)).setup("fit")
    with pytest.raises(TypeError, match="no length"):
        len(stream(path))


def test_what_is_wrong_is_told(path: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no column 'jpg_2' \(columns.image_1\); did you mean"):
        StreamPairs(path, Columns(image_0="jpg_0", image_1="jpg_2", label_0="label_0"))
    tied = write(tmp_path / "tied", [{**row, "label_0": 0.5} for row in rows()])
    with pytest.raises(UserError, match="no pair left in the whole stream"):
        stream(tied)[0]
    with pytest.raises(UserError, match="no pair among the first 5 rows"):
        StreamHead(tied, PICKAPIC, rows=5)
    datasets.Dataset.from_list(rows()[:3]).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="save_to_disk"):
        stream(str(tmp_path / "saved"))
    (tmp_path / "empty").mkdir()
    for source in (StreamPairs, StreamHead):
        assert source.absent(path=path, columns=None) is None
        assert "no table in it" in str(source.absent(path=str(tmp_path / "empty")))


def test_an_image_column_streams_without_being_decoded(tmp_path: Path) -> None:
    image = datasets.Image()
    features = datasets.Features(
        {"jpg_0": image, "jpg_1": image, "label_0": datasets.Value("float64")}
        | {"caption": datasets.Value("string")}
    )
    content = rows()
    content[3]["jpg_0"] = b"no image"
    (tmp_path / "pairs").mkdir()
    made = datasets.Dataset.from_list(content, features=features)
    made.to_parquet(tmp_path / "pairs" / "train.parquet")
    source = stream(str(tmp_path / "pairs"), buffer_size=1)
    with pytest.raises(BadRow, match=r"stream row 3 \[row 3\]: not an image"):
        source[3]
    assert numbers(source, range(4, 20)) == KEPT[4:20]


def test_the_fingerprint_is_of_pairs_and_choices(path: str, tmp_path: Path) -> None:
    original = stream(path).fingerprint()
    assert stream(write(tmp_path / "elsewhere", rows())).fingerprint() == original
    changed = write(tmp_path / "changed", rows(row_2={"caption": "other"}))
    others = [stream(changed), stream(path, seed=1), stream(path, buffer_size=11)]
    assert len({original, *(other.fingerprint() for other in others)}) == 4
    heads = [StreamHead(p, PICKAPIC, rows=20).fingerprint() for p in (path, changed)]
    assert heads[0] != heads[1]


def test_the_fingerprint_is_computed_once(tmp_path: Path) -> None:
    source = stream(write(tmp_path / "pairs", rows()))
    before = source.fingerprint()
    shutil.rmtree(tmp_path / "pairs")
    assert source.fingerprint() == before
