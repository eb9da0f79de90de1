"""Columns of usual names are found and told; what could mean two things is asked for."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sdpo_exp.data.columns import Columns, Rules, select
from sdpo_exp.data.preferred import CHOICES, explained, meanings
from sdpo_exp.data.stream import StreamPairs
from sdpo_exp.data.table import TablePairs
from sdpo_exp.data.usual_columns import usual_columns
from sdpo_exp.errors import UserError
from tests.data.test_own_tables import cache, told, written  # noqa: F401

DEFAULT = Columns(winner="winner", loser="loser")


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("chosen rejected prompt", "chosen is winner, rejected is loser"),
        ("win lose text", "text is caption, win is winner, lose is loser"),
        ("jpg_w jpg_l caption", "jpg_w is winner, jpg_l is loser"),
        ("jpg_0 jpg_1 label_0 caption", "jpg_0 is image_0, jpg_1 is image_1"),
        ("Image_A Image_B Choice Prompt", "Image_A is image_0"),
        ("left right label caption", "label is preferred"),
        ("imageA imageB Label_0 Caption", "imageA is image_0, imageB is image_1, Label_0 is label"),
        ("image_path_1 image_path_2 better prompt", "image_path_2 is image_1, better is preferred"),
        ("win_image lose_image caption", "win_image is winner, lose_image is loser"),
        ("preferred rejected caption", "preferred is winner, rejected is loser"),
        ("winner loser caption extra", None),
    ],
)
def test_usual_names_are_found(present: str, expected: str | None) -> None:
    columns, assumed = usual_columns(DEFAULT, present.split(), "t")
    columns.check(present.split(), "t")
    assert assumed == expected or (expected is not None and expected in str(assumed))


@pytest.mark.parametrize(
    ("present", "said"),
    [
        ("chosen rejected win lose caption", "chosen and rejected, or win and lose could be"),
        (
            "a b c",
            "a usual name for captions; .*; no columns of a usual name for the images",
        ),
        ("x y caption", "give data.train.columns.winner=<name> data.train.columns.loser=<name>"),
        ("img_a img_b caption", "no columns of a usual name for what is preferred"),
        ("img_a img_b caption choice label", "choice, or label could be what is preferred"),
    ],
)
def test_what_is_not_clear_is_asked_for(present: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        usual_columns(DEFAULT, present.split(), "t")


def test_a_name_that_was_given_wins(tmp_path: Path) -> None:
    columns, assumed = usual_columns(
        Columns(winner="mine", loser="theirs", caption="words"), ["chosen", "rejected"], "t"
    )
    assert (columns.winner, assumed) == ("mine", None)
    with pytest.raises(UserError, match="no column 'words'"):
        columns.check(["chosen", "rejected"], "t")


IMAGES = ("img_a", "img_b")


@pytest.mark.parametrize(
    ("values", "column", "images"),
    [
        (["a", "b", "tie", None], "choice", IMAGES),
        (["img_a", "IMG_B", "same", ""], "label", IMAGES),
        (["left", "right", "both", "none"], "preferred", ("left", "right")),
        (["0", "1", "", None], "preferred", ("jpg_0", "jpg_1")),
        ([1.0, 2.0, None, None], "winner", ("image_1", "image_2")),
        (["left", "right", "n/a", "both_bad"], "choice", IMAGES),
        (["img_0", "img_1", "", None], "choice", IMAGES),
        (["model_a", "model_b", "tie", None], "winner", ("jpg_0", "jpg_1")),
        (["model_0", "model_1", "", None], "vote", IMAGES),
        ([1, 2, None, None], "label", IMAGES),
    ],
)
def test_words_mean_the_image_that_they_name(
    values: list[Any], column: str, images: tuple[str, str]
) -> None:
    table = pa.table(
        {
            "caption": ["x"] * 4,
            images[0]: [b""] * 4,
            images[1]: [b""] * 4,
            column: pa.array(values),
        }
    )
    columns = Columns(image_0=images[0], image_1=images[1], preferred=column)
    found = select(table, columns, Rules())
    assert (found.rows.tolist(), found.order.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (["0", "1"], "label"),
        (["0", "1"], "vote"),
        (["0"], "vote"),
        (["1"], "vote"),
        (["true", "false"], "preferred"),
        (["x"], "label"),
        (["0.5", "1"], "preferred"),
        (["-1", "1", "0"], "choice"),
    ],
)
def test_what_may_mean_either_is_asked_for(values: list[str], column: str) -> None:
    with pytest.raises(UserError, match=rf"do its values {', '.join(values)} mean\? Give"):
        meanings(values, column, ("jpg_0", "jpg_1"), None)


def test_words_of_two_kinds_and_lone_numbers_are_asked_for() -> None:
    for values, unknown in ((["a", "right"], "right"), (["a", "c"], "c"), (["1"], "1")):
        with pytest.raises(UserError, match=rf"do its values {unknown} mean\? Give"):
            meanings(values, "choice", IMAGES, None)


@pytest.mark.parametrize(
    "values", [["yes", "no", "meh"], ["> left", "é", "don't"], ["a, b", "{x}"]]
)
def test_what_a_question_prints_is_an_answer_that_hydra_takes(values: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        meanings(values, "vote", IMAGES, None)
    (word,) = shlex.split(str(caught.value).partition("(image_1): ")[2])
    told = OverridesParser.create().parse_override(word).value()
    assert meanings(values, "vote", IMAGES, told) == dict(zip(values, CHOICES, strict=False))


def test_a_map_adds_to_what_names_tell_and_outdoes_them() -> None:
    told = {"c": "tie", "b": "image_0", True: "image_1"}
    found = meanings(["a", "b", "c", "yes"], "choice", IMAGES, told)
    assert found == {"a": "image_0", "b": "image_0", "c": "tie", "yes": "image_1"}


def test_a_map_may_list_the_words_of_an_image() -> None:
    told = {"image_1": ["x", "y"], "image_0": "z"}
    found = meanings(["x", "y", "z"], "choice", IMAGES, told)
    assert found == {"x": "image_1", "y": "image_1", "z": "image_0"}


PICKAPIC = {"image_0": "jpg_0", "image_1": "jpg_1", "label_0": "label_0"}


@pytest.mark.parametrize(
    ("columns", "present", "roles"),
    [
        ({}, "image_a image_b choice prompt", "image_0=image_a image_1=image_b preferred=choice"),
        ({}, "winner loser prompt", "winner=winner loser=loser"),
        ({}, "jpg_0 jpg_1 label_0 prompt", "image_0=jpg_0 image_1=jpg_1 label_0=label_0"),
        (
            {"preferred": "vote"},
            "jpg_0 jpg_1 vote prompt",
            "image_0=jpg_0 image_1=jpg_1 preferred=v",
        ),
        ({"winner": "x", "loser": "y"}, "x y prompt", "winner=x loser=y"),
        ({"values": {"x": "tie"}}, "left right label prompt", "image_0=left image_1=right pref"),
    ],
)
def test_columns_of_pick_a_pic_give_way_to_what_is_told_or_there(
    columns: dict[str, Any], present: str, roles: str
) -> None:
    found, _ = usual_columns(Columns(**PICKAPIC | columns), present.split(), "t")
    told = " ".join(f"{role}={name}" for role, name in found.named.items() if role != "caption")
    assert told.startswith(roles)
    assert found.caption == "prompt"


def test_what_a_word_means_is_settled_for_a_whole_stream(tmp_path: Path) -> None:
    rows = [f"10.png,200.png,{'1' if i < 60 else '2'},c{i}" for i in range(80)]
    path = written(tmp_path / "t", "\n".join(["img_a,img_b,choice,caption", *rows]))
    stream = StreamPairs(path, DEFAULT, buffer_size=1)
    assert [stream[i].winner.getpixel((0, 0)) for i in (0, 59, 60, 79)] == [
        (10, 10, 10), (10, 10, 10), (200, 200, 200), (200, 200, 200)
    ]  # fmt: skip


def test_a_map_says_what_words_mean() -> None:
    told = {True: "image_1", False: "image_0", "same": "tie"}
    found = meanings([True, False, "same", None], "better", IMAGES, told)
    assert found == {"true": "image_1", "false": "image_0", "same": "tie", "": "tie"}
    assert explained(found, "better", IMAGES) == (
        "better: true prefers img_b, false prefers img_a, same is a tie, nothing is a tie"
    )
    with pytest.raises(UserError, match=r"other.* mean\? Give"):
        meanings(["other"], "better", IMAGES, told)
    with pytest.raises(UserError, match="means 'first'; it should mean one of image_0"):
        meanings(["a"], "better", IMAGES, {"a": "first"})


def test_a_run_says_what_it_assumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = (
        "img_a,img_b,choice,prompt\n10.png,200.png,a,x\n10.png,200.png,b,y\n10.png,200.png,tie,z\n"
    )
    path = written(tmp_path / "t", text)
    with caplog.at_level(logging.INFO, "sdpo_exp"):
        TablePairs(path, DEFAULT)
    said = "\n".join(caplog.messages)
    assert "by their usual names prompt is caption, img_a is image_0, img_b is image_1" in said
    assert "choice: a prefers img_a, b prefers img_b, tie is a tie" in said
    assert told(path, DEFAULT) == [(10, 200, "x"), (200, 10, "y")]
