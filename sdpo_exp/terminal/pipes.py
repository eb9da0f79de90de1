"""Standard streams whose reader may go away: `| head` ends a command, and without a word."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

from sdpo_exp.terminal.screen import LIVE

_EXIT = 128 + 13  # as a shell says of a program that SIGPIPE ended


class ReaderGone(KeyboardInterrupt):
    """Nobody reads any more: the user has seen enough, and the command ends as by Ctrl-C."""


class Guarded:
    """A standard stream that clears the live line before it writes.

    Args:
        unguarded: the stream itself; all but writing is left to it.
    """

    def __init__(self, unguarded: TextIO) -> None:
        self.unguarded = unguarded

    def write(self, text: str) -> int:
        """Write.

        Raises:
            ReaderGone: the pipe is closed at its other end.
        """
        if text:
            LIVE.clear()
        with _noticing(self.unguarded):
            return self.unguarded.write(text)

    def flush(self) -> None:
        """Flush.

        Raises:
            ReaderGone: as `write`.
        """
        with _noticing(self.unguarded):
            self.unguarded.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Guard standard output and error meanwhile, up to what is still in their buffers.

    Raises:
        SystemExit: with status 141, once the reader of either has gone.
    """
    out, err = Guarded(sys.stdout), Guarded(sys.stderr)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                yield
            finally:
                LIVE.clear()
                out.flush()
                err.flush()
    except ReaderGone:
        sys.exit(_EXIT)


@contextmanager
def _noticing(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _send_nowhere(stream)
        raise ReaderGone from None


def _send_nowhere(stream: TextIO) -> None:
    """So that neither last words nor Python's own flush at its end break once more."""
    broken = os.fstat(stream.fileno())
    null = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2, stream.fileno()):
        if os.path.samestat(os.fstat(number), broken):
            os.dup2(null, number)
    os.close(null)
