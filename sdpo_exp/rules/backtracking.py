"""Try the step, look, and take it back where the winners got worse: what checking can achieve.

After the optimiser's step the winners' error is computed again on the window's own pairs, timesteps
and noises. Where it has risen, parameters and optimiser are put back, and the step is taken again
with half the losers' part, in the end with none. An upper bound for rules that predict, at the
cost of a forward pass of the winners and of a copy of parameters and optimiser state.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdpo_exp.bounds import PositiveInt, UnitInterval
from sdpo_exp.rules.flat import trained, write_gradient
from sdpo_exp.rules.window import WindowGradients, WindowRule, clip_of, mean_over_ranks
from sdpo_exp.types import LossParts

if TYPE_CHECKING:
    from sdpo_exp.training import PreferenceModule


class BacktrackingRule(WindowRule):
    """Halves the losers' part until the winners' error does not rise.

    Args:
        mu: of the published rule's lambda in the log, and nothing else.
        tries: at most; the last is without losers and stays, risen or not.
    """

    vectors = 6  # parameters and AdamW's two moments as they were, too

    def __init__(self, mu: UnitInterval, tries: PositiveInt = 5) -> None:
        super().__init__(mu)
        self.tries = tries
        self._inputs: list[Any] = []
        self._before: list[Tensor] = []

    def backward(self, loss: Tensor | LossParts, module: PreferenceModule, optimizer: Any) -> None:
        """Keep the micro-batch's inputs and its winners' error as well."""
        assert isinstance(loss, LossParts)
        if self._seen == 0:
            self._inputs, self._before = [], []
        self._inputs.append(module.winner_inputs)
        self._before.append(loss.protected.detach())
        super().backward(loss, module, optimizer)

    def write(
        self,
        gradients: WindowGradients,
        optimizer: torch.optim.Optimizer,
        module: PreferenceModule,
    ) -> Tensor:
        """The whole gradient into `.grad`; what comes of it is looked at after the step."""
        parameters = trained(optimizer)
        write_gradient(gradients.combined(1.0), parameters)
        share = torch.ones((), device=gradients.winner.device)
        filled = list(self._lambdas)
        saved = [p.detach().clone() for p in parameters], copy.deepcopy(optimizer.state_dict())
        before = mean_over_ranks(torch.stack(self._before).sum())
        clip = clip_of(module.trainer)

        def look(*_: Any) -> None:
            handle.remove()
            taken = self._shrink(module, optimizer, gradients, saved, before, clip)
            for later in filled:
                later.fill_(taken)

        handle = optimizer.register_step_post_hook(look)
        return share

    @torch.no_grad()
    def _shrink(
        self,
        module: PreferenceModule,
        optimizer: torch.optim.Optimizer,
        gradients: WindowGradients,
        saved: tuple[list[Tensor], dict[str, Any]],
        before: Tensor,
        clip: Any,
    ) -> float:
        """lambda of the step that stays."""
        shares = [0.5**n for n in range(1, self.tries - 1)] + [0.0] * (self.tries > 1)
        taken = 1.0
        for share in shares:
            if not self._risen(module, before):
                break
            _put_back(optimizer, *saved)
            write_gradient(clip(gradients.combined(share)), trained(optimizer))
            optimizer.step()
            taken = share
        return taken

    def _risen(self, module: PreferenceModule, before: Tensor) -> bool:
        after = [module.winner_error(*inputs) for inputs in self._inputs]
        return bool(mean_over_ranks(torch.stack(after).mean()) > before)


def _put_back(
    optimizer: torch.optim.Optimizer, values: list[Tensor], state: dict[str, Any]
) -> None:
    for parameter, value in zip(trained(optimizer), values, strict=True):
        parameter.copy_(value)
    optimizer.load_state_dict(copy.deepcopy(state))
