"""Times of rectified flow: their distributions, shifts, limits and weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.models.flow_process import FlowProcess, resolution_line, resolution_mu, shifted

EVEN = (torch.arange(20_000) + 0.5) / 20_000
SHAPE = (4, 128, 128)
PROCESSES = {
    "uniform": FlowProcess(),
    "static": FlowProcess(shift="static"),
    "logit_normal": FlowProcess("logit_normal", mean=-0.4, spread=1.3),
    "resolution": FlowProcess("logit_normal", shift="resolution"),
}


def test_logit_normal_is_one():
    logits = torch.logit(PROCESSES["logit_normal"].sample_timesteps(EVEN).double())
    assert logits.mean().item() == pytest.approx(-0.4, abs=0.01)
    assert logits.std().item() == pytest.approx(1.3, abs=0.01)
    assert logits.median().item() == pytest.approx(-0.4, abs=0.01)


@pytest.mark.parametrize(("tokens", "mu"), [(256, 0.5), (4096, 1.15), (1024, 0.63), (16384, 3.23)])
def test_the_line_of_the_resolution(tokens, mu):
    assert resolution_mu(tokens, 0.5, 1.15) == pytest.approx(mu, abs=0.003)


def test_a_shift_adds_its_logarithm_to_the_logit():
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(torch.logit(shifted(t, 3.0)), torch.logit(t) + math.log(3))
    middle = torch.tensor([0.5])
    assert PROCESSES["static"].sample_timesteps(middle).item() == pytest.approx(0.75)
    found = PROCESSES["resolution"].sample_timesteps(middle, SHAPE).double()
    assert torch.logit(found).item() == pytest.approx(1.15, abs=1e-5)


def test_the_shift_by_resolution_needs_a_resolution():
    with pytest.raises(ValueError, match="needs the latents' shape"):
        PROCESSES["resolution"].sample_timesteps(EVEN)


def test_plain_times_are_the_draws():
    uniform = torch.tensor([0.25, 0.5, 0.123])
    assert torch.equal(FlowProcess().sample_timesteps(uniform), uniform)


@pytest.mark.parametrize("name", PROCESSES)
def test_times_rise_with_the_draw_and_stay_off_both_ends(name):
    uniform = torch.tensor([0.0, 2.0**-24, 0.1, 0.5, 0.9, 1 - 2**-24])
    t = PROCESSES[name].sample_timesteps(uniform, SHAPE)
    assert t.dtype == torch.float32
    assert (t.diff() >= 0).all()
    assert ((t > 0) & (t < 1)).all()


@given(st.sampled_from(sorted(PROCESSES)), st.integers(0, 998), st.integers(1, 1000))
def test_limits_cut_the_distribution_and_change_nothing_else(name, low, length):
    """The times of a limited process are those of the whole one that lie between the limits."""
    high = min(low + length, 1000)
    whole = PROCESSES[name].sample_timesteps(EVEN, SHAPE).double()
    limited = PROCESSES[name].within(low, high)
    part = limited.sample_timesteps(EVEN, SHAPE).double()
    assert low / 1000 - 1e-6 <= part.min()
    assert part.max() <= high / 1000 + 1e-6
    inside = whole[(whole >= low / 1000) & (whole < high / 1000)]
    if len(inside) > 2000:
        for q in (0.1, 0.5, 0.9):
            expected = inside.quantile(q).item()
            assert part.quantile(q).item() == pytest.approx(expected, abs=2e-3)


def test_limits_keep_the_rest():
    limited = FlowProcess("logit_normal", 0.1, 1.2, "static", 2.0, weighting="signal").within(0, 10)
    assert (limited.mean, limited.spread, limited.shift_factor) == (0.1, 1.2, 2.0)
    assert limited.weighting == "signal"


def test_the_schedule_itself_is_untouched_by_distributions():
    fractions = torch.tensor([0.0, 0.3, 0.7])
    for process in PROCESSES.values():
        assert process.at(fractions)[1:].tolist() == fractions[1:].tolist()
        assert process.at(fractions)[0] > 0


def test_weights():
    t = torch.tensor([0.0, 0.25, 1.0])
    assert FlowProcess().pair_weights(t) is None
    found = FlowProcess(weighting="signal").pair_weights(t)
    assert found is not None
    assert found.tolist() == [1.0, 0.5625, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "normal"}, "distribution must be one of uniform, logit_normal"),
        ({"shift": "dynamic"}, "shift must be one of none, static, resolution"),
        ({"weighting": "snr"}, "weighting must be one of one, signal"),
    ],
)
def test_unknown_choices_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FlowProcess(**options)


def test_shifts_that_are_left_out_are_the_models_own() -> None:
    asked = FlowProcess("uniform", shift="resolution", base_shift=None, max_shift=0.7)
    filled = asked.completed(0.2, 0.9)
    assert (filled.base_shift, filled.max_shift, filled.distribution) == (0.2, 0.7, "uniform")
    assert filled.completed(0.5, 1.15) is filled
    with pytest.raises(ValueError, match="needs base_shift and max_shift"):
        asked.sample_timesteps(torch.tensor([0.5]), (16, 8, 8))


def test_a_line_is_told_by_256_and_4096_tokens() -> None:
    assert resolution_line((256, 0.5), (4096, 1.15)) == pytest.approx((0.5, 1.15))
    ends = resolution_line((100, 0.1), (900, 0.3))
    assert resolution_mu(500, *ends) == pytest.approx(0.2)
