"""Styles of image prompts: on what their strength acts, in which layers; and the short way to compute few tokens."""

from __future__ import annotations

import pytest
import torch
from routed import spec
from test_ip_adapter import attention, published, run, setup
from torchvision.transforms import v2 as transforms
from torchvision.transforms.v2 import functional

from moa_attention.adapters.folding import pays
from moa_attention.adapters.ip_adapter import PromptTokens
from moa_attention.method.expert import Projections
from moa_attention.method.layer import KeysValues
from moa_attention.run.emphasis import SCALINGS, Emphasis, Style, emphasise, tabulate_styles
from moa_attention.run.weight_types import WEIGHT_TYPES, block_numbers, type_factors
from moa_attention.subjects.noise import NOISE_KINDS, NoiseKind, add_noise

BLOCKS = [*(("input", n) for n in (1, 2, 4, 5, 7, 8)), ("middle", 0), *(("output", n) for n in range(3, 12))]
SD15 = [spec(f"{stage}_{n}_0_attn2", depth, 640, 48, 8, True) for depth, (stage, n) in enumerate(BLOCKS)]


def test_few_tokens_are_folded_and_are_the_published_formula():
    z, text, image, prior, layer = setup()
    with torch.no_grad():
        assert pays(4, 4, 32) and not pays(257, 4, 32)
        found = layer.keys_values(PromptTokens(text, image[:, :1]), Projections.of(prior))
        assert found.folded == 4 and found.key.shape == (2, 1, 16, 32)
        ours = run(z, text, image[:, :1], prior, layer, torch.full((2, 1, 12), 0.7))
        torch.testing.assert_close(ours, published(z, text, image[:, 0], prior, layer, 0.7), rtol=1e-5, atol=1e-5)
        quarter = run(z, text, image[:, :1], prior, layer, torch.full((2, 1, 12), 0.7), pixels=3)
        assert (quarter - ours).abs().amax(dim=-1).gt(1e-6).sum() == 2 * 9


def keys_values(folded: int = 0) -> KeysValues:
    torch.manual_seed(0)
    return KeysValues(torch.randn(1, 2, 6, 640), torch.randn(1, 2, 6, 640), folded=folded)


def emphasis(scaling: str, strengths: list[float]) -> Emphasis:
    table = tabulate_styles([[Style(scaling=scaling)] * 2], [0], SD15, torch.device("cpu"))
    return emphasise(table, torch.tensor([strengths]), negative=min(strengths) < 0)


@pytest.mark.parametrize("scaling", list(SCALINGS))
@pytest.mark.parametrize("w", [0.5, -0.5])
def test_strengths_act_on_what_the_scaling_says(scaling: str, w: float):
    found, made = keys_values(), emphasis(scaling, [1.0, w])
    scaled = made.scale(SD15[0].name, found)
    q, k, v = torch.randn(1, 5, 640), found.key[:, 1], found.value[:, 1]
    own = w * 640 / 1280 if scaling.endswith("penalty") else w
    expected = {
        "V only": lambda: w * attention(q, k, v, 8),
        "K+mean(V) w/ C penalty": lambda: attention(q, own * k, v + (own - 1) * v.mean(dim=1, keepdim=True), 8),
    }.get(scaling, lambda: attention(q, own * k, own * v, 8))()
    share = made.of_shares(SD15[0].name, torch.ones(1, 2, 5))[:, 1]
    torch.testing.assert_close(share[..., None] * attention(q, scaled.key[:, 1], scaled.value[:, 1], 8), expected)


def test_the_mean_of_folded_values_is_that_of_each_head():
    found, made = keys_values(folded=2), emphasis("K+mean(V) w/ C penalty", [1.0, 0.5])
    scaled = made.scale(SD15[0].name, found).value[0, 1]
    for head in (slice(0, 3), slice(3, 6)):
        values = found.value[0, 1, head]
        torch.testing.assert_close(scaled[head], values + (0.25 - 1) * values.mean(dim=0))


def test_strength_0_has_no_share_with_any_scaling():
    for scaling in SCALINGS:
        assert not emphasis(scaling, [0.0, 0.0]).share.any()


def test_weight_types_have_the_factors_of_their_blocks():
    def factors(name: str, **options: bool) -> list[float]:
        return list(type_factors(name, SD15, **options).values())

    assert factors("ease in")[0] == pytest.approx(1) and factors("ease in")[8] == pytest.approx(0.05 + 0.95 / 2)
    assert factors("ease out") == pytest.approx([0.05 + 0.95 * t / 16 for t in range(16)])
    assert factors("ease in-out") == pytest.approx([0.05 + 0.95 * (1 - abs(t - 8) / 8) for t in range(16)])
    assert factors("weak output") == [1.0] * 7 + [0.2] * 9
    assert factors("strong middle") == [0.2] * 6 + [1.0] + [0.2] * 9
    assert factors("composition") == [0, 0, 0, 0, 0.25, 1.0, *[0] * 10]
    assert [t for t, f in enumerate(factors("style transfer")) if f] == [0, 1, 2, 3, *range(9, 16)]
    precise = "style transfer precise"
    assert [t for t, f in enumerate(factors(precise, swapped=True)) if f] == [4, 5]
    assert [t for t, f in enumerate(factors(precise)) if f] == [0, 1, 2, 3, *range(9, 16)]
    assert len(WEIGHT_TYPES) == 15


def test_blocks_of_several_layers_count_once():
    layers = [spec(f"output_1_{j}_attn{a}", j, 64, 64 if a == 1 else 48, 1, True) for j in range(3) for a in (1, 2)]
    assert block_numbers(layers) == {f"output_1_{j}_attn2": 0 for j in range(3)}
    with pytest.raises(ValueError, match="acts in 1 blocks. Choose 'linear'"):
        type_factors("composition", layers)


@pytest.mark.parametrize("strength", [0.25, 1.0])
@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_noise_is_the_published_one(kind: NoiseKind, strength: float):
    """Written with torchvision, as that extension is; its random numbers follow the seed of the same picture."""
    picture = torch.rand(1, 32, 40, 3, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(int(picture.sum()) % 1_000_000_007)
    if kind == "shuffle":
        warp = transforms.ElasticTransform(75.0, (1 - strength) * 3.5)
        there = warp(picture.movedim(-1, 1)).flip(-1, -2).movedim(1, -1)
        torch.rand(2)
        noise = torch.randn_like(there) * (strength * 0.75)
        expected = there * (1 - noise) + noise
    else:
        first = torch.randn_like(picture) if kind == "gaussian" else torch.rand_like(picture)
        mask = (first < strength).float()
        expected = {
            "fade": picture * (1 - strength) + first * strength,
            "gaussian": picture + first * strength,
            "dissolve": picture * (1 - mask) + torch.rand_like(picture) * mask,
        }[kind]
    found = add_noise(picture, kind, strength)
    torch.testing.assert_close(found, expected.clamp(0, 1))
    blurred = functional.gaussian_blur(expected.clamp(0, 1).movedim(-1, 1), [5, 5]).movedim(1, -1)
    torch.testing.assert_close(add_noise(picture, kind, strength, blurred=True), blurred)
    assert torch.equal(found, add_noise(picture, kind, strength))
    assert torch.allclose(add_noise(picture, kind, 0.0), picture) == (kind != "shuffle")
