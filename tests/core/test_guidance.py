"""Subject guidance: the mean share of a call, and the blend of predictions with and without subjects."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from routed import call_info, spec
from torch import Tensor

from moa_attention.method.layer import Routing
from moa_attention.run.guidance import SubjectGuidance

COARSE, FINE = spec("middle_0_0_attn1", 0, 8, 8, 2, True), spec("input_1_0_attn2", 1, 8, 8, 2, True)
OUTER = spec("output_9_0_attn1", 2, 8, 8, 2, False)
SIZE = (4, 6)


def guidance(strength: float = 1.0) -> SubjectGuidance:
    return SubjectGuidance(strength, [COARSE, FINE, OUTER])


def forbidden() -> Tensor:
    raise AssertionError("the prior is known")


def record(run: SubjectGuidance, coarse: Tensor, fine: Tensor) -> dict[int, Tensor]:
    """R of a call of one row, number 2 of its rows; maps (1,h,w)."""
    call = call_info()
    observe = run.begin_call(call)
    for layer, share in ((COARSE, coarse), (FINE, fine), (OUTER, torch.ones(1, 4, 6))):
        observe(layer, Routing(share.flatten(1), share, share, (share.shape[1], share.shape[2])))
    shares = run.shares(call, [2], SIZE)
    run.end_call(call)
    return shares


def test_the_share_is_the_mean_over_the_supervised_layers_at_the_latents_resolution():
    shares = record(guidance(), torch.full((1, 2, 3), 0.2), torch.full((1, 4, 6), 0.6))
    assert shares.keys() == {2}
    torch.testing.assert_close(shares[2], torch.full((1, 1, *SIZE), 0.4))


def test_a_call_that_no_layer_computes_has_the_share_of_the_one_before():
    run = guidance()
    found = record(run, torch.full((1, 2, 3), 0.2), torch.full((1, 4, 6), 0.6))[2]
    for again, expected in ((run, found), (guidance(), torch.zeros_like(found))):
        call = call_info()
        again.begin_call(call)
        assert torch.equal(again.shares(call, [0], SIZE)[0], expected)


def ramp() -> Tensor:
    """Shares 0, 0.1, 0.2, 0.3, 0.6, 1 from left to right."""
    return torch.tensor([0, 0.1, 0.2, 0.3, 0.6, 1.0]).expand(1, 1, *SIZE)


@pytest.mark.parametrize("strength", [1.0, 1.6])
def test_the_formula(strength: float):
    negative, prior, personal = torch.randn(3, 1, 4, *SIZE).unbind()
    personal[..., :2] = torch.nan  # there w is 0
    blended = guidance(strength).blend(torch.cat((personal, negative, prior)), [1, 0, -1], {0: ramp()}, forbidden)
    assert torch.equal(blended[1:], torch.cat((negative, prior)))
    assert torch.equal(blended[:1, ..., :2], prior[..., :2])
    weights = torch.tensor([0.5, 1.0, 1.0, 1.0])
    expected = prior[..., 2:] + strength * weights * (personal - prior)[..., 2:]
    torch.testing.assert_close(blended[:1, ..., 2:], expected)


def calls(*parts: tuple[list[int], Tensor]) -> Callable[[SubjectGuidance], Tensor]:
    """The rows of an evaluation in several calls, all shares 1."""

    def blend(run: SubjectGuidance) -> Tensor:
        share = torch.ones(1, 1, *SIZE) * 0.2
        return torch.cat(
            [
                run.blend(rows, pairs, {i: share for i, p in enumerate(pairs) if p > 0}, forbidden)
                for pairs, rows in parts
            ]
        )

    return blend


def test_rows_find_their_prior_in_any_call_of_the_evaluation():
    one, two, alone, other = torch.randn(4, 2, 4, *SIZE).unbind()  # two pictures or tiles each
    run = guidance()
    run.begin_evaluation({})
    together = calls(([-1, -1, -2, -2, 2, 2, 1, 1], torch.cat((alone, other, two, one))))(run)[4:]
    run.begin_evaluation({})
    tiles = torch.cat([torch.cat((alone[i], other[i], two[i], one[i])).view(4, 4, *SIZE) for i in range(2)])
    mixed = calls(([-1, -2, 2, 1] * 2, tiles))(run)
    assert torch.equal(mixed[[2, 6]], together[:2]) and torch.equal(mixed[[3, 7]], together[2:])
    run.begin_evaluation({})
    split = calls(([-1, -1], alone), ([-2, -2], other), ([2, 2], two), ([1], one[:1]), ([1], one[1:]))(run)[4:]
    assert torch.equal(split, together)


def test_a_prior_that_comes_later_is_computed():
    run, personal, prior = guidance(), torch.randn(1, 4, *SIZE), torch.randn(1, 4, *SIZE)
    blended = run.blend(personal, [1], {0: torch.full((1, 1, *SIZE), 0.05)}, lambda: prior)
    assert torch.equal(blended, prior)
    other = torch.randn(1, 4, *SIZE)
    run.blend(prior, [-1], {}, forbidden)
    run.blend(other, [-1], {}, forbidden)
    second = run.blend(personal, [1], {0: torch.zeros(1, 1, *SIZE)}, forbidden)
    assert torch.equal(second, other), "the late one belongs to the first row"


def test_a_row_whose_subjects_are_inactive_is_the_priors():
    personal, prior = torch.randn(1, 4, *SIZE), torch.randn(1, 4, *SIZE)
    assert torch.equal(guidance().blend(torch.cat((prior, personal)), [-1, 1], {}, forbidden)[1:], prior)


def test_other_nodes_see_the_samplers_lists():
    run = guidance()
    run.begin_evaluation({2: 0})
    assert run.original([2, 1, 0]) == [0, 1, 0]
