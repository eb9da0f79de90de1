"""Prompts made of captions by a template, such as `a photo of {caption}`."""

from __future__ import annotations

from typing import Any, TypeVar

from sdpo_exp.bounds import checked_template
from sdpo_exp.errors import UserError
from sdpo_exp.types import ImagePair, PairRow

Pair = TypeVar("Pair", bound=ImagePair | PairRow)


def check_template(template: str | None) -> None:
    """Refuse a template that no caption fits, before a pair is read.

    Raises:
        UserError: it does not hold `{caption}` once and nothing else in braces.
    """
    try:
        checked_template("{caption}" if template is None else template)
    except ValueError as error:
        raise UserError(f"template: {error}, got {template!r}") from None


def with_template(pair: Pair, template: str | None) -> Pair:
    """The pair with its caption put into a template that fits; an empty caption stays empty."""
    if template is None or not pair.prompt.strip():
        return pair
    filled: Any = pair._replace(prompt=template.format(caption=pair.prompt))
    return filled


def template_mark(template: str | None) -> bytes:
    """What a fingerprint takes in of a template; nothing where there is none."""
    return b"" if template is None else b"template\0" + template.encode() + b"\0"
