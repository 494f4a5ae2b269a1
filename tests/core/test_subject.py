"""The multimodal prompt (eq. 9) against the equation, and the placement of subject tokens."""

import math

import torch
from torch import Tensor

from moa_attention.method.fusion import SpaceTimeEncoding, SubjectFusion
from moa_attention.method.prompt import gather_tokens, place_tokens, token_owners
from moa_attention.run.step import Step


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def reference_encoding(encode: SpaceTimeEncoding, t: float, place: float) -> Tensor:
    """PE(t, l): 64 wavelengths from 2π to 10000 for t, to 100 for l."""
    parts = []
    for x, longest in ((t, 10_000.0), (place, 100.0)):
        wavelengths = [2 * math.pi * (longest / (2 * math.pi)) ** (i / 63) for i in range(64)]
        parts += [math.sin(2 * math.pi * x / w) for w in wavelengths] + [
            math.cos(2 * math.pi * x / w) for w in wavelengths
        ]
    return torch.tensor(parts) @ encode.project.weight.T + encode.project.bias


def reference_fusion(fusion: SubjectFusion, f: Tensor, word: Tensor, t: float, place: float) -> Tensor:
    """Equation 9 for one subject, with the text token added."""
    m = layer_norm(torch.cat((f, word)), fusion.norm_prompt)
    m = m + layer_norm(reference_encoding(fusion.encode, t, place), fusion.norm_place)
    h = m @ fusion.widen.weight.T + fusion.widen.bias
    h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
    return word + h @ fusion.narrow.weight.T + fusion.narrow.bias


def random_fusion() -> SubjectFusion:
    torch.manual_seed(0)
    fusion = SubjectFusion(12, 20)
    for norm in (fusion.norm_prompt, fusion.norm_place):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    return fusion


@torch.no_grad()
def test_fusion_agrees_with_equation_nine():
    fusion = random_fusion()
    features, words, t = torch.randn(2, 3, 12), torch.randn(2, 3, 20), torch.tensor([7.0, 481.5])
    tokens = fusion(features, words, t, 16)
    assert tokens.shape == (16, 2, 3, 20)
    for layer in (0, 9, 15):
        for row in range(2):
            for s in range(3):
                expected = reference_fusion(fusion, features[row, s], words[row, s], float(t[row]), float(layer))
                assert (tokens[layer, row, s] - expected).abs().max() < 1e-5


@torch.no_grad()
def test_layers_are_spread_over_the_same_range_at_any_depth():
    encode = random_fusion().encode
    t = torch.tensor([100.0])
    shallow, deep = encode(t, 16), encode(t, 70)
    assert torch.equal(shallow[0], deep[0])
    torch.testing.assert_close(shallow[-1], deep[-1])
    assert (deep[35, 0] - reference_encoding(encode, 100.0, 15 * 35 / 69)).abs().max() < 1e-5


@torch.no_grad()
def test_tokens_differ_by_time_layer_and_picture():
    fusion = random_fusion()
    features, words = torch.randn(1, 1, 12), torch.randn(1, 1, 20)
    tokens = fusion(features, words, torch.tensor([500.0]), 4)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3
    assert (tokens - fusion(features, words, torch.tensor([900.0]), 4)).abs().max() > 1e-3
    assert (tokens - fusion(features + 1, words, torch.tensor([500.0]), 4)).abs().max() > 1e-5


@torch.no_grad()
def test_untrained_fusion_gives_the_plain_word():
    fusion, words = random_fusion(), torch.randn(2, 3, 20)
    fusion.zero()
    tokens = fusion(torch.randn(2, 3, 12), words, torch.tensor([1.0, 2.0]), 4)
    assert torch.equal(tokens, words.expand(4, -1, -1, -1))


def test_gather_and_place_are_inverse():
    context = torch.randn(2, 9, 4)
    slots = torch.zeros(2, 9, dtype=torch.long)
    slots[0, 3], slots[0, 7], slots[1, 5] = 2, 1, 1
    words = gather_tokens(context, slots, 2)
    assert torch.equal(words[0], context[0, [7, 3]])
    assert torch.equal(words[1, 0], context[1, 5])
    assert torch.equal(place_tokens(context, token_owners(slots), words), context)


def test_tokens_take_the_place_of_their_words_only():
    context, tokens = torch.randn(2, 9, 4), torch.randn(2, 2, 4)
    slots = torch.zeros(2, 9, dtype=torch.long)
    slots[0, 3], slots[0, 7] = 2, 1
    placed = place_tokens(context, token_owners(slots), tokens)
    expected = context.clone()
    expected[0, 3], expected[0, 7] = tokens[0, 1], tokens[0, 0]
    assert torch.equal(placed, expected)


def test_repeated_contexts_carry_every_copy():
    """The host repeats a short prompt to the length of the longest one of its batch."""
    context, tokens = torch.randn(1, 5, 4), torch.randn(1, 2, 4)
    slots = torch.tensor([[0, 1, 0, 2, 0]])
    once = place_tokens(context, token_owners(slots), tokens)
    twice = place_tokens(context.repeat(1, 2, 1), token_owners(slots.repeat(1, 2)), tokens)
    assert torch.equal(twice, once.repeat(1, 2, 1))
    assert torch.equal(gather_tokens(context.repeat(1, 2, 1), slots.repeat(1, 2), 2), gather_tokens(context, slots, 2))


@torch.no_grad()
def test_permuting_subjects_together_with_their_slots_changes_nothing():
    fusion, context, t = random_fusion(), torch.randn(1, 9, 20), torch.tensor([300.0])
    features = torch.randn(1, 3, 12)
    slots = torch.tensor([[0, 1, 0, 2, 0, 0, 3, 0, 0]])
    order = [2, 0, 1]
    moved = slots.clone()
    for new, old in enumerate(order):
        moved[slots == old + 1] = new + 1

    def prompt(slots: Tensor, features: Tensor) -> Tensor:
        tokens = fusion(features, gather_tokens(context, slots, 3), t, 4)
        return place_tokens(context, token_owners(slots), tokens[2])

    torch.testing.assert_close(prompt(slots, features), prompt(moved, features[:, order]), rtol=1e-6, atol=1e-6)
    assert (prompt(slots, features) - prompt(slots, features[:, order])).abs().max() > 1e-4


def test_rows_without_subject_keep_their_bits():
    rows = torch.tensor([1, 3])
    step = Step(rows, torch.zeros(2, 5), torch.zeros(1, 2, 1, 4), torch.zeros(()))
    x, chosen = torch.randn(4, 6, 8), torch.randn(2, 6, 8)
    assert torch.equal(step.select(x), x[[1, 3]])
    result = step.restore(x, chosen)
    assert torch.equal(result[[1, 3]], chosen)
    assert torch.equal(result[[0, 2]], x[[0, 2]])
