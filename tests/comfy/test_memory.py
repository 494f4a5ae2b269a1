"""The adapter as the host treats it when memory is short or weights are compressed: streamed, in bf16, in fp8."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.supported_models
import host
import pytest
import subjects
import torch
from comfy.model_patcher import ModelPatcher
from comfyui_moa.moa_attention.method.expert import LowRank
from comfyui_moa.moa_attention.run.budget import Budget
from comfyui_moa.nodes.host.model import patch
from comfyui_moa.nodes.host.prompts.conditioning import payload
from subjects import Family

MAN = {4: 11}


@contextmanager
def streamed(*patchers: Any) -> Iterator[None]:
    """Load them with next to no memory, so that weights come to their layers one by one."""

    def load(patcher: Any, **room: int) -> None:
        patcher.detach()
        patcher.load(patcher.load_device, **room)

    for patcher in patchers:
        load(patcher, lowvram_model_memory=64)
    try:
        yield
    finally:
        for patcher in patchers:
            load(patcher, full_load=True)


def call(family: Family, model: Any) -> torch.Tensor:
    """One U-Net call with a subject; a sampler would decide by itself which models to load."""
    [[context, _]] = family.prompt(subjects=MAN)
    rows = {name: cond.cond for name, cond in payload(context.bindings, context.shape[1]).items()}
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return patch.call_with_subjects(model, x, torch.ones(1), context, None, rows)


@pytest.mark.parametrize("options", [{}, {"rank": 4}], ids=["whole", "low rank"])
def test_streamed_weights_give_the_same(options: dict[str, Any]):
    """Base and adapter both, the base with a LoRA that is added on loading."""
    family = subjects.make_family("sd15")
    adapter = subjects.make_adapter(family.model, family.context, **options)
    model = family.model.clone()
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    difference = torch.randn(model.model.state_dict()[name].shape, generator=torch.Generator().manual_seed(3))
    model.add_patches({name: ("diff", (0.2 * difference,))})
    patched = family.attach(model=model, adapter=adapter)
    assert isinstance(model, ModelPatcher) and isinstance(adapter.patcher, ModelPatcher)
    for patcher in (patched, adapter.patcher):
        patcher.load(patcher.load_device, full_load=True)
    whole = call(family, patched)
    with streamed(patched, adapter.patcher):
        for patcher in (patched, adapter.patcher):
            assert any(getattr(m, "comfy_cast_weights", False) for m in patcher.model.modules())
        ours = [m for m in adapter.patcher.model.modules() if isinstance(m, torch.nn.Linear)]
        assert sum(bool(m.comfy_cast_weights) for m in ours) > 0.9 * len(ours)
        again = call(family, patched)
    assert subjects.difference(whole, again) < 1e-5
    patched.detach()
    plain = family.attach(adapter=adapter)
    plain.load(plain.load_device, full_load=True)
    if options:
        assert isinstance(adapter.patcher.model.layers["middle_0_0_attn1"].to_q, LowRank)
    assert subjects.difference(whole, call(family, plain)) > 1e-3, "the LoRA has an effect"


def compressed(dtype: torch.dtype, compute: torch.dtype | None) -> Family:
    """SD1.5's layout with weights in `dtype`, computed in another dtype where one is given."""
    plain = subjects.make_family("sd15")
    layout = host.sd15_layout(32, host.SD15_CONTEXT)
    model = host.build(comfy.supported_models.SD15, layout, dtype=dtype, compute=compute)
    weights = plain.model.model.diffusion_model.state_dict()
    model.diffusion_model.load_state_dict({name: w.to(dtype) for name, w in weights.items()})
    device = comfy.model_management.get_torch_device()
    patcher = ModelPatcher(model, load_device=device, offload_device=device)
    return Family(f"sd15 in {dtype}", patcher, plain.context, None, plain.adapter)


@pytest.mark.parametrize(
    ("dtype", "compute", "near"),
    [(torch.bfloat16, None, 0.1), (torch.float8_e4m3fn, torch.float32, 0.35), (torch.float16, torch.float32, 0.02)],
    ids=["bf16", "fp8 weights", "fp16 weights"],
)
def test_a_compressed_base_takes_the_adapter_as_it_is(dtype: torch.dtype, compute: Any, near: float):
    family, plain = compressed(dtype, compute), subjects.make_family("sd15")
    prompt = family.prompt(subjects=MAN)
    assert next(family.model.model.diffusion_model.parameters()).dtype == dtype
    base, ours = family.sample(family.model, prompt), family.sample(family.attach(), prompt)
    assert ours.isfinite().all()
    # The host may have sampled the base alone row by row, which rounds otherwise.
    assert subjects.difference(family.sample(family.attach(prior_bias=9999.0), prompt), base) < 1e-3
    expected = plain.sample(plain.attach(), prompt)
    scale = subjects.difference(plain.sample(plain.model, prompt), expected)
    assert subjects.difference(ours, expected) < near * scale
    sparse = family.sample(family.attach(budget=Budget(0.5)), prompt)
    assert sparse.isfinite().all() and not torch.equal(sparse, ours)
