"""The multimodal prompt (eq. 9) against the equation, and the placement of subject tokens."""

import math
from dataclasses import replace

import torch
from torch import Tensor
from toy import CONFIG

from moa_attention import MoAAdapter
from moa_attention.method.attention import attend, subject_attention
from moa_attention.method.fusion import SpaceTimeEncoding, SubjectFusion
from moa_attention.method.prompt import (
    gather_tokens,
    place_tokens,
    token_numbers,
    token_owners,
    with_further_places,
)
from moa_attention.run.step import FurtherTokens, Step

CROSS = CONFIG.layers[1]


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


K = 3
SLOTS = torch.tensor([[0, 1, 0, 2, 0], [0, 0, 2, 0, 0]])
"""Of two rows, the second without subject 1."""


def step_of(context: Tensor, slots: Tensor, tokens: Tensor, apart: bool = False) -> Step:
    """Of subjects with K tokens each, in one layer."""
    places = with_further_places(slots, 2, K - 1)
    numbers = token_numbers(places, context.shape[1], 2, K - 1)
    further = FurtherTokens(K, context.shape[1], numbers)
    return Step(None, places, tokens[None], torch.zeros(()), further, apart=apart)


def test_further_tokens_follow_the_prompt_and_its_last_token_stands_for_missing_ones():
    context, tokens = torch.randn(2, 5, 4), torch.randn(2, 2 * K, 4)
    placed = step_of(context, SLOTS, tokens).context_for(CROSS, context, context)
    both = torch.stack([context[0, 0], tokens[0, 0], context[0, 2], tokens[0, K], context[0, 4]])
    further = [tokens[0, n] for n in (1, K + 1, 2, K + 2)]  # in the order of token, subject
    assert torch.equal(placed[0], torch.cat([both, torch.stack(further)]))
    alone = torch.stack([*context[1, :2], tokens[1, K], *context[1, 3:]])
    last = context[1, 4]
    assert torch.equal(placed[1], torch.cat([alone, torch.stack([last, tokens[1, K + 1], last, tokens[1, K + 2]])]))


def test_each_subject_alone_has_only_its_own_tokens():
    context, tokens = torch.randn(2, 5, 4), torch.randn(2, 2 * K, 4)
    apart = step_of(context, SLOTS, tokens, apart=True).context_for(CROSS, context, context)
    words, last = context[0], context[0, 4]
    first = [words[0], tokens[0, 0], *words[2:], tokens[0, 1], last, tokens[0, 2], last]
    second = [*words[:3], tokens[0, K], words[4], last, tokens[0, K + 1], last, tokens[0, K + 2]]
    assert torch.equal(apart[0], torch.stack([torch.stack(first), torch.stack(second)]))


def test_a_repeated_prompt_has_the_further_tokens_as_often():
    """Attention to it is the same, and so is the map of a subject; a row with fewer copies has fewer further tokens."""
    context, tokens, query = torch.randn(1, 5, 4), torch.randn(1, 2 * K, 4), torch.randn(1, 7, 4)
    slots = SLOTS[:1]
    once = step_of(context, slots, tokens).context_for(CROSS, context, context)
    twice = step_of(context.repeat(1, 2, 1), slots.repeat(1, 2), tokens)
    longer = twice.context_for(CROSS, context, context.repeat(1, 2, 1))
    torch.testing.assert_close(attend(query, longer, longer, 2), attend(query, once, once, 2))
    maps = (
        subject_attention(query, keys, with_further_places(s, 2, K - 1), 2, 2)
        for keys, s in ((once, slots), (longer, slots.repeat(1, 2)))
    )
    torch.testing.assert_close(*maps)
    mixed = with_further_places(torch.cat([slots.repeat(1, 2), torch.tensor([[0, 1] + 8 * [0]])]), 2, K - 1)
    assert mixed[:, 10:].tolist() == [[1, 2, 1, 2, 1, 2, 1, 2], [1, 0, 1, 0, 0, 0, 0, 0]]


@torch.no_grad()
def test_the_further_tokens_of_an_untrained_adapter_are_the_prompts_last_one():
    adapter, context = MoAAdapter(replace(CONFIG, image_tokens=K)), torch.randn(2, 5, 12)
    assert isinstance(adapter.fusion, SubjectFusion)
    adapter.fusion.zero()
    places = with_further_places(SLOTS, 2, K - 1)
    arguments = (context, torch.ones(2), places, torch.randn(2, 2, 8), None, torch.zeros(()))
    step = adapter.begin(*arguments)
    extended = torch.cat([context, context[:, -1:].expand(-1, 2 * (K - 1), -1)], dim=1)
    assert torch.equal(step.context_for(CROSS, context, context), extended)
    torch.nn.init.normal_(adapter.fusion.narrow.weight)
    half = adapter.begin(*arguments, weights=torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    whole, found = adapter.begin(*arguments).tokens, half.tokens
    torch.testing.assert_close(found[:, :, :K], whole[:, :, :K])
    assert torch.equal(found[:, :, K:], step.tokens[:, :, K:])


def test_rows_without_subject_keep_their_bits():
    rows = torch.tensor([1, 3])
    step = Step(rows, torch.zeros(2, 5), torch.zeros(1, 2, 1, 4), torch.zeros(()))
    x, chosen = torch.randn(4, 6, 8), torch.randn(2, 6, 8)
    assert torch.equal(step.select(x), x[[1, 3]])
    result = step.restore(x, chosen)
    assert torch.equal(result[[1, 3]], chosen)
    assert torch.equal(result[[0, 2]], x[[0, 2]])
