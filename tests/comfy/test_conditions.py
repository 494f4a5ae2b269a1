"""Prompts of any length and number, any batch and latent size, areas, masks and ranges: the same as one by one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import subjects
import torch
from subjects import Family

TOLERANCE = 1e-3
"""In standard deviations. Batched matrix products round otherwise than single ones, and two sampling steps of a random
U-Net amplify that; a subject at the wrong token or row moves the result a hundred times further."""
MAN, TWO = {4: 11}, {4: 11, 9: 12}


SEVERAL = "sd15, three image tokens"


@pytest.fixture(scope="module", params=["sd15", "sdxl", SEVERAL])
def family(request: pytest.FixtureRequest) -> Family:
    if request.param != SEVERAL:
        return subjects.make_family(request.param)
    made = subjects.make_family("sd15")
    return replace(made, adapter=subjects.make_adapter(made.model, made.context, image_tokens=3))


def core(name: str, method: str, *args: Any) -> Any:
    """Run one of the host's own nodes."""
    node = getattr(importlib.import_module("nodes"), name)()
    return getattr(node, method)(*args)[0]


def combine(*prompts: Any) -> Any:
    return [entry for prompt in prompts for entry in prompt]


def area(prompt: Any) -> Any:
    return core("ConditioningSetAreaPercentage", "append", prompt, 0.5, 1.0, 0.5, 0.0, 1.0)


def masked(prompt: Any) -> Any:
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 20:] = 1
    return core("ConditioningSetMask", "append", prompt, mask, "default", 0.8)


def ranged(prompt: Any, start: float, end: float) -> Any:
    return core("ConditioningSetTimestepRange", "set_range", prompt, start, end)


def concat(prompt: Any, other: Any) -> Any:
    return core("ConditioningConcat", "concat", prompt, other)


def average(prompt: Any, other: Any) -> Any:
    return core("ConditioningAverage", "addWeighted", prompt, other, 0.7)


CASES: dict[str, Callable[[Family], tuple[Any, Any]]] = {
    "one": lambda f: (f.prompt(1, MAN), f.prompt(2)),
    "two subjects": lambda f: (f.prompt(1, TWO), f.prompt(2)),
    "long negative": lambda f: (f.prompt(1, MAN), f.prompt(2, tokens=154)),
    "long positive": lambda f: (f.prompt(1, {4: 11, 100: 12}, tokens=154), f.prompt(2)),
    "subject in the negative": lambda f: (f.prompt(1), f.prompt(2, MAN)),
    "two conds": lambda f: (combine(f.prompt(1, MAN), f.prompt(3)), f.prompt(2)),
    "three conds": lambda f: (combine(f.prompt(1, MAN), f.prompt(3, TWO), f.prompt(4, tokens=154)), f.prompt(2)),
    "area": lambda f: (combine(area(f.prompt(1, MAN)), f.prompt(3)), f.prompt(2)),
    "mask": lambda f: (combine(masked(f.prompt(1, MAN)), f.prompt(3, {6: 13})), f.prompt(2)),
    "range": lambda f: (combine(ranged(f.prompt(1, MAN), 0, 0.4), ranged(f.prompt(3), 0.4, 1)), f.prompt(2)),
    "concat": lambda f: (concat(f.prompt(1, MAN), f.prompt(3)), f.prompt(2)),
    "average": lambda f: (average(f.prompt(1, MAN), f.prompt(3)), f.prompt(2)),
}


@pytest.mark.parametrize("case", CASES)
def test_together_is_the_same_as_one_by_one(family: Family, case: str):
    positive, negative = CASES[case](family)
    model = family.attach()
    together = family.sample(model, positive, negative)
    with subjects.one_by_one(family.model), subjects.counted_calls(family.model) as rows:
        alone = family.sample(model, positive, negative)
    assert set(rows) == {1}
    assert subjects.difference(alone, together) < TOLERANCE
    assert subjects.difference(alone, family.sample(family.model, positive, negative)) > 10 * TOLERANCE


@pytest.mark.parametrize("size", [(8, 8, 1), (8, 8, 2), (8, 8, 3), (8, 13, 1), (9, 16, 2), (16, 8, 1)], ids=str)
def test_any_batch_and_latent_size(family: Family, size: tuple[int, int, int]):
    model, positive = family.attach(), family.prompt(1, TWO)
    together = family.sample(model, positive, size=size, steps=1)
    assert together.shape == (size[2], 4, *size[:2])
    with subjects.one_by_one(family.model):
        assert subjects.difference(family.sample(model, positive, size=size, steps=1), together) < TOLERANCE
    base = family.sample(family.model, family.prompt(1), size=size, steps=1)
    assert subjects.difference(base, together) > 10 * TOLERANCE
    bias = family.attach(prior_bias=9999.0)
    assert torch.equal(family.sample(bias, positive, size=size, steps=1), base)


@pytest.mark.parametrize(
    "case", ["one", "two subjects", "long negative", "long positive", "subject in the negative", "concat"]
)
def test_positive_and_negative_stay_one_call(family: Family, case: str):
    positive, negative = CASES[case](family)
    with subjects.counted_calls(family.model) as rows:
        family.sample(family.attach(), positive, negative, steps=2)
    assert rows == [2, 2]


def test_three_conds_and_the_negative_stay_one_call(family: Family):
    positive, negative = CASES["three conds"](family)
    with subjects.counted_calls(family.model) as rows:
        family.sample(family.attach(), positive, negative, size=(8, 8, 2), steps=1)
    assert rows == [8]


def test_the_order_of_conds_does_not_matter(family: Family):
    one, two = family.prompt(1, MAN), family.prompt(3, TWO)
    forth, back = (family.sample(family.attach(), combine(*order)) for order in ((one, two), (two, one)))
    assert subjects.difference(forth, back) < TOLERANCE


def test_only_the_positive_is_computed_without_guidance(family: Family):
    with subjects.counted_calls(family.model) as rows:
        result = family.sample(family.attach(), family.prompt(1, MAN), cfg=1.0)
    assert rows == [1, 1]
    assert subjects.difference(result, family.sample(family.model, family.prompt(1), cfg=1.0)) > 10 * TOLERANCE
