"""The numbers of an evaluation, on cases that can be worked out by hand."""

import math

import pytest
import torch

from recipes.adapter.evaluation import measures

RIGHT, UP, LEFT = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([-3.0, 0.0])


def at(degrees: float, length: float = 1.0) -> torch.Tensor:
    return length * torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def test_identity_is_a_cosine_that_is_never_negative_and_zero_without_a_face():
    assert measures.identity(at(60)[None], RIGHT[None]) == pytest.approx(0.5, abs=1e-6)
    assert measures.identity(LEFT[None], RIGHT[None]) == 0
    assert measures.identity(torch.zeros(0, 2), RIGHT[None]) == 0


def test_two_faces_are_matched_greedily_and_the_worse_one_counts():
    references = torch.stack([at(0), at(90)])
    found = torch.stack([at(80), at(45), at(200)])
    assert measures.match(found, references) == [1, 0]
    assert measures.identity(found, references) == pytest.approx(math.cos(math.radians(45)), abs=1e-6)
    assert measures.match(found[:1], references) == [None, 0]
    assert measures.identity(found[:1], references) == 0


def test_greedy_means_that_the_best_pair_is_served_first():
    references = torch.stack([at(0), at(20)])
    found = torch.stack([at(15), at(90)])
    assert measures.match(found, references) == [1, 0]


def test_recognised_is_a_distance_not_a_direction():
    assert measures.recognised(RIGHT[None] + 0.5, RIGHT[None], 0.8) == 1
    assert measures.recognised(RIGHT[None] * 2, RIGHT[None], 0.8) == 0
    assert measures.recognised(torch.zeros(0, 2), RIGHT[None], 0.8) == 0
    assert measures.recognised(torch.stack([RIGHT, UP]), torch.stack([UP, LEFT]), 0.8) == 0


def test_background_change_counts_only_the_outside():
    prior, picture = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    picture[:, 0, 0], picture[0, 1, 1] = 1, 0.6
    outside = torch.tensor([[False, True], [True, True]])
    assert measures.background_change(picture, prior, outside) == pytest.approx(0.36 / 9)
    assert measures.background_change(prior, prior, outside) == 0
    assert measures.background_change(picture, prior, torch.zeros(2, 2, dtype=torch.bool)) is None


def test_background_variance_is_unbiased_and_over_subjects():
    pictures = [torch.full((3, 2, 2), value) for value in (0.1, 0.3, 0.5)]
    for number, picture in enumerate(pictures):
        picture[:, 0, 0] = number
    outside = torch.tensor([[False, True], [True, True]])
    assert measures.background_variance(pictures, outside) == pytest.approx(0.04)
    assert measures.background_variance([pictures[0]] * 2, outside) == 0
    assert measures.background_variance(pictures[:1], outside) is None
    assert measures.background_variance(pictures, ~(outside | True)) is None


def test_a_mean_inside_nothing_is_not_a_number():
    values = torch.tensor([[0.2, 0.4], [0.9, 0.9]])
    assert measures.mean_inside(values, torch.tensor([[True, True], [False, False]])) == pytest.approx(0.3)
    assert measures.mean_inside(values, torch.zeros(2, 2, dtype=torch.bool)) is None


@pytest.mark.parametrize(("degrees", "expected"), [(0, 1), (90, -1), (45, 0), (30, 1 / 3), (-40, 1), (180, -1)])
def test_copy_paste_runs_from_the_other_picture_to_the_reference(degrees: float, expected: float):
    assert measures.copy_paste(at(degrees), RIGHT, UP) == pytest.approx(expected, abs=1e-5)


def test_copy_paste_of_one_picture_twice_is_undefined():
    assert measures.copy_paste(at(30), RIGHT, 3 * RIGHT) is None
