"""`safeguard=true|false` and `--dry-run` on a Hydra command line."""

from __future__ import annotations

import re

_CHOICES = {"true": "on", "false": "off"}
_SAFEGUARD = re.compile(r"^(?P<key>\+{0,2}safeguard=)(?P<value>.*)$", re.DOTALL)


def rewrite_booleans(argv: list[str]) -> None:
    """Map true -> on and false -> off for the key `safeguard`, in place.

    Hydra's grammar turns `true` into a bool before it looks for a config file of that name, and
    fails. In place, because distributed launchers execute `sys.argv` again. Comma-separated
    sweeps are mapped item by item; `choice(true,false)` is not: write `choice(on,off)`.
    """
    for i, argument in enumerate(argv):
        match = _SAFEGUARD.match(argument)
        if match:
            items = match["value"].split(",")
            mapped = [_CHOICES.get(item.strip().lower(), item) for item in items]
            argv[i] = match["key"] + ",".join(mapped)


def rewrite_dry_run(argv: list[str]) -> None:
    """Map `--dry-run`, which Hydra would not know, to `dry_run=true`, in place."""
    argv[1:] = ["dry_run=true" if argument == "--dry-run" else argument for argument in argv[1:]]
