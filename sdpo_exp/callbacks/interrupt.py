"""Ctrl-C ends a training at a whole optimiser step, with a checkpoint of it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import lightning as L

from sdpo_exp.callbacks.steps import StepCallback
from sdpo_exp.training import PreferenceModule

_log = logging.getLogger(__name__)


class InterruptCheckpoint(StepCallback):
    """`last.ckpt` of the step in which an interrupt came, which then takes its course.

    To stand after all other callbacks. An interrupt in the middle of a step could leave half an
    update; a second one does not wait all the same.

    Args:
        dirpath: where to.
    """

    def __init__(self, dirpath: str) -> None:
        super().__init__()
        self.path = Path(dirpath) / "last.ckpt"
        self._asked = False

    def on_step(self, trainer: L.Trainer, module: PreferenceModule) -> None:
        """Save and end, where that was asked for.

        Raises:
            KeyboardInterrupt: it was.
        """
        del module
        if self._asked:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take interrupts meanwhile; only the main thread can, and only where they are heard.

        One that is ignored, as in the background of a shell, stays ignored.
        """
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return
        signal.signal(signal.SIGINT, self._hear)
        try:
            yield
        finally:
            # Lightning ignores further interrupts once it handles one.
            if signal.getsignal(signal.SIGINT) == self._hear:
                signal.signal(signal.SIGINT, before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            signal.default_int_handler(number, frame)
        self._asked = True
        _log.info("interrupted: ending with this optimiser step; once more ends it at once")
