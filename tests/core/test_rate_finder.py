"""The learning-rate range test on the toy base model, and what is suggested from a curve."""

import math

import pytest
import torch
from toy import config, draw, setup

from moa_attention.training.base import Batch
from moa_attention.training.lots import Lot
from moa_attention.training.rate_finder import HIGHEST, LOWEST, REPEATED, RateLoss, rising_losses, suggested_rate


def test_the_same_steps_are_repeated_at_rising_rates():
    adapter, base = setup()
    before = {name: tensor.clone() for name, tensor in adapter.state_dict().items()}
    drawn: list[tuple[int, Batch]] = []

    def examples(lot: Lot) -> Batch:
        drawn.append((lot.step, draw(lot)))
        return drawn[-1][1]

    curve = rising_losses(adapter, base, examples, config(1), steps=24)
    steps = [step for step, _ in drawn]
    assert steps == [n % REPEATED for n in range(len(steps))]
    assert torch.equal(drawn[0][1].latents, drawn[REPEATED][1].latents)
    rates = [point.rate for point in curve]
    assert rates[0] == pytest.approx(LOWEST * (HIGHEST / LOWEST) ** ((REPEATED - 1) / 23))
    factors = [b / a for a, b in zip(rates, rates[1:], strict=False)]
    assert factors == pytest.approx([(HIGHEST / LOWEST) ** (1 / 23)] * len(factors))
    assert curve[0].loss == pytest.approx(1, abs=1e-3), "a tiny rate changes nothing"
    assert min(point.loss for point in curve) < 0.9, "a good rate learns"
    assert any(not torch.equal(before[name], tensor) for name, tensor in adapter.state_dict().items())


def test_a_loss_that_is_not_finite_ends_the_test():
    adapter, base = setup()
    calls = 0

    def examples(lot: Lot) -> Batch:
        nonlocal calls
        calls += 1
        batch = draw(lot)
        return batch if calls <= 2 * REPEATED else Batch(**{**vars(batch), "latents": batch.latents * math.nan})

    assert len(rising_losses(adapter, base, examples, config(1), steps=24)) == 1
    assert calls == 2 * REPEATED + 1


def test_a_tenth_of_the_rate_with_the_lowest_loss_is_suggested():
    curve = [RateLoss(1e-5, 1.0), RateLoss(1e-3, 0.7), RateLoss(1e-1, 1.5)]
    assert suggested_rate(curve) == pytest.approx(1e-4)
    assert suggested_rate(curve[:1]) is None and suggested_rate([]) is None
