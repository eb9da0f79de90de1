"""The configuration surface: composition, and checks that run before anything heavy is imported.

Stage 1 (`check_config`) needs no torch: it reads constructor signatures from source. Stage 2
(`check_third_party`) binds what belongs to other libraries.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def conf_dir() -> Path:
    """The Hydra config folder: beside the package in a checkout, inside it in a wheel."""
    inside = _PACKAGE / "conf"
    return inside if inside.is_dir() else _PACKAGE.parent / "conf"
