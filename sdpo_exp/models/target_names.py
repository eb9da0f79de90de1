"""Which modules LoRA targets name, by the names alone; without torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from sdpo_exp.errors import UserError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# Of Ovis-U1's blocks: attentions, and single blocks' fused layers, whose larger part is the MLP.
YAK = r"(double|single)_blocks\..*(attn\.(qkv|proj)|linear1|linear2)"
_EXAMPLES = 8


def check_targets(
    targets: str | Sequence[str], modules: Collection[str], adaptable: Sequence[str], model: str
) -> None:
    """Refuse a target that names no module; peft is content when one of several does.

    Args:
        targets: ends of names, or a regular expression for whole names.
        modules: names of all modules.
        adaptable: names of those that LoRA can adapt, for the message.
        model: its name, for the message.

    Raises:
        UserError: a target matches nothing, or is no regular expression.
    """
    if isinstance(targets, str):
        try:
            unmatched = [] if any(re.fullmatch(targets, name) for name in modules) else [targets]
        except re.error as error:
            raise UserError(
                f"tuning.targets={targets}: not a regular expression ({error})"
            ) from None
    else:
        ends = [f".{name}" for name in modules]
        unmatched = [t for t in targets if not any(end.endswith(f".{t}") for end in ends)]
    if unmatched:
        what = ", ".join(sorted(unmatched))
        raise UserError(
            f"tuning.targets: no module of {model} matches {what}. {examples(adaptable)}"
        )


def examples(names: Sequence[str]) -> str:
    """Names that LoRA could adapt, each ending once and the most common first."""
    first = {_ending(name): name for name in reversed(names)}
    common = Counter(map(_ending, names)).most_common(_EXAMPLES)
    return (
        f"Its modules are named like {', '.join(first[ending] for ending, _ in common)}; give the "
        "ends of names as a list, or a regular expression for whole names."
    )


def _ending(name: str) -> str:
    """`blocks.0.to_out.0` -> `to_out.0`: the last part that is not a number, and what follows."""
    found = re.search(r"[^.]*[A-Za-z_][^.]*(\.\d+)*$", name)
    return found.group() if found else name
