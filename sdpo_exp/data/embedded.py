"""Images that stand in a table as text: base64, with or without the head of a data URI."""

from __future__ import annotations

import base64
import binascii
import re

_DATA_URI = re.compile(r"^data:[\w.+/-]*(;[\w.=+-]+)*;base64,", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Za-z0-9+/_=\s-]+")
# How PNG, JPEG, GIF, RIFF (WebP), BMP and TIFF files begin.
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
_SHORTEST = 64  # characters; the smallest image file has more


def embedded_image(text: str) -> bytes | None:
    """The bytes of a file that is written out in `text`; None where it is something else.

    A path is never taken for one: what is decoded has to begin like an image file, unless a data
    URI says that it is one.
    """
    head = _DATA_URI.match(text)
    if head is None and (len(text) < _SHORTEST or not _LETTERS.fullmatch(text)):
        return None
    body = re.sub(r"\s", "", text[head.end() if head else 0 :]).replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if head is not None or content.startswith(_BEGINNINGS) else None
