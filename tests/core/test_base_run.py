"""A run with subjects that repeats the base model's own where no subject has had a share."""

from __future__ import annotations

import torch
from torch import Tensor

from moa_attention.run.base_run import BaseRun

SHAPE = (2, 4, 3, 3)
HIGH, LOW = torch.tensor([9.0, 9.0]), torch.tensor([1.0, 1.0])
FIRST = [torch.zeros(SHAPE), torch.ones(SHAPE)]
"""Predictions of the first run: with the prompt, and the negative one."""


def run_of(*levels: Tensor) -> BaseRun:
    """A recorded first run."""
    run = BaseRun(SHAPE)
    for level in levels:
        assert run.evaluated(level, FIRST, {}) == FIRST
    run.repeat()
    return run


def predictions(*changed: int) -> list[Tensor]:
    """Of the second run: with subjects, the negative one, and without subjects; subjects change these rows of pixels of picture 0."""
    prior = torch.full(SHAPE, 5.0)
    personal = prior.clone()
    personal[0, 0, list(changed)] = 6.0
    return [personal, torch.full(SHAPE, 7.0), prior]


def test_predictions_are_the_first_runs_where_no_subject_ever_had_a_share():
    run = run_of(HIGH, LOW)
    positive, negative = run.evaluated(HIGH, predictions(0), {2: 0})
    assert (positive[0, :, 1:] == 0).all() and (positive[1] == 0).all()
    assert (negative[0, :, 0] == 7).all() and (negative[0, :, 1:] == 1).all()
    assert (positive[0, 0, 0] == 6).all() and (positive[0, 1:, 0] == 5).all()
    positive, negative = run.evaluated(LOW, predictions(1), {2: 0})
    assert (positive[0, 1:, 0] == 5).all(), "where the subject was before, the prior sees the new picture"
    assert (negative[0, :, :2] == 7).all() and (negative[0, :, 2] == 1).all() and (negative[1] == 1).all()
    assert not run.apart


def test_before_subjects_begin_everything_is_the_first_runs():
    run = run_of(HIGH)
    for found, first in zip(run.evaluated(HIGH, predictions()[:2], {}), FIRST, strict=True):
        assert torch.equal(found, first)


def test_evaluations_without_a_counterpart_are_left_as_they_are():
    cases = ((LOW, predictions(0)), (HIGH, [each[:1] for each in predictions(0)]))
    for level, made in cases:
        run = run_of(HIGH)
        found = run.evaluated(level, made, {2: 0})
        assert all(torch.equal(a, b) for a, b in zip(found, made[:2], strict=True))
        assert run.apart
    run = run_of()
    assert len(run.evaluated(HIGH, predictions(0), {2: 0})) == 2
    assert run.apart
