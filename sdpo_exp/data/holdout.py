"""Which captions training never sees: a side that follows from the caption's own text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any


def is_held_out(caption: Any, holdout: float) -> bool:
    """The side of a caption: a hash of it, as a number in [0, 1), is below `holdout`."""
    return _place(caption) < holdout


def held_out_captions(captions: Iterable[Any], holdout: float) -> set[str]:
    """The captions of a whole set that are held out, at least one and not all of them.

    Where chance puts all on one side, the caption nearest to the other side changes over. A lone
    caption stays where its hash puts it.

    Args:
        captions: of the set; null counts as the empty one.
        holdout: share of the captions, in (0, 1).
    """
    places = {_text(caption): _place(caption) for caption in captions}
    held = {caption for caption, place in places.items() if place < holdout}
    if len(places) > 1 and not held:
        return {min(places, key=lambda caption: places[caption])}
    if len(places) > 1 and len(held) == len(places):
        return held - {max(places, key=lambda caption: places[caption])}
    return held


def too_few(key: str, wanted: int, there: int) -> str | None:
    """Why so many held-out pairs cannot be looked at, or None."""
    return (
        f"{key}={wanted}: the data has {there:,} held-out pairs; lower it"
        if wanted > there
        else None
    )


def lone_caption(pairs: int) -> str:
    """What to do where a part has no pair, and `pairs` of one caption are in the other."""
    if not pairs:
        return ""
    return (
        f"; the other part has {pairs:,}, all of one caption, which cannot be split. Give "
        "data.train.part=all data.train.holdout=0 data.validation.part=all, and the probe looks at "
        "pairs of the training; or give validation pairs of their own"
    )


def _text(caption: Any) -> str:
    return str(caption or "")


def _place(caption: Any) -> float:
    digest = hashlib.blake2b(_text(caption).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
