"""Progress of long work: lines now and then in a pipe, one live line on a terminal."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from sdpo_exp.terminal import progress as module
from sdpo_exp.terminal.pipes import guarded_streams
from sdpo_exp.terminal.progress import Progress, on_behalf_of
from sdpo_exp.terminal.screen import painted


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A terminal of a width."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    monkeypatch.setattr("sdpo_exp.terminal.pace.Pace.__init__.__defaults__", (0, clock.monotonic))
    return clock


def go(clock: Clock, progress: Progress, seconds: float) -> None:
    with progress:
        for _ in range(progress.total):
            clock.now += seconds
            progress.advance()


def test_a_pipe_gets_a_line_every_ten_seconds_and_the_last(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    go(clock, Progress("images", 10, "image"), 4.0)
    assert capsys.readouterr().out.splitlines() == [
        "images: 3/10 images, 0.25 a second, 28 s left",
        "images: 6/10 images, 0.25 a second, 16 s left",
        "images: 9/10 images, 0.25 a second, 4 s left",
        "images: 10/10 images, 0.25 a second",
    ]


def test_nothing_is_said_of_short_work_or_by_other_ranks(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    go(clock, Progress("probe", 10, "pair", quiet=3.0), 0.1)
    go(clock, Progress("probe", 10, "pair", shown=False), 9.0)
    assert capsys.readouterr().out == ""
    with on_behalf_of("tuned"):
        go(clock, Progress("batches", 1, "micro-batch", quiet=3.0), 9.0)
    assert capsys.readouterr().out == "tuned batches: 1/1 micro-batches, 0.111 a second\n"


def test_a_terminal_has_one_line_that_other_words_replace(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    with guarded_streams():
        progress = Progress("images", 4, "image", quiet=1.0)
        with progress:
            clock.now = 2.0
            progress.advance()
            print("a word")
            clock.now = 4.0
            progress.advance()
    assert screen.getvalue() == (
        "\rimages: 1/4 images 6s left\x1b[K\r\x1b[Ka word\n"
        "\rimages: 2/4 images 4s left\x1b[K\r\x1b[K"
    )
    assert max(map(len, screen.getvalue().replace("\x1b[K", "").split("\r"))) < 30
    assert module.columns() == 30


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert painted("worse", "red") == "worse"
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert painted("worse", "red") == "\x1b[31mworse\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("worse", "red") == "worse"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert painted("worse", "red") == "worse"


def test_a_reader_who_leaves_ends_the_command_without_a_word() -> None:
    program = """
from sdpo_exp.terminal.pipes import guarded_streams
with guarded_streams():
    for _ in range(1_000_000):
        print("a line")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 141  # as a shell says of a program that SIGPIPE ended
