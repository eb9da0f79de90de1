"""Which prompts are longer than a text tower reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def count_longer(tokenizer: Any, prompts: Sequence[str], context: int) -> int:
    """How many prompts one of transformers' tokenizers cuts, one that is told to keep `context`.

    Its two marks, at the beginning and at the end, count.
    """
    if not prompts:
        return 0
    rows = tokenizer(list(prompts), truncation=False, padding=False, verbose=False)["input_ids"]
    return sum(len(row) > context for row in rows)
