"""Who stands where: parts of a foreground, and who gets which."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from moa_attention.places import READING, parts, settle


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


def test_nobody_at_all_is_shared_out_without_complaint():
    found = settle(torch.zeros(3, 12, 16), torch.zeros(12, 16))
    assert torch.equal(found.sum(dim=0), torch.ones(12, 16))


def test_words_take_the_part_that_looks_most_for_them_else_they_are_read_from_left_to_right():
    left, right = people((1, 5)), people((9, 14))
    both = left + right

    def first_is_right(lead: float) -> bool:
        """Whether the first word gets the right person, to whom it is that much closer than the second word."""
        maps = torch.stack([both + lead * right, both])
        one, other = settle(maps, both)
        assert torch.equal(one + other, torch.ones(12, 16))
        return bool((one * right).sum() == right.sum())

    assert not first_is_right(0.0) and not first_is_right(READING) and first_is_right(3 * READING)


def test_three_words_are_settled_together():
    spans = ((0, 4), (5, 9), (11, 16))
    one, two, three = (people(span) for span in spans)
    found = settle(torch.stack([three, one, two]), one + two + three)
    for part, person in zip(found, (three, one, two), strict=True):
        assert torch.equal(part * (one + two + three), person)
