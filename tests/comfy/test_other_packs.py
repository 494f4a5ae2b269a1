"""Beside other nodes, before and after them: with the prior pinned their result is untouched, to the bit."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.ops
import host
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
    "HyperTile": extra("nodes_hypertile", "HyperTile", 32, 2, 1, False),
    "ToMe": extra("nodes_tomesd", "TomePatchModel", 0.5),
    "FreeU": extra("nodes_freelunch", "FreeU_V2", 1.3, 1.4, 0.9, 0.2),
    "PAG": extra("nodes_pag", "PerturbedAttentionGuidance", 3.0),
    "SAG": extra("nodes_sag", "SelfAttentionGuidance", 0.5, 2.0),
    "NAG": extra("nodes_nag", "NAGuidance", 5.0, 0.5, 1.5),
    "LoRA": lora,
    "image prompt": image_prompt,
}


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
    # The host's ToMe merges at full resolution only, where SDXL has no attention.
    assert unchanged == (["ToMe"] if family.name == "sdxl" else [])


def test_order_does_not_matter_where_theirs_brackets_attention(family: Family):
    for name in ("HyperTile", "ToMe", "image prompt", "LoRA"):
        other = OTHERS[name]
        assert torch.equal(run(family, family.attach(other(family.model))), run(family, other(family.attach()))), name


def test_blocks_that_another_node_computes_without_a_precision(family: Family):
    """As Advanced-ControlNet's reference does."""

    def forget(hidden: Any, context: Any, value: Any, options: dict) -> tuple[Any, Any, Any]:
        options.pop("attn_precision", None)
        return hidden, context, value

    model = family.model.clone()
    model.set_model_attn1_patch(forget)
    assert torch.equal(run(family, family.attach(model)), run(family, family.attach()))


def control_net(family: Family) -> Any:
    """A tiny random ControlNet in the host's class."""
    layout: dict[str, Any] = {"num_res_blocks": [2, 2, 2, 2], "channel_mult": (1, 2, 4, 4), "num_heads": 8}
    layout |= {
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "context_dim": family.context,
    }
    device = comfy.model_management.get_torch_device()
    common: dict[str, Any] = {"image_size": 32, "in_channels": 4, "model_channels": 32, "hint_channels": 3}
    net = comfy.cldm.cldm.ControlNet(
        **common,
        **layout,
        use_spatial_transformer=True,
        dtype=torch.float32,
        device=device,
        operations=comfy.ops.manual_cast,
    )
    host.randomise(net, 9)
    return comfy.controlnet.ControlNet(net.eval().requires_grad_(False), load_device=device)


def test_with_a_control_net():
    family = subjects.make_family("sd15")
    apply = importlib.import_module("nodes").ControlNetApplyAdvanced().apply_controlnet
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    net = control_net(family)
    plain, negative = family.prompt(), family.prompt(seed=2)
    theirs = family.sample(family.model, *apply(plain, negative, net, image, 0.8, 0.0, 1.0)[:2])
    assert not torch.equal(theirs, family.sample(family.model, plain, negative))
    controlled = apply(family.prompt(subjects=MAN), negative, net, image, 0.8, 0.0, 1.0)[:2]
    assert torch.equal(family.sample(family.attach(**PINNED), *controlled), theirs)
    ours = family.sample(family.attach(), *controlled)
    assert ours.isfinite().all()
    assert subjects.difference(theirs, ours) > 0.01
