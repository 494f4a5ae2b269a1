"""Stable Diffusion 1.5 at its real width: sizes as published, and one call of the whole thing in half precision."""

import comfy.model_management
import comfy.ops
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.adapters.moa import MoAAdapter
from comfyui_moa.moa_attention.method.factory import Factory
from comfyui_moa.moa_attention.method.spec import MoAConfig
from comfyui_moa.nodes.host.model.unet import attention_layers
from torch import nn


def unet(
    channels: int,
    context: int,
    operations: type = comfy.ops.disable_weight_init,
    dtype: torch.dtype = torch.float32,
    **place,
):
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    depth = {"transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1}
    return UNetModel(
        image_size=32, in_channels=4, out_channels=4, model_channels=channels, num_res_blocks=[2, 2, 2, 2],
        channel_mult=(1, 2, 4, 4), transformer_depth_output=[1] * 9 + [0] * 3, context_dim=context, num_heads=8,
        use_spatial_transformer=True, legacy=False, dtype=dtype, operations=operations, **depth, **place,
    )  # fmt: skip


def test_parameter_counts_are_the_published_ones():
    """68.7 M for the projections, 50 k for the routers; nothing is allocated."""
    with torch.device("meta"):
        model = unet(320, 768, device="meta")
        specs = tuple(layer.spec for layer in attention_layers(model))
        shared = MoAAdapter(MoAConfig("sd15", specs, 768, "clip-vit-large-patch14", 768), Factory(device="meta"))
        own = MoAAdapter(MoAConfig("sd15", specs, 768, "clip-vit-large-patch14", 768, "own"), Factory(device="meta"))

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    routers = sum(count(layer.router) for layer in shared.layers.values())
    assert len(specs) == 32
    assert round((count(shared.layers) - routers) / 1e6, 1) == 68.7
    assert round(routers / 1e3) == 50
    assert round((count(own.layers) - routers) / 1e6, 1) == 93.5
    assert sum(not spec.supervised for spec in specs) == 10


@pytest.mark.slow
def test_real_width_runs_and_is_exact_where_pinned():
    """860 M random weights in bfloat16 (1.7 GB), one call on an 8 × 8 latent."""
    import host

    torch.manual_seed(0)
    model = host.sd15(channels=320, context=768)
    model.model.diffusion_model.to(torch.bfloat16)
    model.model.diffusion_model.dtype = torch.bfloat16
    model.model.manual_cast_dtype = None
    adapter = subjects.make_adapter(model, 768)
    adapter.patcher.model.to(torch.bfloat16)
    family = subjects.Family("sd15", model, 768, None, adapter)
    prompt = family.prompt(subjects={4: 1})
    comfy.model_management.load_models_gpu([model])
    base = family.sample(model, prompt, steps=1, cfg=1.0)
    pinned = family.sample(family.attach(prior_bias=9999.0), prompt, steps=1, cfg=1.0)
    ours = family.sample(family.attach(), prompt, steps=1, cfg=1.0)
    assert base.isfinite().all() and ours.isfinite().all()
    assert torch.equal(pinned, base)
    assert subjects.difference(base, ours) > 0.05
