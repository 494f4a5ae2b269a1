"""Sparse routing against dense: what wins is the same, what loses differs by no more than its share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moa_attention.budget import AutomaticBudget, Budget, enough
from moa_attention.config import LayerSpec, MoAConfig
from moa_attention.expert import Projections
from moa_attention.image_prompt import ImagePromptLayer, Prompts
from moa_attention.layer import MoALayer, RoutedLayer, Routing
from moa_attention.memory import ROWS, PromptMemory
from moa_attention.projection import Place
from moa_attention.sparse import strongest
from moa_attention.step import Step
from moa_attention.tuned import TunedLayer

SELF = LayerSpec("input_1_0_attn1", 0, 32, 32, 4, True)
CROSS = LayerSpec("input_1_0_attn2", 0, 32, 24, 4, True)
GRID = (5, 8)


class Prior(nn.Module):
    """A base model's projections."""

    def __init__(self, spec: LayerSpec):
        super().__init__()
        self.to_q, self.to_out = nn.Linear(32, 32, bias=False), nn.Sequential(nn.Linear(32, 32))
        self.to_k, self.to_v = (nn.Linear(spec.context, 32, bias=False) for _ in range(2))


def moa(spec: LayerSpec, **options: Any) -> MoALayer:
    return MoALayer(spec, MoAConfig("test", (spec,), 24, "test", 8, **options))


KINDS: dict[str, Any] = {
    "self": lambda: moa(SELF),
    "cross": lambda: moa(CROSS),
    "low rank": lambda: moa(SELF, rank=3),
    "apart": lambda: moa(CROSS, router="none"),
    "image prompt": lambda: ImagePromptLayer(CROSS, Place()),
    "face": lambda: ImagePromptLayer(CROSS, Place(), 3),
    "tuned": lambda: TunedLayer(SELF, 3, Place()),
}


def case(kind: str) -> tuple[RoutedLayer, dict[str, Any], Tensor]:
    """A layer, its arguments, and the shares of two subjects if it is told any."""
    torch.manual_seed(0)
    layer = KINDS[kind]()
    z, prior = torch.randn(2, 40, 32), torch.randn(2, 40, 32)
    context: Any = z
    if layer.spec.is_cross:
        context = torch.randn(2, 7, 24)
        if kind == "apart":
            context = torch.randn(2, 2, 7, 24)
        elif kind != "cross":
            context = Prompts(context, torch.randn(2, 2, 4, 24))
    arguments = {"hidden": z, "context": context, "prior": prior, "base": Projections.of(Prior(layer.spec))}
    return layer, {**arguments, "grid": GRID}, torch.rand(2, 2, 40)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_winners_are_as_dense_and_the_others_the_priors(kind: str):
    layer, arguments, shares = case(kind)
    told = {} if layer.router is not None else {"shares": shares}
    seen: list[Routing] = []
    dense = layer(**arguments, **told, observe=lambda _, routing: seen.append(routing))
    sparse = layer(**arguments, **told, pixels=10, observe=lambda _, routing: seen.append(routing))
    personal, prior = seen[0].personal, arguments["prior"]
    assert torch.equal(seen[1].personal, personal)
    won = torch.zeros(2, 40, dtype=torch.bool)
    for row in range(2):
        won[row, personal[row].argsort(descending=True)[:10]] = True
    torch.testing.assert_close(sparse[won], dense[won], rtol=1e-5, atol=1e-5)
    assert torch.equal(sparse[~won], prior[~won])
    assert (dense[~won] - prior[~won]).abs().max() > 1e-2
    assert (dense[won] - prior[won]).abs().max() > 1e-2


@torch.no_grad()
def test_the_error_is_at_most_the_mass_left_out_times_the_distance_of_the_branches():
    layer, arguments, _ = case("self")
    seen: list[Routing] = []
    dense = layer(**arguments, observe=lambda _, routing: seen.append(routing))
    personal = layer(**arguments, shares=torch.ones(2, 1, 40))
    r = seen[0].personal
    distance = (personal - arguments["prior"]).norm(dim=-1)
    for pixels in (1, 10, 25, 39):
        error = (layer(**arguments, pixels=pixels) - dense).norm(dim=-1)
        left = r.sort(dim=1).values[:, : 40 - pixels]
        assert torch.all(error <= r * distance + 1e-5)
        assert torch.all(error.sum(dim=1) <= left.sum(dim=1) * distance.amax(dim=1) + 1e-4)
        assert error.max() <= left.max() * distance.max() + 1e-5
        assert error.max() > 0.1 * left.max() * distance.min(), "nothing was left out"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_as_many_pixels_as_there_are_is_dense_bit_for_bit(kind: str):
    layer, arguments, shares = case(kind)
    told = {} if layer.router is not None else {"shares": shares}
    assert torch.equal(layer(**arguments, **told, pixels=40), layer(**arguments, **told))


@torch.no_grad()
def test_of_a_layer_in_which_nobody_speaks_only_the_router_is_computed():
    layer, arguments, _ = case("self")
    seen: list[Routing] = []
    forbidden = {**arguments, "base": None, "context": None}
    out = layer(**forbidden, pixels=0, observe=lambda _, routing: seen.append(routing))
    assert torch.equal(out, arguments["prior"])
    assert torch.equal(seen[0].personal, layer.decide(arguments["hidden"]).personal)


def test_winners_of_every_row_are_its_own():
    won = strongest(torch.tensor([[0.1, 0.9, 0.2, 0.8], [0.7, 0.0, 0.6, 0.1]]), 2)
    assert sorted(won.places.tolist()) == [1, 3, 4, 6]
    x = torch.arange(16.0).view(2, 4, 2)
    back = won.put(-x, won.take(x))
    assert torch.equal(back[0], torch.tensor([[0, -1], [2, 3], [-4, -5], [6, 7.0]]))


def test_gradients_reach_the_winners_alone():
    layer, arguments, _ = case("self")
    out = layer(**arguments, pixels=10)
    out.sum().backward()
    assert isinstance(layer, MoALayer) and isinstance(layer.to_q, nn.Linear)
    assert layer.to_q.weight.grad is not None and layer.to_q.weight.grad.abs().sum() > 0
    assert layer.router is not None and layer.router.project.weight.grad.abs().sum() > 0


def test_a_budget_says_how_many_pixels():
    budget = Budget(0.25, {"silent": 0.0, "all": 1.0})
    assert budget.pixels("any", (5, 8)) == 10
    assert budget.pixels("any", (1, 1)) == 1
    assert budget.pixels("silent", (5, 8)) == 0
    assert budget.pixels("all", (5, 8)) is None and Budget().pixels("any", (5, 8)) is None


def routing(share: float, others: int = 5) -> Routing:
    """`share` of the pixels of one row, and so many of another's, are subjects'."""
    personal = torch.zeros(2, 100)
    personal[0, :others], personal[1, : round(100 * share)] = 0.9, 0.9
    return Routing(personal, personal, personal, (10, 10))


def test_an_automatic_budget_looks_ever_more_rarely_and_finds_what_is_routed():
    automatic, looked = AutomaticBudget(threshold=0.5), []
    for call in range(1, 18):
        budget, look = automatic.open("prompt")
        if call == 1:
            assert budget.pixels(SELF.name, (10, 10)) is None
        elif call <= 5:
            assert budget.pixels(SELF.name, (4, 4)) == 6
        assert budget.pixels(CROSS.name, (4, 4)) == (None if call == 1 else 0 if call <= 8 else 11)
        if look is not None:
            looked.append(call)
            look(SELF, routing(0.3))
            look(CROSS, routing(0.6) if call >= 8 else routing(0.0, others=0))
    assert looked == [1, 2, 4, 8, 16]
    assert automatic.open("another prompt")[0].pixels(SELF.name, (10, 10)) is None
    assert 0.4 < automatic.mean() < 0.7
    automatic.begin()
    assert automatic.mean() == 1 and automatic.open("prompt")[0].pixels(SELF.name, (10, 10)) is None


@pytest.mark.parametrize(
    ("loud", "quiet", "expected"), [(0.9, 0.1, 1), (0.9, 0.04, 5), (0.06, 0.004, 1), (0.003, 0.003, 0)]
)
def test_what_counts_is_measured_by_the_loudest_pixel(loud: float, quiet: float, expected: int):
    """A quarter of the pixels is loud."""
    automatic, personal = AutomaticBudget(), torch.full((1, 100), quiet)
    personal[:, :25] = loud
    _, look = automatic.open("prompt")
    assert look is not None
    look(SELF, Routing(personal, personal, personal, (10, 10)))
    pixels = automatic.open("prompt")[0].pixels(SELF.name, (4, 4))
    assert pixels == (None if expected == 1 else expected)


def test_shares_are_rounded_up_with_a_reserve():
    assert [enough(s) for s in (0.0, 0.001, 0.25, 0.26, 0.95, 1.0)] == [0, 2 / 16, 5 / 16, 6 / 16, 1, 1]


@pytest.mark.parametrize("apart", [False, True])
@torch.no_grad()
def test_kept_words_and_new_subjects_make_the_whole_prompt(apart: bool):
    torch.manual_seed(0)
    layer, base = moa(CROSS), Projections.of(Prior(CROSS))
    context, slots = torch.randn(3, 7, 24), torch.tensor([[0, 0, 1, 0, 2, 0, 0], [2, 0, 0, 0, 0, 1, 1]])
    step = Step(torch.tensor([0, 2]), slots, torch.randn(1, 2, 2, 24), torch.zeros(()), apart=apart)
    z = torch.randn(2, 40, 32)
    whole = layer.listen(step.context_for(layer, z, context, base), base)
    kept = {CROSS.name: layer.listen(step.to_keep(context), base)}
    pieces = Step(step.rows, slots, step.tokens, step.prior_bias, apart=apart, kept=kept).context_for(
        layer, z, torch.full_like(context, torch.nan), base
    )
    torch.testing.assert_close(pieces.key, whole.key)
    torch.testing.assert_close(pieces.value, whole.value)
    assert whole.key.ndim == (4 if apart else 3)


def test_prompts_are_told_apart_by_the_tensors_themselves():
    memory, heard = PromptMemory(), []
    context, subjects = torch.zeros(1, 7, 24), torch.zeros(1, 1, 8)
    assert memory.number(context, subjects) == memory.number(context, subjects) == 1
    assert memory.number(context.clone(), subjects) == 2
    assert memory.number(context, subjects.clone()) == 3
    assert memory.number(torch.zeros(2, 7, 24), subjects) == 0, "rows of a batch may be sliced"
    for who in ("a", "b", "a"):
        memory.recall(who, lambda who=who: heard.append(who) or {})
    assert heard == ["a", "b"]
    for number in range(ROWS):
        memory.recall(number, dict)
    assert len(memory.kept) == ROWS and "a" not in memory.kept
    memory.begin()
    assert memory.number(torch.zeros(1, 7, 24), subjects) == 1


def test_a_look_at_which_nobody_spoke_anywhere_silences_nobody():
    """Routers that learn while they look on have nothing to say in the first call."""
    automatic = AutomaticBudget()
    _, look = automatic.open("prompt")
    assert look is not None
    for spec in (SELF, CROSS):
        look(spec, routing(0.0, others=0))
    budget, look = automatic.open("prompt")
    assert look is not None
    assert budget.pixels(SELF.name, (4, 4)) is None and budget.pixels(CROSS.name, (4, 4)) is None
    look(SELF, routing(0.3))
    look(CROSS, routing(0.0, others=0))
    budget, _ = automatic.open("prompt")
    assert budget.pixels(SELF.name, (4, 4)) == 6 and budget.pixels(CROSS.name, (4, 4)) == 0
