import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from sdpo_exp.models.flow_process import FlowProcess
from sdpo_exp.models.forward_process import VPProcess

SCHEDULER = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
HALF = [torch.bfloat16, torch.float16]


def vp(prediction_type: str) -> VPProcess:
    return VPProcess(SCHEDULER.alphas_cumprod, prediction_type)


def latents_and_noise(rows: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, rows, 4, 3, 3, generator=generator)
    return latents, noise


def test_vp_by_hand():
    # alphas_cumprod = 0.64: a = 0.8, s = 0.6. x = 2, n = -1: x_t = 1.6 - 0.6 = 1.0,
    # v = a n - s x = -0.8 - 1.2 = -2.0.
    table, t = torch.tensor([0.99, 0.64]), torch.tensor([1])
    latents, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)
    process = VPProcess(table, "v_prediction")
    assert process.num_timesteps == 2
    assert process.add_noise(latents, noise, t).item() == pytest.approx(1.0, rel=1e-6)
    assert process.target(latents, noise, t).item() == pytest.approx(-2.0, rel=1e-6)
    assert VPProcess(table, "epsilon").target(latents, noise, t).item() == -1.0


def test_flow_by_hand():
    # x = 2, n = -1 at t = 0.25: x_t = 0.75 * 2 - 0.25 = 1.25; n - x = -3.
    latents, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)
    t = torch.tensor([0.25])
    assert FlowProcess().add_noise(latents, noise, t).item() == 1.25
    assert FlowProcess().target(latents, noise, t).item() == -3.0


def test_vp_agrees_with_diffusers_at_every_row_timestep():
    latents, noise = latents_and_noise(rows=5)
    t = torch.tensor([0, 1, 500, 998, 999])
    noisy = SCHEDULER.add_noise(latents, noise, t)
    velocity = SCHEDULER.get_velocity(latents, noise, t)
    for prediction_type, target in (("epsilon", noise), ("v_prediction", velocity)):
        process = vp(prediction_type)
        torch.testing.assert_close(process.add_noise(latents, noise, t), noisy)
        torch.testing.assert_close(process.target(latents, noise, t), target)


def test_epsilon_target_and_x_t_recover_the_latents():
    latents, noise = latents_and_noise()
    t = torch.tensor([0, 100, 500, 900])
    process = vp("epsilon")
    x_t, target = process.add_noise(latents, noise, t), process.target(latents, noise, t)
    alpha = SCHEDULER.alphas_cumprod[t].double().view(-1, 1, 1, 1)
    recovered = (x_t.double() - (1 - alpha).sqrt() * target.double()) / alpha.sqrt()
    torch.testing.assert_close(recovered, latents.double(), rtol=1e-4, atol=1e-5)
    assert torch.equal(target, noise)


def test_v_target_and_x_t_recover_latents_and_noise():
    # x = a x_t - s v and n = s x_t + a v, because a^2 + s^2 = 1.
    latents, noise = latents_and_noise()
    t = torch.tensor([0, 100, 500, 999])
    process = vp("v_prediction")
    x_t, v = process.add_noise(latents, noise, t), process.target(latents, noise, t)
    alpha = SCHEDULER.alphas_cumprod[t].view(-1, 1, 1, 1)
    a, s = alpha.sqrt(), (1 - alpha).sqrt()
    torch.testing.assert_close(a * x_t - s * v, latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(s * x_t + a * v, noise, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 2**24 - 1), st.integers(0, 1000))
def test_flow_target_and_x_t_recover_latents_and_noise(draw, seed):
    latents, noise = latents_and_noise(rows=1, seed=seed)
    process = FlowProcess()
    t = process.sample_timesteps(torch.tensor([draw * 2.0**-24]))
    x_t, velocity = process.add_noise(latents, noise, t), process.target(latents, noise, t)
    torch.testing.assert_close(x_t - t * velocity, latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x_t + (1 - t) * velocity, noise, rtol=1e-4, atol=1e-5)


def test_eps_target_is_shared_by_a_pair_and_v_and_flow_targets_are_not():
    latents, noise = latents_and_noise(rows=2)
    shared = noise[:1].repeat(2, 1, 1, 1)
    t = torch.tensor([400, 400])
    for process, same in ((vp("epsilon"), True), (vp("v_prediction"), False)):
        winner, loser = process.target(latents, shared, t)
        assert torch.equal(winner, loser) == same
    winner, loser = FlowProcess().target(latents, shared, torch.tensor([0.4, 0.4]))
    assert not torch.equal(winner, loser)


@pytest.mark.parametrize("steps", [1, 4, 1000])
def test_vp_timesteps_stay_on_the_table_and_cover_it_evenly(steps):
    process = VPProcess(torch.linspace(0.99, 0.01, steps), "epsilon")
    ends = process.sample_timesteps(torch.tensor([0.0, 1 - 2**-24, 0.5]))
    assert ends.dtype == torch.int64
    assert ends.tolist() == [0, steps - 1, steps // 2]
    middles = (torch.arange(steps) + 0.5) / steps
    assert process.sample_timesteps(middles).tolist() == list(range(steps))


def test_vp_timesteps_do_not_leave_the_table_even_at_one():
    assert vp("epsilon").sample_timesteps(torch.tensor([1.0])).tolist() == [999]


def test_flow_times_stay_off_both_ends_and_are_the_draws_between():
    uniform = torch.tensor([0.0, 1 - 2**-24, 0.5, 0.123])
    t = FlowProcess().sample_timesteps(uniform)
    assert t.dtype == torch.float32
    assert 0 < t[0] <= 1e-4
    assert 1 - 1e-4 <= t[1] < 1
    assert t[2:].tolist() == uniform[2:].tolist()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_half_precision_is_computed_in_float32_and_rounded_once(kind, dtype):
    latents, noise = latents_and_noise()
    latents, noise = latents.to(dtype), noise.to(dtype)
    process = FlowProcess() if kind == "flow" else vp(kind)
    t = process.sample_timesteps(torch.tensor([0.0, 0.3, 0.6, 0.99]))
    x_t, target = process.add_noise(latents, noise, t), process.target(latents, noise, t)
    assert x_t.dtype == dtype
    assert target.dtype == torch.float32
    assert torch.equal(x_t, process.add_noise(latents.float(), noise.float(), t).to(dtype))
    assert torch.equal(target, process.target(latents.float(), noise.float(), t))


def test_float32_noise_on_half_latents_is_not_rounded_first():
    latents, noise = latents_and_noise()
    t = torch.tensor([999, 999, 999, 999])
    x_t = vp("epsilon").add_noise(latents.bfloat16(), noise, t)
    expected = vp("epsilon").add_noise(latents.bfloat16().float(), noise, t).bfloat16()
    assert torch.equal(x_t, expected)
    assert torch.equal(vp("epsilon").target(latents.bfloat16(), noise, t), noise)


def test_a_double_or_half_table_is_kept_in_float32():
    assert VPProcess(SCHEDULER.alphas_cumprod.double(), "epsilon").alphas_cumprod.dtype == (
        torch.float32
    )


def test_terminal_zero_signal_leaves_pure_noise():
    process = VPProcess(torch.tensor([0.9, 0.0]), "v_prediction")
    latents, noise = latents_and_noise(rows=1)
    t = torch.tensor([1])
    assert torch.equal(process.add_noise(latents, noise, t), noise)
    assert torch.equal(process.target(latents, noise, t), -latents)


@pytest.mark.parametrize("name", ["sample", "v", "EPSILON"])
def test_an_unknown_prediction_type_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"'{name}'"):
        VPProcess(SCHEDULER.alphas_cumprod, name)
