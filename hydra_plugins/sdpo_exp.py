"""Our launchers and sweeper under the names that Hydra builds them by; the code is sdpo_exp's.

Every Hydra program in this environment imports this module in search of plugins. It finds none and
pays nothing: only a command of sdpo_exp registers them, and what it names is looked up here.
"""

from __future__ import annotations


def __getattr__(name: str) -> type:
    from sdpo_exp.launchers.plugins import PLUGINS

    for cls in PLUGINS:
        if cls.__name__ == name:
            return cls
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
