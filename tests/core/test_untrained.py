"""Routers without training: where they give subjects a share."""

from __future__ import annotations

import torch
from routed import WHOLE, call_info, spec
from torch import Tensor

from moa_attention.method.layer import PriorAttention, Routing
from moa_attention.routers.base import ConstantRouter, subjects_of_rows
from moa_attention.routers.words import HYSTERESIS, SOFTNESS, WordRouter, subject_shares
from moa_attention.run.listener import CallInfo

SLOTS = torch.tensor([[0, 1, 0, 2]])
DEEP = spec("middle_0_0_attn2", 1, 4, 4, 1, True)
UP = spec("output_3_0_attn2", 2, 4, 4, 1, True)
OUTERMOST = spec("output_9_0_attn2", 3, 4, 4, 1, False)
GRID = (8, 8)


def halves() -> tuple[Tensor, Tensor]:
    """The places of two subjects, left and right: (8,8) each, with an empty upper half."""
    left, right = torch.zeros(GRID), torch.zeros(GRID)
    left[4:, :4], right[4:, 4:] = 1, 1
    return left, right


def attend(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of a layer whose pixels attend to the tokens of two subjects, (8,8) each, else at the first token."""
    key = 6 * torch.eye(4)[None]
    query = torch.stack([1 - first - second, first, torch.zeros(GRID), second], dim=-1).flatten(0, 1)[None]
    return query, key


def describe(slots: Tensor, *rows: str) -> CallInfo:
    return call_info(views=[WHOLE] * len(rows), prompts=rows, slots=slots, subjects=subjects_of_rows(slots), count=2)


def routing(grid: tuple[int, int], prior: PriorAttention) -> Routing:
    empty = torch.zeros(1, 0, 4)
    return Routing(torch.zeros(1, grid[0] * grid[1]), empty, empty, grid, prior)


def call(router: WordRouter, first: Tensor, second: Tensor, row: str = "a") -> Tensor:
    """One U-Net call; the shares that applied in it, (2,h,w)."""
    info = describe(SLOTS, row)
    shares, observe = router.shares(info), router.begin_call(info)
    assert observe is not None

    def refuse() -> tuple[Tensor, Tensor]:
        raise AssertionError("this layer's attention must not be computed")

    observe(DEEP, routing((4, 4), refuse))
    observe(UP, routing(GRID, lambda: attend(first, second)))
    observe(OUTERMOST, routing((16, 16), refuse))
    router.end_call(info)
    return shares[0]


def overlap(shares: Tensor, where: Tensor) -> float:
    active = shares > 0.5
    return float((active & (where > 0)).sum() / (active | (where > 0)).sum())


def test_constant_gives_every_present_subject_the_full_share():
    slots = torch.tensor([[0, 1, 2], [0, 2, 0]])
    router, info = ConstantRouter(), describe(slots, "a", "b")
    assert router.shares(info).tolist() == [[[[1]], [[1]]], [[[0]], [[1]]]] and router.begin_call(info) is None


def test_shares_are_zero_until_attention_was_observed_and_then_in_each_subjects_place():
    left, right = halves()
    router = WordRouter()
    router.begin_run()
    assert not call(router, left, right).any()
    shares = call(router, left, right)
    assert overlap(shares[0], left) > 0.6 and overlap(shares[1], right) > 0.6
    assert shares[:, :2].max() < 0.1, "no subject in the empty upper half"
    assert (shares.sum(dim=0) <= 1 + 1e-6).all()


def test_exchanged_words_exchange_the_places():
    left, right = halves()
    one, other = WordRouter(), WordRouter()
    forth, back = [
        [call(router, *pair) for _ in range(3)] for router, pair in ((one, (left, right)), (other, (right, left)))
    ]
    assert forth[2].any() and torch.allclose(forth[2], back[2].flip(0))


def test_rows_do_not_affect_each_other_and_a_new_run_starts_anew():
    left, right = halves()
    router = WordRouter()
    call(router, left, right, "a")
    call(router, right, left, "b")
    a, b = call(router, left, right, "a"), call(router, right, left, "b")
    assert torch.allclose(a, b.flip(0)) and not torch.allclose(a, b)
    router.begin_run()
    assert not call(router, left, right, "a").any()


def test_an_absent_subject_has_no_share():
    left, right = halves()
    router, slots = WordRouter(), torch.tensor([[0, 0, 0, 2]])
    info = describe(slots, "a")
    observe = router.begin_call(info)
    assert observe is not None
    observe(UP, routing(GRID, lambda: attend(left, right)))
    router.end_call(info)
    shares = router.shares(info)
    assert not shares[0, 0].any() and overlap(shares[0, 1], right) > 0.6


def test_a_pixel_stays_what_it_was():
    ramp = torch.linspace(0, 1, 64)[None, None].expand(1, 8, 64)
    stays, comes = (subject_shares(ramp, torch.full((1, 8, 64), was)) for was in (1.0, 0.0))
    assert (stays >= comes).all() and (stays > 0.5).sum() > (comes > 0.5).sum()
    assert HYSTERESIS < SOFTNESS
