"""Beside what other packs install on a model, before and after it. `test_neighbours` has the host's own nodes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import subjects
import torch
from subjects import Family

MAN = {4: 11}
PINNED = {"prior_bias": 9999.0}
"""Below `PRIOR_ONLY`, so that the personalised branch really runs."""


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def family(request: pytest.FixtureRequest) -> Family:
    return subjects.make_family(request.param)


def extra(module: str, node: str, *args: Any) -> Callable[[Any], Any]:
    """A model node of the host, with its settings."""

    def patched(model: Any) -> Any:
        return subjects.first(getattr(importlib.import_module(f"comfy_extras.{module}"), node).execute(model, *args))

    return patched


def lora(model: Any) -> Any:
    """What a LoRA loader does: differences on attention weights of the base."""
    model, generator = model.clone(), torch.Generator().manual_seed(4)
    names = [n for n, _ in model.model.diffusion_model.named_parameters() if ".attn" in n and n.endswith("weight")]
    shapes = {n: model.model.diffusion_model.get_parameter(n).shape for n in names}
    model.add_patches(
        {f"diffusion_model.{n}": (0.05 * torch.randn(s, generator=generator),) for n, s in shapes.items()}
    )
    return model


def image_prompt(model: Any) -> Any:
    """An attn2 replace as image-prompt packs install it: attention to the text plus attention to tokens of its own."""
    model = model.clone()

    def replace(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict) -> torch.Tensor:
        attend = importlib.import_module("comfy.ldm.modules.attention").optimized_attention
        own = torch.linspace(-1, 1, 4 * k.shape[-1]).reshape(1, 4, -1).expand(len(q), -1, -1).to(q)
        return attend(q, k, v, options["n_heads"]) + 0.5 * attend(q, own, own.flip(1), options["n_heads"])

    for name in subjects.attentions(model):
        if name.endswith("attn2"):
            stage, number, index, _ = name.split("_")
            model.set_model_attn2_replace(replace, stage, int(number), int(index))
    return model


OTHERS: dict[str, Callable[[Any], Any]] = {
    "LoRA": lora,
    "image prompt": image_prompt,
}
BRACKETS = {
    "HyperTile": extra("nodes_hypertile", "HyperTile", 32, 2, 1, False),
    "ToMe": extra("nodes_tomesd", "TomePatchModel", 0.5),
    **OTHERS,
}
"""What changes attention before and after it."""


def run(family: Family, model: Any, subject: dict[int, int] | None = MAN) -> torch.Tensor:
    return family.sample(model, family.prompt(subjects=subject), size=(16, 16), steps=1)


@pytest.mark.parametrize("name", OTHERS)
def test_before_and_after_another_node(family: Family, name: str):
    other = OTHERS[name]
    # A plain prompt: without ApplyMoA the host would not batch a prompt that carries subjects with the negative.
    theirs = run(family, other(family.model), None)
    assert torch.equal(run(family, other(family.model), None), theirs), "the other node is not deterministic"
    assert torch.equal(run(family, family.attach(other(family.model), **PINNED)), theirs), "applied after"
    assert torch.equal(run(family, other(family.attach(**PINNED))), theirs), "applied before"
    for model in (family.attach(other(family.model)), other(family.attach())):
        ours = run(family, model)
        assert ours.isfinite().all()
        assert subjects.difference(theirs, ours) > 0.01


def test_the_other_nodes_do_something(family: Family):
    """Otherwise the test above would prove nothing."""
    base = run(family, family.model, None)
    unchanged = [name for name, other in OTHERS.items() if torch.equal(run(family, other(family.model), None), base)]
    assert unchanged == []


def test_order_does_not_matter_where_theirs_brackets_attention(family: Family):
    for name, other in BRACKETS.items():
        assert torch.equal(run(family, family.attach(other(family.model))), run(family, other(family.attach()))), name


def test_blocks_that_another_node_computes_without_a_precision(family: Family):
    """As Advanced-ControlNet's reference does."""

    def forget(hidden: Any, context: Any, value: Any, options: dict) -> tuple[Any, Any, Any]:
        options.pop("attn_precision", None)
        return hidden, context, value

    model = family.model.clone()
    model.set_model_attn1_patch(forget)
    assert torch.equal(run(family, family.attach(model)), run(family, family.attach()))
