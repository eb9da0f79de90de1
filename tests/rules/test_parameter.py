"""lambda from parameter gradients: its promise, its edges, and the whole way through a trainer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from sdpo_exp.errors import UserError
from sdpo_exp.objectives.dmpo import DMPO
from sdpo_exp.objectives.dpo import DPO
from sdpo_exp.objectives.dspo import DSPO
from sdpo_exp.objectives.sft import SFT
from sdpo_exp.rules.parameter import ParameterRule, largest_safe_share
from sdpo_exp.rules.window import WindowGradients, clip_of
from sdpo_exp.safeguard import NoSafeguard, preserve_winner
from sdpo_exp.training.records import loss_parts
from sdpo_exp.types import PairErrors
from tests.harness import small_trainer
from tests.rules.problems import Changes, fitted, gradients


def share_of(found: WindowGradients, mu: float) -> Tensor:
    return ParameterRule(mu).share(found, torch.optim.SGD([torch.zeros(1)]), lambda g: g)


@given(st.integers(0, 10_000), st.floats(0, 1, allow_subnormal=False))
def test_the_winners_error_does_not_rise_to_first_order(seed: int, mu: float) -> None:
    found = gradients(seed=seed)
    share = share_of(found, mu)
    assert 0 <= share <= 1
    natural = found.protected @ found.winner
    change = -(found.protected @ found.combined(share))
    if natural >= 0:
        assert change <= -mu * natural + 1e-4 * found.protected.norm() * found.winner.norm()


def test_by_hand() -> None:
    # <A, w> = 2, <A, l> = -4: lambda = (1 - mu) / 2.
    found = WindowGradients(*map(torch.tensor, ([2.0, 0.0], [-4.0, 1.0], [1.0, 0.0])))
    assert share_of(found, 0.0) == 0.5
    assert share_of(found, 0.6) == pytest.approx(0.2)
    assert share_of(found, 1.0) == 0.0
    assert share_of(found._replace(loser=torch.tensor([4.0, 0.0])), 1.0) == 1.0  # does no harm
    assert share_of(found._replace(loser=torch.zeros(2)), 1.0) == 1.0  # no loser at all


def test_losers_are_off_where_the_objective_itself_pushes_winners_up() -> None:
    assert largest_safe_share(torch.tensor(-1.0), torch.tensor(2.0), 0.0) == 0.0
    assert largest_safe_share(torch.tensor(-1.0), torch.tensor(-2.0), 0.0) == 1.0


def test_dmpo_beyond_its_target_margin_turns_losers_off() -> None:
    """a and b are negative there: G_w raises the winners' error, and G_l helps it."""
    net = nn.Linear(4, 4, bias=False)
    inputs, target = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    ref = net(inputs).detach()
    with torch.no_grad():
        net.weight += 0.05
    predictions = [net(inputs[:3]), net(inputs[3:])]
    errors = PairErrors.from_predictions(torch.cat(predictions), ref, target)
    objective = DMPO(beta=2.0 * 20 / errors.delta.abs().max().item(), alpha=0.5)  # target: u = 0
    weights = objective.weights(errors)
    beyond = objective(errors).logits > 0
    assert torch.equal(weights.winner < 0, beyond)
    parts = loss_parts(objective(errors).loss.sum(), predictions, errors)
    (g_w,) = torch.autograd.grad(parts.winner, net.weight, retain_graph=True)
    expected = (weights.winner * errors.winner).sum()
    torch.testing.assert_close(g_w, torch.autograd.grad(expected, net.weight)[0])


class Translation(nn.Module):
    """Prediction = the parameter, for every row: winner and loser have the same Jacobian."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([1.0, -0.5, 2.0]))

    def rows(self, n: int) -> Tensor:
        return self.value.expand(n, 3)


@pytest.mark.parametrize("mu", [0.0, 0.4, 0.9])
def test_with_equal_jacobians_it_is_the_output_space_rule(mu: float) -> None:
    net = Translation()
    target = torch.tensor([[0.0, 0.0, 0.5], [0.2, -0.3, 0.9]])
    predictions = [net.rows(1), net.rows(1)]
    errors = PairErrors.from_predictions(torch.cat(predictions), torch.zeros(2, 3), target)
    parts = loss_parts(DPO(beta=1.0)(errors).loss.mean(), predictions, errors)
    found = WindowGradients(
        *(torch.autograd.grad(part, net.value, retain_graph=True)[0] for part in parts)
    )
    expected = preserve_winner(errors, mu, scope="pair")[1]
    assert float(expected) > 0
    torch.testing.assert_close(share_of(found, mu), expected[0])


def test_the_predicted_change_is_the_directional_derivative() -> None:
    """d L_A(theta - eta (G_w + lambda G_l)) / d eta at 0, by autograd's forward mode."""
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    inputs, target = torch.randn(6, 5), torch.randn(6, 4)
    inputs, target = inputs.double(), target.double()
    predictions = [net(inputs[:3]), net(inputs[3:])]
    pred = torch.cat(predictions)
    errors = PairErrors.from_predictions(pred, pred.detach() * 1.01, target)
    parts = loss_parts(DPO(beta=3.0)(errors).loss.mean(), predictions, errors)
    parameters = dict(net.named_parameters())
    found = [
        torch.autograd.grad(part, list(parameters.values()), retain_graph=True) for part in parts
    ]
    g_w, g_l, g_a = (torch.cat([g.reshape(-1) for g in part]) for part in found)
    share = share_of(WindowGradients(g_w, g_l, g_a), 0.3)
    steps = [-(w + share * x) for w, x in zip(found[0], found[1], strict=True)]

    def winner_error(values: dict[str, Tensor]) -> Tensor:
        return (torch.func.functional_call(net, values, inputs[:3]) - target[:3]).pow(2).mean()

    tangent = dict(zip(parameters, steps, strict=True))
    _, derivative = torch.func.jvp(winner_error, (parameters,), (tangent,))
    predicted = -(g_a @ (g_w + share * g_l))
    torch.testing.assert_close(predicted, derivative, rtol=1e-4, atol=1e-7)
    assert predicted <= -0.3 * (g_a @ g_w) + 1e-7


@pytest.mark.parametrize("objective", [DPO(200.0), DMPO(200.0, 0.01), DSPO(100.0), SFT()])
def test_at_a_share_of_one_it_is_the_plain_gradient(tmp_path: Path, objective: Any) -> None:
    class Whole(ParameterRule):
        def share(self, *_: Any) -> Tensor:
            return torch.ones(())

    off = NoSafeguard(would_be_mu=0.9)
    plain = fitted(tmp_path, safeguard=off, objective=objective)[2]
    ruled = fitted(tmp_path, safeguard=Whole(0.9), objective=objective)[2]
    torch.testing.assert_close(plain, ruled, atol=2e-5, rtol=0)


def test_one_lambda_for_a_window_whatever_its_layout(tmp_path: Path) -> None:
    runs = {}
    for micro in (8, 4, 2):
        data = {"micro_batch": micro}
        _, recorder, weights = fitted(tmp_path, safeguard=ParameterRule(0.5), data=data)
        runs[micro] = weights, torch.cat([r.lambda_safe for r in recorder.records]).view(6, 8)
    for weights, lambdas in runs.values():
        assert torch.equal(lambdas, lambdas[:, :1].expand(6, 8))
        torch.testing.assert_close(weights, runs[8][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(lambdas, runs[8][1], atol=1e-3, rtol=1e-3)
    assert 0 < float(runs[8][1].min()) < 1


def test_small_steps_of_plain_descent_never_raise_the_winners(tmp_path: Path) -> None:
    """The guarantee itself, on the pairs of each step, where the unguarded run breaks it."""

    def changes(safeguard: Any) -> list[float]:
        watch = Changes()
        fitted(
            tmp_path,
            safeguard=safeguard,
            optimizer=partial(torch.optim.SGD, lr=1e-4),
            objective=DPO(2000.0),
            warmup_steps=0,
            data={"micro_batch": 8, "max_steps": 30},
            trainer={"callbacks": [watch], "max_steps": 30},
        )
        return watch.changes

    guarded = changes(ParameterRule(0.5))
    assert max(guarded) < 0
    assert max(changes(NoSafeguard(0.5))) > 0


@pytest.mark.slow
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    options = {"max_steps": 3, "devices": 2, "strategy": "ddp_fork"}
    rule = ParameterRule(0.5)
    two = fitted(tmp_path, safeguard=rule, data={"micro_batch": 2}, trainer=options)[2]
    one = fitted(tmp_path, safeguard=rule, data={"micro_batch": 8}, trainer={"max_steps": 3})[2]
    torch.testing.assert_close(two, one, atol=1e-6, rtol=0)


def test_a_loss_scale_is_refused_in_words(tmp_path: Path) -> None:
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(UserError, match="16-mixed"):
        fitted(tmp_path, safeguard=ParameterRule(0.5), trainer={"plugins": [plugin]})


def test_clipping_is_the_trainers(tmp_path: Path) -> None:
    vector = torch.tensor([3.0, -4.0])
    for options, expected in (
        ({"gradient_clip_val": 1.0}, [0.6, -0.8]),
        ({"gradient_clip_val": 10.0}, [3.0, -4.0]),
        ({"gradient_clip_val": None}, [3.0, -4.0]),
        ({"gradient_clip_val": 3.5, "gradient_clip_algorithm": "value"}, [3.0, -3.5]),
    ):
        clipped = clip_of(small_trainer(tmp_path, **options))(vector)
        assert clipped.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mu", [-0.1, 1.1])
def test_mu_outside_its_range_is_refused(mu: float) -> None:
    with pytest.raises(ValueError, match="mu must lie in"):
        ParameterRule(mu)
