"""What a run holds in memory before its first activation, from real shapes, dtypes and optimiser.

Only shapes and dtypes are looked at, so a model on the meta device will do.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdpo_exp.protocols import Backbone, OptimizerFactory
from sdpo_exp.training.module import PreferenceModule

_FLOAT32 = 4


class MemoryEstimate(NamedTuple):
    """Bytes of everything static; activations, autocast's copies and buckets come on top.

    `gradients` has what a gradient rule keeps of them apart (`vectors` of its class) as well.

    `reference` counts where the copy waits in main memory, too: its pass brings it in.
    """

    weights: int
    gradients: int
    optimizer: int
    reference: int
    frozen_parts: int

    @property
    def total(self) -> int:
        """The sum, in bytes."""
        return sum(self)

    def __str__(self) -> str:
        parts = [f"{name.replace('_', ' ')} {n / 2**30:.3f}" for name, n in self._asdict().items()]
        return f"static memory {self.total / 2**30:.3f} GiB: {', '.join(parts)}"


def estimate(module: PreferenceModule) -> MemoryEstimate:
    """Of a module as it will be trained, once per device."""
    found = estimate_parts(
        module.policy,
        module.reference.networks(),
        frozen_parts(module.backbone),
        module.make_optimizer,
    )
    elements = sum(p.numel() for p in module.policy.parameters() if p.requires_grad)
    held = elements * _FLOAT32 * getattr(module.gradient_rule, "vectors", 0)
    return found._replace(gradients=found.gradients + held)


def estimate_parts(
    policy: nn.Module,
    references: Iterable[nn.Module],
    frozen: Iterable[nn.Module],
    make_optimizer: OptimizerFactory,
) -> MemoryEstimate:
    """The same from its parts, which may be on the meta device.

    Args:
        policy: its parameters that require a gradient are trained.
        references: networks beside the policy.
        frozen: modules that are never trained.
        make_optimizer: makes the optimiser of a list of parameters.
    """
    trained = [p for p in policy.parameters() if p.requires_grad]
    return MemoryEstimate(
        weights=_bytes([policy]),
        gradients=sum(p.nbytes for p in trained),
        optimizer=optimizer_bytes(trained, make_optimizer),
        reference=_bytes(references),
        frozen_parts=_bytes(frozen),
    )


def optimizer_bytes(trained: Iterable[Tensor], make_optimizer: OptimizerFactory) -> int:
    """Bytes of an optimiser's state, by letting it step once on one tensor of each shape.

    Args:
        trained: what it will be given; only shapes and dtypes matter.
        make_optimizer: its factory.
    """
    return sum(
        count * _state_bytes(make_optimizer, *kind)
        for kind, count in Counter((p.shape, p.dtype, _real(p.device)) for p in trained).items()
    )


def frozen_parts(backbone: Backbone) -> list[nn.Module]:
    """The modules that a backbone holds beside its denoiser, in attributes or lists of them."""
    values = itertools.chain.from_iterable(
        value if isinstance(value, list | tuple) else [value] for value in vars(backbone).values()
    )
    return [v for v in values if isinstance(v, nn.Module) and v is not backbone.denoiser]


def _state_bytes(
    make_optimizer: OptimizerFactory, shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> int:
    parameter = nn.Parameter(torch.zeros(shape, dtype=dtype, device=device))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer([parameter])
    optimizer.step()
    return sum(tensor.nbytes for tensor in _tensors(optimizer.state[parameter]))


def _real(device: torch.device) -> torch.device:
    """Where to try a tensor out that may have no memory of its own."""
    return torch.device("cpu") if device.type == "meta" else device


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)


def _bytes(networks: Iterable[nn.Module]) -> int:
    """Parameters and buffers; what two modules share counts once."""
    networks = list(networks)
    held = {id(t): t for n in networks for t in itertools.chain(n.parameters(), n.buffers())}
    return sum(t.nbytes for t in held.values())
