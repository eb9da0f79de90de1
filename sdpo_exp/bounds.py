"""Numeric ranges for constructor signatures, shared by code and configuration check.

A range is written once, in the signature of the thing that is configured; `config.check_config`
reads it there. Free of heavy imports, because the check runs before torch is imported.
"""

import math
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0), Lt(math.inf)]
NonNegativeFloat = Annotated[float, Ge(0), Lt(math.inf)]
Guidance = Annotated[float, Ge(1), Lt(math.inf)]  # diffusers takes less for none
UnitInterval = Annotated[float, Ge(0), Le(1)]
HalfOpenUnit = Annotated[float, Ge(0), Lt(1)]
