"""Numeric ranges for constructor signatures, shared by code and configuration check.

A range is written once, in the signature of the thing that is configured; `config.check_config`
reads it there. Free of heavy imports, because the check runs before torch is imported.
"""

import math
from string import Formatter
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator


def checked_template(template: str) -> str:
    """A prompt template as it is; `{{` and `}}` in it stand for braces.

    Raises:
        ValueError: it does not hold `{caption}` once, or holds another field.
    """
    try:
        fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise ValueError(f"must hold {{caption}} once, but {error}") from None
    if fields != [("caption", "", None)]:
        raise ValueError("must hold {caption} once, and no other field in braces")
    return template


PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0), Lt(math.inf)]
NonNegativeFloat = Annotated[float, Ge(0), Lt(math.inf)]
Guidance = Annotated[float, Ge(1), Lt(math.inf)]  # diffusers takes less for none
UnitInterval = Annotated[float, Ge(0), Le(1)]
HalfOpenUnit = Annotated[float, Ge(0), Lt(1)]
Template = Annotated[str, AfterValidator(checked_template)]  # of prompts
