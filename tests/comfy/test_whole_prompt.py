"""Add Subjects (MoA): image prompts for a whole prompt are those of a word, where the router is constant."""

from __future__ import annotations

from dataclasses import replace

import host
import pytest
import subjects
import torch
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.host.prompts.subject_context import Binding, subjects_of, with_subjects
from comfyui_moa.nodes.prompt import MoAAddSubjects
from comfyui_moa.nodes.sockets import Subject, SubjectSettings
from test_image_prompts import TOKENS, Imported, family, image_tokens  # noqa: F401


def subject(family: Imported, seed: int, **settings: float) -> Subject:  # noqa: F811
    made = Subject("man", 1, image_tokens(family, seed), family.adapter.encoder, tokens=TOKENS)
    return replace(made, settings=SubjectSettings(**settings))


def added(family: Imported, *given: Subject, prompt: host.Conditioning | None = None) -> host.Conditioning:  # noqa: F811
    prompt = prompt or host.conditioning(family.context, pooled=family.pooled, seed=1)
    return MoAAddSubjects.execute(prompt, {str(i): s for i, s in enumerate(given)}).result[0]


def bound(family: Imported, **placed: Subject) -> host.Conditioning:  # noqa: F811
    [[context, extra]] = host.conditioning(family.context, pooled=family.pooled, seed=1)
    return [with_subjects(context, extra, [Binding(s, int(at[1:])) for at, s in placed.items()])]


def test_they_act_as_if_bound_to_words(family: Imported):  # noqa: F811
    model = ApplyMoA.execute(family.model, family.adapter, 1.0, router="constant").result[0]
    one, other = subject(family, 1, strength=0.6), subject(family, 2, start=0.5)
    ours = family.sample(model, added(family, one, other))
    assert torch.equal(ours, family.sample(model, bound(family, t5=one, t9=other)))
    assert subjects.difference(ours, family.sample(model, family.prompt())) > 1e-3


def test_earlier_subjects_remain_and_none_changes_nothing(family: Imported):  # noqa: F811
    one, other = subject(family, 1), subject(family, 2)
    [[context, extra]] = added(family, other, prompt=bound(family, t0=one))
    held, _ = subjects_of({"cross_attn": context, **extra})
    assert [(b.subject.whole_prompt, b.position) for b in held] == [(False, 0), (True, 1)]
    prompt = host.conditioning(family.context, seed=1)
    assert added(family, prompt=prompt)[0][0] is prompt[0][0]
    absent = replace(one, features=torch.zeros(0, 0))
    assert added(family, absent, prompt=prompt)[0][0] is prompt[0][0]


def test_a_prompt_of_zeros_has_the_subjects_that_were_added_to_it(family: Imported):  # noqa: F811
    """Zeroed afterwards, as a negative prompt is, it has none."""
    model = ApplyMoA.execute(family.model, family.adapter, 1.0, router="constant").result[0]
    positive = added(family, subject(family, 1))
    empty = [
        [torch.zeros_like(context), extra] for context, extra in host.conditioning(family.context, pooled=family.pooled)
    ]
    zeros, plain = added(family, subject(family, 1), prompt=empty), family.sample(family.model, empty)
    assert subjects.difference(plain, family.sample(model, zeros)) > 1e-3
    for prompt in (positive, zeros):
        zeroed = host.core_node("ConditioningZeroOut", "zero_out", prompt)
        expected = host.core_node(
            "ConditioningZeroOut",
            "zero_out",
            [[c, {k: v for k, v in e.items() if k == "pooled_output"}] for c, e in prompt],
        )
        assert torch.equal(family.sample(model, zeroed), family.sample(family.model, expected))


@pytest.mark.parametrize("router", ["automatic", "attention"])
def test_routers_that_need_words_refuse_them(router: str, family: Imported):  # noqa: F811
    model = ApplyMoA.execute(family.model, family.adapter, 1.0, router=router).result[0]
    with pytest.raises(ValueError, match=r"has no word in the prompt.*Set 'router' to 'constant' or 'mask'"):
        family.sample(model, added(family, subject(family, 1)))


def test_subjects_that_replace_a_word_are_refused(family: Imported):  # noqa: F811
    with pytest.raises(ValueError, match="needs subjects of an IP-Adapter"):
        added(family, replace(subject(family, 1), tokens=0))
    with pytest.raises(ValueError, match="3 subjects for a prompt of 2 tokens"):
        added(family, *[subject(family, 1)] * 3, prompt=host.conditioning(family.context, tokens=2))
