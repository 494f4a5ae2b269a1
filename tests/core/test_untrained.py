"""Routers without training: where they let subjects speak."""

from __future__ import annotations

import torch
from torch import Tensor

from moa_attention.config import LayerSpec
from moa_attention.untrained import ConstantRouter, reading
from moa_attention.word_router import HYSTERESIS, SOFTNESS, WordRouter, decide

SLOTS = torch.tensor([[0, 1, 0, 2]])
DEEP = LayerSpec("middle_0_0_attn2", 1, 4, 4, 1, True)
UP = LayerSpec("output_3_0_attn2", 2, 4, 4, 1, True)
OUTERMOST = LayerSpec("output_9_0_attn2", 3, 4, 4, 1, False)
GRID = (8, 8)


def halves() -> tuple[Tensor, Tensor]:
    """Who stands left and who right: (8,8) each, with an empty upper half."""
    left, right = torch.zeros(GRID), torch.zeros(GRID)
    left[4:, :4], right[4:, 4:] = 1, 1
    return left, right


def look(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of a layer whose pixels look at the tokens of two subjects, (8,8) each, else at the first token."""
    key = 6 * torch.eye(4)[None]
    query = torch.stack([1 - first - second, first, torch.zeros(GRID), second], dim=-1).flatten(0, 1)[None]
    return query, key


def call(router: WordRouter, first: Tensor, second: Tensor, row: str = "a") -> Tensor:
    """One U-Net call; the shares it was given (2,h,w)."""
    shares, watch = router.open({row: reading(SLOTS)[0]}, SLOTS, 2)
    assert watch is not None
    watch.see(DEEP, (4, 4), lambda: (_ for _ in ()).throw(AssertionError("asked a layer that knows nothing")))
    watch.see(UP, GRID, lambda: look(first, second))
    watch.see(OUTERMOST, (16, 16), lambda: (_ for _ in ()).throw(AssertionError("asked the outermost layer")))
    watch.close()
    return shares[0]


def overlap(shares: Tensor, where: Tensor) -> float:
    said = shares > 0.5
    return float((said & (where > 0)).sum() / (said | (where > 0)).sum())


def test_constant_lets_everybody_speak_who_is_there():
    slots = torch.tensor([[0, 1, 2], [0, 2, 0]])
    shares, watch = ConstantRouter().open(dict(zip("ab", reading(slots), strict=True)), slots, 2)
    assert shares.tolist() == [[[[1]], [[1]]], [[[0]], [[1]]]] and watch is None


def test_the_prior_speaks_until_something_was_seen_and_then_everybody_at_home():
    left, right = halves()
    router = WordRouter()
    router.begin()
    assert not call(router, left, right).any()
    shares = call(router, left, right)
    assert overlap(shares[0], left) > 0.6 and overlap(shares[1], right) > 0.6
    assert shares[:, :2].max() < 0.1, "nobody in the empty upper half"
    assert (shares.sum(dim=0) <= 1 + 1e-6).all()


def test_exchanged_words_exchange_the_places():
    left, right = halves()
    one, other = WordRouter(), WordRouter()
    forth, back = [
        [call(router, *pair) for _ in range(3)] for router, pair in ((one, (left, right)), (other, (right, left)))
    ]
    assert forth[2].any() and torch.allclose(forth[2], back[2].flip(0))


def test_rows_do_not_see_each_other_and_a_new_run_forgets():
    left, right = halves()
    router = WordRouter()
    call(router, left, right, "a")
    call(router, right, left, "b")
    a, b = call(router, left, right, "a"), call(router, right, left, "b")
    assert torch.allclose(a, b.flip(0)) and not torch.allclose(a, b)
    router.begin()
    assert not call(router, left, right, "a").any()


def test_who_is_not_there_has_no_share():
    left, right = halves()
    router, slots = WordRouter(), torch.tensor([[0, 0, 0, 2]])
    row = {"a": reading(slots)[0]}
    _, watch = router.open(row, slots, 2)
    assert watch is not None
    watch.see(UP, GRID, lambda: look(left, right))
    watch.close()
    shares, _ = router.open(row, slots, 2)
    assert not shares[0, 0].any() and overlap(shares[0, 1], right) > 0.6


def test_a_pixel_stays_what_it_was():
    ramp = torch.linspace(0, 1, 64)[None, None].expand(1, 8, 64)
    stays, comes = (decide(ramp, torch.full((1, 8, 64), was)) for was in (1.0, 0.0))
    assert (stays >= comes).all() and (stays > 0.5).sum() > (comes > 0.5).sum()
    assert HYSTERESIS < SOFTNESS
