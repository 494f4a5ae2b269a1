"""Several pictures of one subject, and the strength of each layer, on the real host."""

from __future__ import annotations

from dataclasses import replace

import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.method.spec import MoAConfig
from comfyui_moa.moa_attention.run.strength import LayerStrength
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.combine import MoASubjectCombine
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.layer_strength import MoALayerStrength
from comfyui_moa.nodes.sockets import Subject
from test_image_prompts import MAN, TOKENS, WOMAN, Imported, family, image_tokens  # noqa: F401 (a fixture)
from torch import Tensor


def combined(given: list[Subject], mode: str, weights: str = "") -> Subject:
    return MoASubjectCombine.execute({f"subject_{i}": s for i, s in enumerate(given)}, mode, weights).result[0]


def encoded(family: Imported, *seeds: int) -> list[Subject]:  # noqa: F811
    return [Subject("man", 1, image_tokens(family, seed), family.adapter.encoder, tokens=TOKENS) for seed in seeds]


def prompt(family: Imported, bound: dict[int, Subject]) -> host.Conditioning:  # noqa: F811
    [[context, extra]] = host.conditioning(family.context, pooled=family.pooled, seed=1)
    return [with_subjects(context, extra, [Binding(s, at) for at, s in bound.items()])]


def test_the_mean_has_the_word_of_the_first(family: Imported):  # noqa: F811
    given = encoded(family, 11, 12)
    mean = combined([replace(given[0], word="king"), given[1]], "mean", "3, 1")
    torch.testing.assert_close(mean.features, 0.75 * given[0].features + 0.25 * given[1].features)
    assert (mean.word, mean.tokens) == ("king", TOKENS)
    both = combined(given, "concat")
    assert both.tokens == 2 * TOKENS and both.features.shape == (1, 2 * TOKENS * family.context)


def test_absent_subjects_do_not_count(family: Imported):  # noqa: F811
    one, other = encoded(family, 11, 12)
    absent = replace(one, features=torch.zeros(0, 0))
    assert torch.equal(
        combined([absent, one, other], "mean", "5, 1, 1").features, combined([one, other], "mean").features
    )
    assert combined([absent, absent], "concat").absent
    without_picture = Subject("man", 1, torch.zeros(0, 0), family.adapter.encoder)
    assert torch.equal(
        combined([without_picture, one, other], "concat").features, combined([one, other], "concat").features
    )


def test_combinations_that_do_not_fit_are_refused(family: Imported):  # noqa: F811
    given = encoded(family, 11, 12)
    plain = [Subject("man", 1, subjects.picture(seed), subjects.ENCODER) for seed in (1, 2)]
    for pair, mode, weights, message in (
        (plain, "concat", "", "'concat' joins image tokens, and this adapter has none"),
        (given, "concat", "1, 2", "takes no weights"),
        (given, "mean", "1; 2", "numbers separated by commas"),
        (given, "mean", "1", "2 numbers, one for each connected subject; found 1"),
        (given, "mean", "1, -1", "Weights must be 0 or more"),
        (given, "mean", "nan, 1", "Weights must be 0 or more"),
        (given, "add", "3e38, 3e38", "gives NaN or infinity"),
        (given * (4096 // TOKENS), "concat", "", "would have 8192 image tokens, allowed are 4096"),
        ([given[0], plain[0]], "mean", "", "encoded for different adapters"),
        ([], "mean", "", "nothing to combine"),
    ):
        with pytest.raises(ValueError, match=message):
            combined(pair, mode, weights)


def test_the_same_picture_twice_changes_nothing_and_another_one_does(family: Imported):  # noqa: F811
    model, _ = ApplyMoA.execute(family.model, family.adapter, 1.0, router="constant").result
    one, other = encoded(family, 11, 12)

    def sample(bound: dict[int, Subject]) -> Tensor:
        return family.sample(model, prompt(family, bound))

    alone = sample({MAN: one})
    assert subjects.difference(alone, sample({MAN: combined([one, one], "concat")})) < 1e-4
    assert subjects.difference(alone, sample({MAN: combined([one, other], "concat")})) > 1e-3
    # Beside a subject with twice as many tokens, a subject's own tokens are repeated.
    beside = sample({MAN: one, WOMAN: other})
    assert subjects.difference(beside, sample({MAN: one, WOMAN: combined([other, other], "concat")})) < 1e-4


def test_prompts_with_different_numbers_of_tokens_share_a_call(family: Imported):  # noqa: F811
    model, _ = ApplyMoA.execute(family.model, family.adapter, 1.0, router="constant").result
    one, other = encoded(family, 11, 12)
    few, many = prompt(family, {MAN: one}), prompt(family, {MAN: combined([one, one], "concat")})
    twice = family.sample(model, [*few, *few])
    assert subjects.difference(twice, family.sample(model, [*few, *prompt(family, {MAN: other})])) > 1e-3
    assert subjects.difference(twice, family.sample(model, [*few, *many])) < 1e-4


SD15 = ("input_1_0_attn1", "input_1_0_attn2", "middle_0_0_attn2", "output_3_0_attn1", "output_11_0_attn2")


def strengths(**factors: float | str) -> LayerStrength:
    plain = dict.fromkeys(("input", "middle", "output", "self_attention", "cross_attention"), 1.0)
    return MoALayerStrength.execute(**{**plain, **factors}).result[0]


def layers_of(config: MoAConfig) -> list:
    return [spec for spec in config.layers if spec.name in SD15]


def test_factors_multiply_and_single_layers_replace_them():
    specs = layers_of(subjects.make_family("sd15").adapter.patcher.model.config)
    assert strengths().by_layer(specs) == {}
    found = strengths(input=0.5, cross_attention=0.5, single="output_11: 2,\nmiddle_0_0_attn2: 0").by_layer(specs)
    assert found == {"input_1_0_attn1": 0.5, "input_1_0_attn2": 0.25, "middle_0_0_attn2": 0.0, "output_11_0_attn2": 2.0}
    assert strengths(single="output: 3, output_3: 1").by_layer(specs) == {"output_11_0_attn2": 3.0}
    with pytest.raises(ValueError, match="has a name that begins with output_1. The layers are: input_1_0"):
        strengths(single="output_1: 0.5").by_layer(specs)
    for wrong in ("output_3", "output_3: much", "output_3: -1"):
        with pytest.raises(ValueError, match="is not the name of a layer with a factor"):
            strengths(single=wrong)


def check_layer_strengths(made: subjects.Family, positive: host.Conditioning, router: str) -> None:
    """Every layer at once is the strength, none of them the base, and some are neither."""

    def sample(strength: float, layer_strength: LayerStrength | None) -> Tensor:
        model, _ = ApplyMoA.execute(made.model, made.adapter, strength, 0.0, 1.0, router, layer_strength).result
        return made.sample(model, positive, steps=3)

    whole, base = sample(1.0, None), sample(0.0, None)
    halves = strengths(input=0.5, middle=0.5, output=0.5)
    assert subjects.difference(sample(0.5, None), sample(1.0, halves)) < 1e-4
    assert torch.equal(whole, sample(1.0, strengths()))
    assert torch.equal(base, sample(1.0, strengths(self_attention=0, cross_attention=0)))
    encoder = sample(1.0, strengths(middle=0, output=0))
    assert subjects.difference(encoder, whole) > 1e-4 and subjects.difference(encoder, base) > 1e-4


def test_layer_strengths_of_routers_without_training(family: Imported):  # noqa: F811
    check_layer_strengths(family, prompt(family, {MAN: encoded(family, 11)[0]}), "constant")


def test_layer_strengths_of_learned_routers():
    made = subjects.make_family("sd15")
    check_layer_strengths(made, made.prompt(subjects={MAN: 11}), "learned")
