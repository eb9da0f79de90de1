"""What tests of commands share."""

from __future__ import annotations

from functools import partial

import pytest
from torch.multiprocessing.spawn import start_processes

from sdpo_exp.cli import workers


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command's several processes are forked from this one, which has imported all they need.

    tests/cli/test_workers.py and one test of `generate` have them started anew, as users do.
    """
    monkeypatch.setattr(
        workers.multiprocessing, "spawn", partial(start_processes, start_method="fork")
    )
