"""The trainer on a toy base model: it learns, it can be killed and resumed, it averages its weights."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from toy import config, draw, ignore_log, one_lot, setup, stop_after

from moa_attention import MoAAdapter
from moa_attention.training.loop import train
from moa_attention.training.lots import generator_for
from moa_attention.training.objective import Objective, draw_noise, draw_timesteps, encode_references, error_factor
from moa_attention.training.optimisation.average import averaging
from moa_attention.training.optimisation.schedule import learning_rate

SUM = 24 / 4096
"""`router_weight` at which a latent pixel of the toy, which has 24, counts one."""


class Killed(Exception):
    pass


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[MoAAdapter, MoAAdapter]:
    adapter, base = setup()
    state = tmp_path_factory.mktemp("unbroken") / "state"
    return adapter, train(adapter, base, draw, config(5, schedule="cosine", warmup=2, save_every=3), state, ignore_log)


def test_a_stopped_run_resumes_to_the_unbroken_one(tmp_path: Path, unbroken: tuple[MoAAdapter, MoAAdapter]):
    settings = config(5, schedule="cosine", warmup=2, save_every=3)
    adapter, base = setup()
    train(adapter, base, draw, settings, tmp_path / "state", ignore_log, stop_after(2))
    assert not same(adapter, unbroken[0])
    adapter, base = setup()
    # The state, not the caller, determines what the run resumes from.
    nn.init.normal_(adapter.get_parameter("fusion.widen.weight"))
    average = train(adapter, base, draw, settings, tmp_path / "state", ignore_log)
    assert same(adapter, unbroken[0])
    assert same(average, unbroken[1])


def test_a_killed_run_goes_on_from_its_last_save(tmp_path: Path, unbroken: tuple[MoAAdapter, MoAAdapter]):
    settings = config(5, schedule="cosine", warmup=2, save_every=3)
    steps: list[int] = []

    def die(step: int, _numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        steps.append(step)
        if steps == [1, 2, 3, 4]:
            raise Killed

    adapter, base = setup()
    with pytest.raises(Killed):
        train(adapter, base, draw, settings, tmp_path / "state", die)
    adapter, base = setup()
    average = train(adapter, base, draw, settings, tmp_path / "state", die)
    assert steps == [1, 2, 3, 4, 4, 5]
    assert same(adapter, unbroken[0])
    assert same(average, unbroken[1])


def test_training_lowers_the_loss_on_one_batch(tmp_path: Path):
    adapter, base = setup()
    losses: list[dict[str, float]] = []
    fixed = draw(one_lot(3))
    base.sigma_at = lambda share: torch.ones(len(share))
    base.add_noise = lambda latents, noise, sigma: latents
    train(adapter, base, lambda _: fixed, config(12), tmp_path / "state", lambda _, n, __: losses.append(n))
    assert losses[-1]["reconstruction"] < losses[0]["reconstruction"]
    assert losses[-1]["loss"] < 0.95 * losses[0]["loss"]
    assert set(losses[0]) >= {"gradient_norm", "router", "object", "prior_outside", "personal_inside"}
    assert losses[0]["prior_outside"] == pytest.approx(0.5)


def test_noisiness_prefers_noisy_timesteps():
    generators = [generator_for(0, 0, place) for place in range(4000)]
    even, noisy = (draw_timesteps(generators, config(1, noisiness=n)) for n in (1.0, 2.0))
    assert even.mean().item() == pytest.approx(1 / 2, abs=0.02)
    assert noisy.mean().item() == pytest.approx(2 / 3, abs=0.02)
    assert noisy.min() >= 0 and noisy.max() < 1


def test_router_weight_sends_the_background_to_the_prior(tmp_path: Path):
    adapter, base = setup()
    numbers: list[dict[str, float]] = []
    train(adapter, base, draw, config(15, router_weight=SUM), tmp_path / "state", lambda _, n, __: numbers.append(n))
    assert numbers[-1]["prior_outside"] > 0.6


def test_router_foreground_sends_subjects_to_the_personalised_branch(tmp_path: Path):
    adapter, base = setup()
    numbers: list[dict[str, float]] = []
    settings = config(15, router_weight=SUM, router_foreground=4.0)
    train(adapter, base, draw, settings, tmp_path / "state", lambda _, n, __: numbers.append(n))
    assert numbers[-1]["personal_inside"] > numbers[0]["personal_inside"]


def test_every_adapter_weight_gets_a_gradient_and_no_base_weight():
    adapter, base = setup()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.2)
    lot = one_lot()
    loss, _ = Objective(adapter, base, config(1))(draw(lot), lot.generators)
    loss.backward()
    assert [n for n, p in adapter.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert all(p.grad is None for p in base.parameters())


def test_averaged_weights_follow_slowly(tmp_path: Path):
    adapter, base = setup()
    start = copy.deepcopy(adapter)
    history: list[MoAAdapter] = []
    settings = config(4, ema_decay=0.2)
    average = train(
        adapter, base, draw, settings, tmp_path / "state", lambda *_: history.append(copy.deepcopy(adapter))
    )
    name = "layers.middle_0_0_attn2.to_v.weight"
    expected = history[0].state_dict()[name]  # the first update copies
    for decay, later in zip((2 / 11, 0.2, 0.2), history[1:], strict=True):  # (1 + n) / (10 + n), at most 0.2
        expected = decay * expected + (1 - decay) * later.state_dict()[name]
    torch.testing.assert_close(average.state_dict()[name], expected)
    assert not torch.equal(average.state_dict()[name], adapter.state_dict()[name])
    assert not torch.equal(start.state_dict()[name], adapter.state_dict()[name])
    assert not any(p.requires_grad for p in average.parameters())


def test_the_average_of_a_short_run_is_of_its_last_part():
    """A weight that grows evenly from 0 to 60: a constant decay of 0.999 would return 1.8, 3 %, as the average."""
    layer = nn.Linear(1, 1, bias=False)
    average = AveragedModel(layer, multi_avg_fn=averaging(0.999))
    (mean,) = average.module.parameters()
    for step in range(1, 61):
        nn.init.constant_(layer.weight, float(step))
        average.update_parameters(layer)
    assert 0.85 * 60 < mean.item() < 60
    update, later = averaging(0.999), torch.zeros(1)
    update([later], [torch.ones(1)], torch.tensor(20_000))
    assert later.item() == pytest.approx(0.001, rel=1e-3)


def test_learning_rate_warms_up_and_falls():
    constant = config(100, warmup=10)
    assert learning_rate(0, constant) == pytest.approx(1e-3)
    assert learning_rate(50, constant) == learning_rate(99, constant) == pytest.approx(1e-2)
    cosine = config(100, schedule="cosine")
    assert learning_rate(0, cosine) == pytest.approx(1e-2)
    assert learning_rate(50, cosine) == pytest.approx(1e-2 * (0.05 + 0.475))
    assert learning_rate(100, cosine) == pytest.approx(5e-4)


@pytest.mark.parametrize("warmup", [0, 10])
def test_schedules_fall_as_their_names_say(warmup: int):
    def rates(schedule: str, **options: object) -> list[float]:
        chosen = config(110 if warmup else 100, schedule=schedule, warmup=warmup, learning_rate=0.1, **options)
        found = [learning_rate(step, chosen) for step in range(chosen.steps)]
        assert found[:warmup] == pytest.approx([0.1 * (step + 1) / 10 for step in range(warmup)])
        return found[warmup:]

    part = [step / 100 for step in range(100)]
    assert rates("constant") == [0.1] * 100
    assert rates("linear") == pytest.approx([0.1 * (1 - p) for p in part])
    assert rates("polynomial", power=3.0) == pytest.approx([0.1 * (1 - p) ** 3 for p in part])
    assert rates("cosine") == pytest.approx([0.1 * (0.05 + 0.475 * (1 + math.cos(math.pi * p))) for p in part])
    restarts = rates("restarts", cycles=4)
    assert restarts == pytest.approx([0.05 * (1 + math.cos(math.pi * (4 * p % 1))) for p in part])
    assert [step for step in range(1, 100) if restarts[step] > restarts[step - 1]] == [25, 50, 75]


def test_the_cosine_is_that_of_earlier_versions_to_the_bit():
    for steps, warmup in ((1000, 37), (5, 2)):
        chosen = config(steps, schedule="cosine", warmup=warmup, learning_rate=3e-4)
        for step in range(steps):
            warm, progress = min(1.0, (step + 1) / warmup), max(0, step - warmup) / (steps - warmup)
            earlier = 3e-4 * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
            assert learning_rate(step, chosen) == earlier


def test_logit_normal_timesteps_prefer_the_middle():
    generators = [generator_for(0, 0, place) for place in range(4000)]
    drawn = draw_timesteps(generators, config(1, timesteps="logit-normal"))
    logits = drawn.logit()
    assert (logits.mean().item(), logits.std().item()) == pytest.approx((0, 1), abs=0.04)
    shifted = draw_timesteps(generators, config(1, timesteps="logit-normal", noisiness=2.0))
    assert shifted.mean() > drawn.mean() + 0.1 and shifted.max() < 1


def test_the_noise_offset_shifts_whole_channels():
    latents = torch.zeros(500, 4, 8, 8)
    plain, again, shifted = (
        draw_noise([generator_for(0, place) for place in range(500)], latents, *offset)
        for offset in ((), (0.0,), (0.5,))
    )
    assert torch.equal(plain, again)
    constant = (shifted - plain).mean(dim=(2, 3))
    torch.testing.assert_close(shifted - plain, constant[..., None, None].expand_as(plain), atol=1e-6, rtol=0)
    assert constant.std().item() == pytest.approx(0.5, abs=0.03)


def test_weights_by_the_signal_to_noise_ratio():
    """Of an error of the predicted noise, against the formulas of the papers."""
    _, base = setup()
    sigma = torch.tensor([0.05, 0.3, 1.0, 4.0, 14.0])
    ratio = 1 / sigma.square()

    def weights(**options: object) -> torch.Tensor:
        return (error_factor(base, sigma, config(1, **options)) * sigma).square()  # x̂ = x − σ·ε

    torch.testing.assert_close(weights(), torch.ones(5))
    torch.testing.assert_close(weights(weighting="min-snr"), ratio.clamp(max=5) / ratio)
    torch.testing.assert_close(weights(weighting="min-snr", snr_limit=1.0), ratio.clamp(max=1) / ratio)
    torch.testing.assert_close(weights(weighting="debiased"), 1 / ratio.sqrt())


def test_references_are_pictures_or_features():
    adapter, _ = setup()
    assert encode_references(adapter, torch.rand(2, 3, 3, 96, 96)).shape == (2, 3, 8)
    features = torch.rand(2, 3, 8)
    assert encode_references(adapter, features) is features
    adapter.encoder = None
    with pytest.raises(ValueError, match="references are pictures"):
        encode_references(adapter, torch.rand(2, 3, 3, 96, 96))
