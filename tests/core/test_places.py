"""The place of each subject: parts of a foreground, and their assignment to words."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from moa_attention.routers.places import EXACT_ON_DEVICE, READING, assign_places, best_order, parts


def people(*spans: tuple[int, int]) -> Tensor:
    """(12,16): upright people from the sixth row down, each from one column to another."""
    found = torch.zeros(12, 16)
    for first, last in spans:
        found[5:, first:last] = 1
    return found


@pytest.mark.parametrize(
    "spans", [((1, 5), (9, 14)), ((2, 8), (8, 14)), ((0, 4), (12, 16)), ((0, 4), (5, 9), (11, 16)), ((3, 12),)]
)
def test_people_side_by_side_are_a_part_each_from_left_to_right(spans: tuple[tuple[int, int], ...]):
    found = parts(people(*spans), len(spans))
    assert torch.equal(found.sum(dim=0), torch.ones(12, 16))
    for part, span in zip(found, spans, strict=True):
        assert (part[5:, slice(*span)] == 1).all()


def test_an_empty_foreground_is_divided_too():
    found = assign_places(torch.zeros(3, 12, 16), torch.zeros(12, 16))
    assert torch.equal(found.sum(dim=0), torch.ones(12, 16))


def test_words_take_the_part_that_attends_most_to_them_else_they_are_read_from_left_to_right():
    left, right = people((1, 5)), people((9, 14))
    both = left + right

    def first_is_right(lead: float) -> bool:
        """Whether the first word gets the person on the right, whose map favours it over the second word by `lead`."""
        maps = torch.stack([both + lead * right, both])
        one, other = assign_places(maps, both)
        assert torch.equal(one + other, torch.ones(12, 16))
        return bool((one * right).sum() == right.sum())

    assert not first_is_right(0.0) and not first_is_right(READING) and first_is_right(3 * READING)


def test_three_words_are_assigned_together():
    spans = ((0, 4), (5, 9), (11, 16))
    one, two, three = (people(span) for span in spans)
    found = assign_places(torch.stack([three, one, two]), one + two + three)
    for part, person in zip(found, (three, one, two), strict=True):
        assert torch.equal(part * (one + two + three), person)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 9, EXACT_ON_DEVICE, EXACT_ON_DEVICE + 1])
def test_the_order_is_the_best_of_all(count: int):
    for seed in range(3):
        votes = torch.rand(count, count, generator=torch.Generator().manual_seed(seed))
        order = best_order(votes)
        assert sorted(order.tolist()) == list(range(count))
        _, best = linear_sum_assignment(votes.numpy(), maximize=True)
        assert order.tolist() == best.tolist()


def test_eight_words_are_assigned_together():
    """Each of eight people side by side is the place of the word whose map is highest there."""
    spans = [(2 * i, 2 * i + 2) for i in range(8)]
    order = [3, 0, 7, 5, 1, 6, 2, 4]
    maps = torch.stack([people(spans[i]) for i in order])
    found = assign_places(maps, people((0, 16)))
    for mask, i in zip(found, order, strict=True):
        assert torch.equal(mask * people((0, 16)), people(spans[i]))


def test_the_order_is_found_without_a_value_being_read():
    """A value that Python reads makes the device wait; on the meta device reading one is an error."""
    assert best_order(torch.empty(8, 8, device="meta")).shape == (8,)
