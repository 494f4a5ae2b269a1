"""Sparse routing against dense: what wins is the same, what loses differs by no more than its share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from routed import WHOLE, call_info, run, spec
from torch import Tensor, nn

from moa_attention.adapters.ip_adapter import ImagePromptLayer, LowRankLayer, PromptTokens
from moa_attention.method.expert import Projections
from moa_attention.method.layer import MoALayer, Routing
from moa_attention.method.sparse import strongest
from moa_attention.method.spec import LayerSpec, MoAConfig
from moa_attention.run.budget import AutomaticBudget, Budget, rounded
from moa_attention.run.prompt_cache import ENTRIES, PromptCache
from moa_attention.run.step import Step

SELF = spec("input_1_0_attn1", 0, 32, 32, 4, True)
CROSS = spec("input_1_0_attn2", 0, 32, 24, 4, True)
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
    "image prompt": lambda: ImagePromptLayer(CROSS),
    "face": lambda: ImagePromptLayer(CROSS, 3),
    "tuned": lambda: LowRankLayer(SELF, 3),
}


def case(kind: str) -> tuple[Any, dict[str, Any], Tensor]:
    """A layer, its arguments, and the shares of two subjects for a layer without a router."""
    torch.manual_seed(0)
    layer = KINDS[kind]()
    z, prior = torch.randn(2, 40, 32), torch.randn(2, 40, 32)
    context: Any = z
    if layer.spec.is_cross:
        context = torch.randn(2, 7, 24)
        if kind == "apart":
            context = torch.randn(2, 2, 7, 24)
        elif kind != "cross":
            context = PromptTokens(context, torch.randn(2, 2, 4, 24))
    arguments = {"hidden": z, "context": context, "prior": prior, "base": Projections.of(Prior(layer.spec))}
    return layer, {**arguments, "grid": GRID}, torch.rand(2, 2, 40)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_winners_are_as_dense_and_the_others_the_priors(kind: str):
    layer, arguments, shares = case(kind)
    given: dict[str, Any] = {} if layer.router is not None else {"shares": shares}
    recorded: list[Routing] = []
    dense = run(layer, **arguments, **given, observe=lambda _, routing: recorded.append(routing))
    sparse = run(layer, **arguments, **given, pixels=10, observe=lambda _, routing: recorded.append(routing))
    personal, prior = recorded[0].personal, arguments["prior"]
    assert torch.equal(recorded[1].personal, personal)
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
    recorded: list[Routing] = []
    dense = run(layer, **arguments, observe=lambda _, routing: recorded.append(routing))
    personal = run(layer, **arguments, shares=torch.ones(2, 1, 40))
    r = recorded[0].personal
    distance = (personal - arguments["prior"]).norm(dim=-1)
    for pixels in (1, 10, 25, 39):
        error = (run(layer, **arguments, pixels=pixels) - dense).norm(dim=-1)
        left = r.sort(dim=1).values[:, : 40 - pixels]
        assert torch.all(error <= r * distance + 1e-5)
        assert torch.all(error.sum(dim=1) <= left.sum(dim=1) * distance.amax(dim=1) + 1e-4)
        assert error.max() <= left.max() * distance.max() + 1e-5
        assert error.max() > 0.1 * left.max() * distance.min(), "nothing was left out"


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_as_many_pixels_as_there_are_is_dense_bit_for_bit(kind: str):
    layer, arguments, shares = case(kind)
    given: dict[str, Any] = {} if layer.router is not None else {"shares": shares}
    assert torch.equal(run(layer, **arguments, **given, pixels=40), run(layer, **arguments, **given))


@torch.no_grad()
def test_only_the_router_is_computed_in_a_layer_without_active_subjects():
    layer, arguments, _ = case("self")
    recorded: list[Routing] = []
    forbidden: dict[str, Any] = {**arguments, "base": None, "context": None}
    out = run(layer, **forbidden, pixels=0, observe=lambda _, routing: recorded.append(routing))
    assert torch.equal(out, arguments["prior"])
    assert torch.equal(recorded[0].personal, layer.gate(arguments["hidden"]).personal)


@pytest.mark.parametrize("pixels", [None, 25], ids=["dense", "sparse"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_without_a_share_a_pixel_is_the_priors_whatever_the_branch_computes(
    kind: str, pixels: int | None, monkeypatch: pytest.MonkeyPatch
):
    layer, arguments, shares = case(kind)
    shares[..., :20] = 0
    right = run(layer, **arguments, shares=shares, pixels=pixels)
    keys_values = layer.keys_values(arguments["context"], arguments["base"])
    broken = keys_values._replace(value=torch.full_like(keys_values.value, torch.nan))
    monkeypatch.setattr(layer, "keys_values", lambda _context, _base: broken)
    wrong = run(layer, **arguments, shares=shares, pixels=pixels)
    for out in (right, wrong):
        assert torch.equal(out[:, :20], arguments["prior"][:, :20])
    assert wrong[:, 20:].isnan().all() and right.isfinite().all()


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", ["apart", "image prompt", "face"])
@torch.no_grad()
def test_a_broken_subject_stays_where_it_has_a_share(kind: str, broken: float):
    layer, arguments, shares = case(kind)
    shares[:, 1, :30] = 0
    right = run(layer, **arguments, shares=shares)
    subjects = arguments["context"] if kind == "apart" else arguments["context"].images
    subjects[:, 1, -1] = broken
    wrong = run(layer, **arguments, shares=shares)
    assert torch.equal(wrong[:, :30], right[:, :30])
    assert not wrong[:, 30:].isfinite().any()


def test_winners_of_every_row_are_its_own():
    won = strongest(torch.tensor([[0.1, 0.9, 0.2, 0.8], [0.7, 0.0, 0.6, 0.1]]), 2)
    assert sorted(won.indices.tolist()) == [1, 3, 4, 6]
    x = torch.arange(16.0).view(2, 4, 2)
    back = won.put(-x, won.take(x))
    assert torch.equal(back[0], torch.tensor([[0, -1], [2, 3], [-4, -5], [6, 7.0]]))


def test_gradients_reach_the_winners_alone():
    layer, arguments, _ = case("self")
    out = run(layer, **arguments, pixels=10)
    out.sum().backward()
    assert isinstance(layer, MoALayer) and isinstance(layer.to_q, nn.Linear)
    assert layer.to_q.weight.grad is not None and layer.to_q.weight.grad.abs().sum() > 0
    assert layer.router is not None
    routed = layer.router.project.weight.grad
    assert routed is not None and routed.abs().sum() > 0


def test_a_budget_gives_the_number_of_pixels():
    budget = Budget(0.25, {"inactive": (0.0, 0.0), "all": (1.0, 1.0), "own": (0.5, 1.0, 0.0)})
    assert budget.pixels("any", (5, 8)) == 10
    assert budget.pixels("any", (1, 1)) is None
    assert budget.pixels("inactive", (5, 8)) == 0
    assert budget.pixels("all", (5, 8)) is None and Budget().pixels("any", (5, 8)) is None
    assert budget.pixels("own", (5, 8)) == (20, 40, 0)


def routing(*shares: float) -> Routing:
    """So many of each row's pixels are subjects'."""
    personal = torch.zeros(len(shares), 100)
    for row, share in zip(personal, shares, strict=True):
        row[: round(100 * share)] = 0.9
    return Routing(personal, personal, personal, (10, 10))


def begin(automatic: AutomaticBudget, kind: str = "prompt") -> tuple[Budget, Any]:
    """The budget of the next call, and its observer."""
    call = call_info(prompts=(kind,))
    observe = automatic.begin_call(call)
    return automatic.for_call(call), observe


def test_an_automatic_budget_measures_ever_more_rarely_and_finds_what_is_routed():
    automatic, measured = AutomaticBudget(threshold=0.5), []
    for call in range(1, 18):
        budget, observe = begin(automatic)
        if call == 1:
            assert budget.pixels(SELF.name, (10, 10)) is None
        elif call <= 5:
            assert budget.pixels(SELF.name, (4, 4)) == 6
        assert budget.pixels(CROSS.name, (4, 4)) == (None if call == 1 else 0 if call <= 8 else 11)
        if observe is not None:
            measured.append(call)
            observe(SELF, routing(0.3))
            observe(CROSS, routing(0.6) if call >= 8 else routing(0.0))
    assert measured == [1, 2, 4, 8, 16]
    assert begin(automatic, "another prompt")[0].pixels(SELF.name, (10, 10)) is None
    assert 0.4 < (automatic.measured_share() or 0) < 0.7
    automatic.begin_run()
    assert automatic.measured_share() is None and begin(automatic)[0].pixels(SELF.name, (10, 10)) is None


@pytest.mark.parametrize(
    ("largest", "rest", "expected"), [(0.9, 0.1, 1), (0.9, 0.04, 5), (0.06, 0.004, 1), (0.003, 0.003, 0)]
)
def test_what_counts_is_measured_by_the_largest_share(largest: float, rest: float, expected: int):
    """A quarter of the pixels has the largest share."""
    automatic, personal = AutomaticBudget(), torch.full((1, 100), rest)
    personal[:, :25] = largest
    _, observe = begin(automatic)
    assert observe is not None
    observe(SELF, Routing(personal, personal, personal, (10, 10)))
    pixels = begin(automatic)[0].pixels(SELF.name, (4, 4))
    assert pixels == (None if expected == 1 else expected)


def test_shares_are_rounded_up_with_a_reserve():
    assert [rounded(s) for s in (0.0, 0.001, 0.25, 0.26, 0.95, 1.0)] == [0, 2 / 16, 5 / 16, 6 / 16, 1, 1]


@pytest.mark.parametrize("apart", [False, True])
@torch.no_grad()
def test_kept_words_and_new_subjects_make_the_whole_prompt(apart: bool):
    torch.manual_seed(0)
    layer, base = moa(CROSS), Projections.of(Prior(CROSS))
    context, slots = torch.randn(3, 7, 24), torch.tensor([[0, 0, 1, 0, 2, 0, 0], [2, 0, 0, 0, 0, 1, 1]])
    step = Step(torch.tensor([0, 2]), slots, torch.randn(1, 2, 2, 24), torch.zeros(()), apart=apart)
    z = torch.randn(2, 40, 32)
    whole = layer.keys_values(step.context_for(CROSS, z, context), base)
    cached = {CROSS.name: layer.keys_values(step.constant_context(context), base)}
    pieces = Step(step.rows, slots, step.tokens, step.prior_bias, apart=apart, cached=cached).keys_values(
        layer, z, torch.full_like(context, torch.nan), base
    )
    torch.testing.assert_close(pieces.key, whole.key)
    torch.testing.assert_close(pieces.value, whole.value)
    assert whole.key.ndim == (4 if apart else 3)


def test_prompts_are_distinguished_by_the_tensors_themselves():
    cache, computed = PromptCache(), []
    context, subjects = torch.zeros(1, 7, 24), torch.zeros(1, 1, 8)
    assert cache.number(context, subjects) == cache.number(context, subjects) == 1
    assert cache.number(context.clone(), subjects) == 2
    assert cache.number(context, subjects.clone()) == 3
    assert cache.number(torch.zeros(2, 7, 24), subjects) == 0, "rows of a batch may be sliced"
    for key in ("a", "b", "a"):
        cache.get_or_compute(key, lambda key=key: computed.append(key) or {})
    assert computed == ["a", "b"]
    for number in range(ENTRIES):
        cache.get_or_compute(number, dict)
    assert len(cache.entries) == ENTRIES and "a" not in cache.entries
    cache.end_run()
    assert cache.number(torch.zeros(1, 7, 24), subjects) == 1


def test_rows_are_measured_apart_and_keep_their_measurement_in_other_calls():
    automatic, first, second = AutomaticBudget(), "first prompt", "second prompt"
    both = call_info(views=(WHOLE, WHOLE), prompts=(first, second))
    observe = automatic.begin_call(both)
    assert observe is not None
    observe(SELF, routing(0.3, 0.6))
    observe(CROSS, routing(0.0, 0.3))
    assert automatic.begin_call(both) is not None, "calls 1 and 2 are measured"
    assert automatic.for_call(both).pixels(SELF.name, (4, 4)) == (6, 11)
    assert automatic.for_call(both).pixels(CROSS.name, (4, 4)) == (0, 6)
    assert begin(automatic, first)[0].pixels(SELF.name, (4, 4)) == 6
    assert begin(automatic, second)[0].pixels(SELF.name, (4, 4)) == 11


@pytest.mark.parametrize("pixels", [(10, 25), (0, 40), (25, 60)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rows_with_numbers_of_their_own_are_as_alone(kind: str, pixels: tuple[int, int]):
    layer, arguments, shares = case(kind)
    given: dict[str, Any] = {} if layer.router is not None else {"shares": shares}
    together = run(layer, **arguments, **given, pixels=pixels)
    for row, own in enumerate(pixels):
        every = run(layer, **arguments, **given, pixels=own)
        torch.testing.assert_close(together[row], every[row], rtol=1e-5, atol=1e-5)
    assert (together[0] - run(layer, **arguments, **given, pixels=max(pixels))[0]).abs().max() > 1e-2


def test_a_measurement_without_any_share_makes_no_layer_inactive():
    """A router that first collects attention gives no shares in the first call."""
    automatic = AutomaticBudget()
    _, observe = begin(automatic)
    assert observe is not None
    for layer in (SELF, CROSS):
        observe(layer, routing(0.0))
    budget, observe = begin(automatic)
    assert observe is not None
    assert budget.pixels(SELF.name, (4, 4)) is None and budget.pixels(CROSS.name, (4, 4)) is None
    observe(SELF, routing(0.3))
    observe(CROSS, routing(0.0))
    budget, _ = begin(automatic)
    assert budget.pixels(SELF.name, (4, 4)) == 6 and budget.pixels(CROSS.name, (4, 4)) == 0
