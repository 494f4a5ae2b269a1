"""The trainer on a toy base model: it learns, it can be killed and resumed, it averages its weights."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import config, draw, one_lot, setup

from moa_attention import MoAAdapter
from moa_attention.training.loop import train
from moa_attention.training.lots import generator_for
from moa_attention.training.objective import Objective, draw_timesteps, encode_references
from moa_attention.training.optimiser import learning_rate


def quiet(_step: int, _numbers: dict[str, float], _averaged: MoAAdapter) -> None:
    pass


def stop_after(calls: int) -> Callable[[], bool]:
    answers = iter([True] * calls + [False])
    return lambda: next(answers)


class Killed(Exception):
    pass


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[MoAAdapter, MoAAdapter]:
    adapter, base = setup()
    state = tmp_path_factory.mktemp("unbroken") / "state"
    return adapter, train(adapter, base, draw, config(5, schedule="cosine", warmup=2, save_every=3), state, quiet)


def test_a_stopped_run_resumes_to_the_unbroken_one(tmp_path: Path, unbroken: tuple[MoAAdapter, MoAAdapter]):
    settings = config(5, schedule="cosine", warmup=2, save_every=3)
    adapter, base = setup()
    train(adapter, base, draw, settings, tmp_path / "state", quiet, stop_after(2))
    assert not same(adapter, unbroken[0])
    adapter, base = setup()
    nn.init.normal_(
        adapter.get_parameter("fusion.widen.weight")
    )  # the state, not the caller, decides where to go on from
    average = train(adapter, base, draw, settings, tmp_path / "state", quiet)
    assert same(adapter, unbroken[0])
    assert same(average, unbroken[1])


def test_a_killed_run_goes_on_from_its_last_save(tmp_path: Path, unbroken: tuple[MoAAdapter, MoAAdapter]):
    settings = config(5, schedule="cosine", warmup=2, save_every=3)
    seen: list[int] = []

    def die(step: int, _numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        seen.append(step)
        if seen == [1, 2, 3, 4]:
            raise Killed

    adapter, base = setup()
    with pytest.raises(Killed):
        train(adapter, base, draw, settings, tmp_path / "state", die)
    adapter, base = setup()
    average = train(adapter, base, draw, settings, tmp_path / "state", die)
    assert seen == [1, 2, 3, 4, 4, 5]
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
    train(adapter, base, draw, config(15, router_weight=1.0), tmp_path / "state", lambda _, n, __: numbers.append(n))
    assert numbers[-1]["prior_outside"] > 0.6


def test_router_foreground_sends_subjects_to_the_personalised_branch(tmp_path: Path):
    adapter, base = setup()
    numbers: list[dict[str, float]] = []
    settings = config(15, router_weight=1.0, router_foreground=4.0)
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
    settings = config(3, ema_decay=0.9)
    average = train(
        adapter, base, draw, settings, tmp_path / "state", lambda *_: history.append(copy.deepcopy(adapter))
    )
    name = "layers.middle_0_0_attn2.to_v.weight"
    expected = history[0].state_dict()[name]  # the first update copies
    for later in history[1:]:
        expected = 0.9 * expected + 0.1 * later.state_dict()[name]
    torch.testing.assert_close(average.state_dict()[name], expected)
    assert not torch.equal(average.state_dict()[name], adapter.state_dict()[name])
    assert not torch.equal(start.state_dict()[name], adapter.state_dict()[name])
    assert not any(p.requires_grad for p in average.parameters())


def test_learning_rate_warms_up_and_falls():
    constant = config(100, warmup=10)
    assert learning_rate(0, constant) == pytest.approx(1e-3)
    assert learning_rate(50, constant) == learning_rate(99, constant) == pytest.approx(1e-2)
    cosine = config(100, schedule="cosine")
    assert learning_rate(0, cosine) == pytest.approx(1e-2)
    assert learning_rate(50, cosine) == pytest.approx(1e-2 * (0.05 + 0.475))
    assert learning_rate(100, cosine) == pytest.approx(5e-4)


def test_references_are_pictures_or_features():
    adapter, _ = setup()
    assert encode_references(adapter, torch.rand(2, 3, 3, 64, 64)).shape == (2, 3, 8)
    features = torch.rand(2, 3, 8)
    assert encode_references(adapter, features) is features
    adapter.encoder = None
    with pytest.raises(ValueError, match="references are pictures"):
        encode_references(adapter, torch.rand(2, 3, 3, 64, 64))
