"""Attention, router and MoA layer against the equations, written out once more in the fewest lines."""

import math

import pytest
import torch
from torch import Tensor, nn

from moa_attention.attention import attend, attention_probabilities
from moa_attention.config import LayerSpec
from moa_attention.layer import MoALayer, Routing
from moa_attention.router import Router, mix

HEADS = 4
SELF = LayerSpec("input_1_0_attn1", 0, 32, 32, HEADS, True)
CROSS = LayerSpec("input_1_0_attn2", 0, 32, 24, HEADS, True)


def reference_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Equation 1 for each row and head, in loops."""
    out, d = torch.zeros_like(q), q.shape[-1] // HEADS
    for row in range(len(q)):
        for head in range(HEADS):
            part = slice(head * d, (head + 1) * d)
            scores = q[row, :, part] @ k[row, :, part].T / math.sqrt(d)
            out[row, :, part] = torch.softmax(scores, dim=-1) @ v[row, :, part]
    return out


def reference_layer(layer: MoALayer, z: Tensor, c: Tensor, prior: Tensor, out: nn.Module) -> Tensor:
    """Equations 5 to 8."""
    q, k, v = z @ layer.to_q.weight.T, c @ layer.to_k.weight.T, c @ layer.to_v.weight.T
    logits = z @ layer.router.project.weight.T + layer.router.project.bias
    r = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return r[..., :1] * prior + r[..., 1:] * out(reference_attention(q, k, v))


def random_layer(spec: LayerSpec, own_output: bool = False) -> MoALayer:
    torch.manual_seed(0)
    return MoALayer(spec, own_output)


@pytest.mark.parametrize("spec", [SELF, CROSS], ids=["self", "cross"])
@pytest.mark.parametrize("own_output", [False, True], ids=["shared", "own"])
@torch.no_grad()
def test_layer_agrees_with_the_equations(spec: LayerSpec, own_output: bool):
    layer, shared = random_layer(spec, own_output), nn.Linear(32, 32)
    z, prior = torch.randn(3, 15, 32), torch.randn(3, 15, 32)
    c = torch.randn(3, 7, 24) if spec.is_cross else z
    out = layer.to_out or shared
    assert (out is shared) != own_output
    expected = reference_layer(layer, z, c, prior, out)
    assert (layer(z, c, prior, shared, (3, 5)) - expected).abs().max() < 1e-5
    assert (expected - prior).abs().max() > 0.1


@torch.no_grad()
def test_mixing_after_the_output_projection_equals_mixing_before():
    layer, out = random_layer(CROSS), nn.Linear(32, 32)
    z, c, before = torch.randn(2, 6, 32), torch.randn(2, 5, 24), torch.randn(2, 6, 32)
    personal = attend(layer.to_q(z), layer.to_k(c), layer.to_v(c), HEADS)
    mixed_before = out(mix(before, personal, layer.router(z)))
    assert (layer(z, c, out(before), out, (2, 3)) - mixed_before).abs().max() < 1e-5


def test_kernel_and_probabilities_agree_with_equation_one():
    q, k, v = torch.randn(2, 6, 32), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    assert (attend(q, k, v, HEADS) - reference_attention(q, k, v)).abs().max() < 1e-5
    probabilities = attention_probabilities(q, k, HEADS)
    assert probabilities.shape == (2, HEADS, 6, 5)
    values = v.unflatten(-1, (HEADS, -1)).transpose(1, 2)
    assert ((probabilities @ values).transpose(1, 2).flatten(-2) - reference_attention(q, k, v)).abs().max() < 1e-5


@torch.no_grad()
def test_observer_sees_what_was_mixed():
    layer, seen = random_layer(CROSS), {}
    z, c = torch.randn(2, 6, 32), torch.randn(2, 5, 24)
    layer(z, c, z, nn.Identity(), (2, 3), observe=seen.__setitem__)
    routing: Routing = seen[CROSS]
    assert routing.grid == (2, 3)
    assert torch.equal(routing.route, layer.router(z))
    assert torch.equal(routing.query, layer.to_q(z))
    assert torch.equal(routing.key, layer.to_k(c))


@torch.no_grad()
def test_router_sums_to_one_in_float32():
    router = Router(32, dtype=torch.bfloat16)
    route = router(torch.randn(2, 9, 32, dtype=torch.bfloat16) * 5)
    assert route.dtype == torch.float32
    assert route.shape == (2, 9, 2)
    torch.testing.assert_close(route.sum(-1), torch.ones(2, 9))
    assert route.std() > 0.05


@torch.no_grad()
def test_zeroed_router_is_indifferent():
    router = Router(32)
    router.zero()
    assert torch.equal(router(torch.randn(2, 9, 32)), torch.full((2, 9, 2), 0.5))


@torch.no_grad()
def test_prior_bias_shifts_the_prior_logit():
    router, z = Router(32), torch.randn(1, 9, 32)
    plain, shifted = router(z), router(z, -math.log(3.0))
    odds = (shifted[..., 1] / shifted[..., 0]) / (plain[..., 1] / plain[..., 0])
    torch.testing.assert_close(odds, torch.full((1, 9), 3.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@torch.no_grad()
def test_large_bias_leaves_the_prior_bit_for_bit(dtype: torch.dtype):
    layer = random_layer(CROSS).to(dtype)
    z, c, prior = (torch.randn(2, n, w).to(dtype) for n, w in ((6, 32), (5, 24), (6, 32)))
    assert torch.equal(layer.router(z, 1e4), torch.tensor([1.0, 0.0]).expand(2, 6, 2))
    assert torch.equal(layer(z, c, prior, nn.Identity(), (2, 3), prior_bias=1e4), prior)
    assert not torch.equal(layer(z, c, prior, nn.Identity(), (2, 3)), prior)


class HostAttention(nn.Module):
    """The parts of the host's CrossAttention that matter here."""

    def __init__(self):
        super().__init__()
        self.to_q = nn.Linear(32, 32, bias=False)
        self.to_k, self.to_v = nn.Linear(24, 32, bias=False), nn.Linear(24, 32, bias=False)
        self.to_out = nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.0))


@pytest.mark.parametrize("own_output", [False, True])
@torch.no_grad()
def test_fresh_layer_repeats_the_prior_bit_for_bit(own_output: bool):
    host, layer = HostAttention(), random_layer(CROSS, own_output)
    layer.init_from(host)
    z, c = torch.randn(2, 6, 32), torch.randn(2, 5, 24)
    prior = host.to_out(attend(host.to_q(z), host.to_k(c), host.to_v(c), HEADS))
    assert torch.equal(layer(z, c, prior, host.to_out, (2, 3)), prior)
    layer.to_v.weight.zero_()
    assert not torch.equal(layer(z, c, prior, host.to_out, (2, 3)), prior)
    assert host.to_v.weight.abs().sum() > 0, "the layer shares storage with the base model"
