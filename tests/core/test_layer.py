"""Attention, router and MoA layer against the equations, written out once more in the fewest lines."""

import math
from typing import Any

import pytest
import torch
from routed import run, spec
from torch import Tensor, nn

from moa_attention.method.attention import attend, attention_probabilities
from moa_attention.method.expert import LowRank, Projections
from moa_attention.method.factory import Factory
from moa_attention.method.layer import Limits, MoALayer, Routing
from moa_attention.method.router import Router, mix
from moa_attention.method.spec import LayerSpec, MoAConfig

HEADS = 4
SELF = spec("input_1_0_attn1", 0, 32, 32, HEADS, True)
CROSS = spec("input_1_0_attn2", 0, 32, 24, HEADS, True)


def reference_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Equation 1 for each row and head, in loops."""
    out, d = torch.zeros_like(q), q.shape[-1] // HEADS
    for row in range(len(q)):
        for head in range(HEADS):
            part = slice(head * d, (head + 1) * d)
            scores = q[row, :, part] @ k[row, :, part].T / math.sqrt(d)
            out[row, :, part] = torch.softmax(scores, dim=-1) @ v[row, :, part]
    return out


def weight(layer: MoALayer, name: str, prior: Any) -> Tensor:
    """W_q, W_k or W_v of the personalised expert as one matrix."""
    own = getattr(layer, name)
    return getattr(prior, name).weight + own.up.weight @ own.down.weight if hasattr(own, "up") else own.weight


def reference_layer(layer: MoALayer, z: Tensor, c: Tensor, prior: Tensor, base: Projections) -> Tensor:
    """Equations 5 to 8."""
    q, k, v = (x @ weight(layer, name, base).T for x, name in ((z, "to_q"), (c, "to_k"), (c, "to_v")))
    r: Any = layer.router
    inner = z if r.narrow is None else nn.functional.silu(z @ r.narrow.weight.T + r.narrow.bias)
    logits = inner @ r.project.weight.T + r.project.bias
    r = logits.exp() / logits.exp().sum(-1, keepdim=True)
    out: Any = layer.to_out or base.to_out
    return r[..., :1] * prior + r[..., 1:] * out(reference_attention(q, k, v))


def random_layer(spec: LayerSpec, **options: Any) -> MoALayer:
    torch.manual_seed(0)
    return MoALayer(spec, MoAConfig("test", (spec,), 24, "test", 8, **options))


class HostAttention(nn.Module):
    """The parts of the host's CrossAttention that matter here."""

    def __init__(self, spec: LayerSpec = CROSS):
        super().__init__()
        self.to_q = nn.Linear(32, 32, bias=False)
        self.to_k, self.to_v = (nn.Linear(spec.context, 32, bias=False) for _ in range(2))
        self.to_out = nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.0))


def plain(out: nn.Module) -> Projections:
    """A prior of which only the output projection matters."""
    return Projections(nn.Identity(), nn.Identity(), nn.Identity(), out)


@pytest.mark.parametrize("spec", [SELF, CROSS], ids=["self", "cross"])
@pytest.mark.parametrize(
    "options",
    [{}, {"output_projection": "own"}, {"rank": 3}, {"router": "mlp"}],
    ids=["whole", "own output", "low rank", "mlp router"],
)
@torch.no_grad()
def test_layer_agrees_with_the_equations(spec: LayerSpec, options: dict[str, Any]):
    layer, base = random_layer(spec, **options), Projections.of(HostAttention(spec))
    z, prior = torch.randn(3, 15, 32), torch.randn(3, 15, 32)
    c = torch.randn(3, 7, 24) if spec.is_cross else z
    assert (layer.to_out is not None) == ("output_projection" in options)
    expected = reference_layer(layer, z, c, prior, base)
    assert (run(layer, z, c, prior, base, (3, 5)) - expected).abs().max() < 1e-5
    assert (expected - prior).abs().max() > 0.1


@torch.no_grad()
def test_low_rank_expert_is_small_and_follows_the_prior():
    whole, low = random_layer(CROSS), random_layer(CROSS, rank=2)
    assert sum(p.numel() for p in low.to_v.parameters()) == 2 * (24 + 32) < 24 * 32
    host, z, c = HostAttention(), torch.randn(2, 6, 32), torch.randn(2, 5, 24)
    before = [run(layer, z, c, z, Projections.of(host), (2, 3)) for layer in (whole, low)]
    host.to_v.weight += 1
    after = [run(layer, z, c, z, Projections.of(host), (2, 3)) for layer in (whole, low)]
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@torch.no_grad()
def test_mixing_after_the_output_projection_equals_mixing_before():
    layer, out = random_layer(CROSS), nn.Linear(32, 32)
    z, c, before = torch.randn(2, 6, 32), torch.randn(2, 5, 24), torch.randn(2, 6, 32)
    personal = attend(layer.to_q(z), layer.to_k(c), layer.to_v(c), HEADS)
    mixed_before = out(mix(before, personal, layer.gate(z).personal))
    assert (run(layer, z, c, out(before), plain(out), (2, 3)) - mixed_before).abs().max() < 1e-5


def test_kernel_and_probabilities_agree_with_equation_one():
    q, k, v = torch.randn(2, 6, 32), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    assert (attend(q, k, v, HEADS) - reference_attention(q, k, v)).abs().max() < 1e-5
    probabilities = attention_probabilities(q, k, HEADS)
    assert probabilities.shape == (2, HEADS, 6, 5)
    values = v.unflatten(-1, (HEADS, -1)).transpose(1, 2)
    assert ((probabilities @ values).transpose(1, 2).flatten(-2) - reference_attention(q, k, v)).abs().max() < 1e-5


@torch.no_grad()
def test_the_observer_receives_what_was_mixed():
    layer, recorded = random_layer(CROSS), {}
    z, c = torch.randn(2, 6, 32), torch.randn(2, 5, 24)
    run(layer, z, c, z, plain(nn.Identity()), (2, 3), observe=recorded.__setitem__)
    routing: Routing = recorded[CROSS]
    assert routing.grid == (2, 3)
    assert torch.equal(routing.personal, layer.gate(z).personal)
    assert torch.equal(routing.query, layer.to_q(z))
    assert torch.equal(routing.key, layer.to_k(c))


@torch.no_grad()
def test_router_is_the_softmax_of_its_logits_in_float32():
    router, z = Router(32, factory=Factory(dtype=torch.bfloat16)), torch.randn(2, 9, 32, dtype=torch.bfloat16) * 5
    route = router(z)
    assert route.dtype == torch.float32
    assert route.shape == (2, 9)
    torch.testing.assert_close(route, torch.softmax(router.project(z).float(), dim=-1)[..., 1])
    assert route.std() > 0.05


@torch.no_grad()
def test_zeroed_router_is_indifferent():
    router = Router(32)
    router.zero()
    assert torch.equal(router(torch.randn(2, 9, 32)), torch.full((2, 9), 0.5))


@torch.no_grad()
def test_prior_bias_shifts_the_prior_logit():
    router, z = Router(32), torch.randn(1, 9, 32)
    plain, shifted = router(z), router(z, -math.log(3.0))
    odds = (shifted / (1 - shifted)) / (plain / (1 - plain))
    torch.testing.assert_close(odds, torch.full((1, 9), 3.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@torch.no_grad()
def test_large_bias_leaves_the_prior_bit_for_bit(dtype: torch.dtype):
    layer = random_layer(CROSS).to(dtype)
    z, c, prior = (torch.randn(2, n, w).to(dtype) for n, w in ((6, 32), (5, 24), (6, 32)))
    assert torch.equal(layer.gate(z, Limits(1e4)).personal, torch.zeros(2, 6))
    assert torch.equal(run(layer, z, c, prior, plain(nn.Identity()), (2, 3), prior_bias=1e4), prior)
    assert not torch.equal(run(layer, z, c, prior, plain(nn.Identity()), (2, 3)), prior)


@pytest.mark.parametrize(
    "options", [{}, {"output_projection": "own"}, {"rank": 3}, {"router": "mlp"}], ids=["whole", "own", "low", "mlp"]
)
@torch.no_grad()
def test_fresh_layer_repeats_the_prior_bit_for_bit(options: dict[str, Any]):
    host, layer = HostAttention(), random_layer(CROSS, **options)
    layer.init_from(host)
    z, c = torch.randn(2, 6, 32), torch.randn(2, 5, 24)
    prior = host.to_out(attend(host.to_q(z), host.to_k(c), host.to_v(c), HEADS))
    assert torch.equal(run(layer, z, c, prior, Projections.of(host), (2, 3)), prior)
    next(reversed(list(layer.to_v.parameters()))).fill_(0.1)
    assert not torch.equal(run(layer, z, c, prior, Projections.of(host), (2, 3)), prior)
    assert host.to_v.weight.abs().sum() > 0, "the layer shares storage with the base model"


def test_subjects_apart_are_each_alone_where_they_have_the_share():
    layer, base = random_layer(CROSS, router="none"), Projections.of(HostAttention())
    z, prior, contexts = torch.randn(2, 12, 32), torch.randn(2, 12, 32), torch.randn(2, 2, 5, 24)
    shares = torch.zeros(2, 2, 12)
    shares[:, 0, :4], shares[:, 1, 4:8] = 1, 0.5
    ours = run(layer, z, contexts, prior, base, (3, 4), shares=shares)
    for subject, part, strength in ((0, slice(0, 4), 1.0), (1, slice(4, 8), 0.5)):
        alone = run(layer, z, contexts[:, subject], prior, base, (3, 4), shares=torch.ones(2, 1, 12))
        expected = prior + strength * (alone - prior)
        torch.testing.assert_close(ours[:, part], expected[:, part], rtol=1e-5, atol=1e-5)
    assert torch.equal(ours[:, 8:], prior[:, 8:])


@torch.no_grad()
def test_a_low_rank_projection_is_merged_where_that_pays_and_weights_are_at_hand():
    factory = Factory(changes_weight=lambda layer: bool(getattr(layer, "weight_function", None)))
    own, prior = LowRank(32, 48, 3, factory), nn.Linear(32, 48, bias=False)
    many, few = torch.randn(2, 40, 32), torch.randn(2, 7, 32)
    expected = prior(many) + own.up(own.down(many))
    merged = own.merged(many, prior)
    assert merged is not None
    torch.testing.assert_close(many @ merged.T, expected)
    torch.testing.assert_close(own(many, prior), expected)
    assert own.merged(few, prior) is None
    assert own.merged(many, nn.Sequential(prior)) is None, "no bare layer"
    assert own.merged(many, nn.Linear(32, 48)) is None, "a bias would be lost"
    assert own.merged(many.half(), prior) is None and own.merged(many, prior.to("meta")) is None
    streamed: Any = nn.Linear(32, 48, bias=False)
    streamed.weight_function = [lambda weight: weight + 1]
    assert own.merged(many, streamed) is None
