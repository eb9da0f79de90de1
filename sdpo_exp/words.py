"""One word for one thing: what people read, by the last part of a log key. docs/words.md lists all.

L is a denoising error of the policy, R of the reference, w and l are winner and loser.
"""

from __future__ import annotations

WORDS = {
    "winner_error": "winner error",
    "loser_error": "loser error",
    "winner_minus_ref": "winner drift",
    "loser_minus_ref": "loser drift",
    "margin": "margin",
    "implicit_accuracy": "implicit accuracy",
    "lambda_mean": "lambda",
    "lambda_would_be": "would-be lambda",
}


def word(key: str) -> str:
    """What a log key is called: `probe/winner_minus_ref` -> "winner drift"; else its last part."""
    name = key.rpartition("/")[2]
    return WORDS.get(name, name)
