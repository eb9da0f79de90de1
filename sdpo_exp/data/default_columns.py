"""Columns that configurations name by default, and when they give way to what was told."""

from __future__ import annotations

from collections.abc import Mapping

IN_ORDER, PICKAPIC, LABEL = ("winner", "loser"), ("jpg_0", "jpg_1"), "label_0"


def outdone(columns: Mapping[str, str | None]) -> list[str]:
    """Roles that have a default where another way of giving an order was told.

    Args:
        columns: by role, the column's name.
    """
    in_order = (columns["winner"], columns["loser"])
    two = (columns["image_0"], columns["image_1"])
    roles = ["winner", "loser"] if two != (None, None) and in_order == IN_ORDER else []
    told_in_order = two == PICKAPIC and in_order not in (IN_ORDER, (None, None))
    roles += ["image_0", "image_1"] if told_in_order else []
    told = told_in_order or columns["preferred"] is not None
    return [*roles, "label_0"] if told and columns["label_0"] == LABEL else roles
