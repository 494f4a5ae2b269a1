"""The harness itself: the host's classes build the shapes we claim, and they sample."""

import importlib
from collections.abc import Callable
from typing import Any

import host
import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock

from devtools import draw_attachment


def blocks(model: Any) -> int:
    return sum(isinstance(module, BasicTransformerBlock) for module in model.model.diffusion_model.modules())


def test_sd15_has_its_sixteen_blocks_and_samples():
    model = host.sd15()
    assert blocks(model) == 16
    samples = host.sample(model, host.conditioning(seed=1), host.conditioning(seed=2))
    assert samples.shape == (1, 4, 16, 16)
    assert samples.isfinite().all()
    assert samples.std() > 0.01


def test_sdxl_has_its_seventy_blocks_and_samples():
    model = host.sdxl()
    assert blocks(model) == 70
    width, pooled = host.SDXL_CONTEXT, host.SDXL_G
    positive = host.conditioning(width, pooled=pooled, seed=1)
    samples = host.sample(model, positive, host.conditioning(width, pooled=pooled, seed=2), steps=1)
    assert samples.isfinite().all()


def test_a_text_changes_the_picture():
    clip, model = host.sd15_clip(), host.sd15()
    negative = host.encode(clip, "")
    man, woman = (host.sample(model, host.encode(clip, f"a photo of a {noun}"), negative) for noun in ("man", "woman"))
    assert man.isfinite().all()
    assert not torch.equal(man, woman)


def test_sdxl_text_encoders_have_the_width_of_the_unet():
    [[context, extras]] = host.encode(host.sdxl_clip(), "a man and a woman")
    assert context.shape == (1, 77, host.SDXL_CONTEXT)
    assert extras["pooled_output"].shape == (1, host.SDXL_G)
    assert context.isfinite().all()


@pytest.mark.parametrize("factory", [host.sd15, host.sdxl])
def test_same_seed_same_weights(factory: Callable[..., Any]):
    first, second, other = factory(), factory(), factory(seed=1)
    key = "middle_block.1.transformer_blocks.0.attn2.to_q.weight"
    weight = [m.model.diffusion_model.state_dict()[key] for m in (first, second, other)]
    assert torch.equal(weight[0], weight[1])
    assert not torch.equal(weight[0], weight[2])


def test_the_figure_of_the_attachment_names_what_is_attached(pack: Any):
    patch, unet = (importlib.import_module(f"{pack.__name__}.nodes.host.model.{name}") for name in ("patch", "unet"))
    assert tuple(kind.upper() for kind in patch.WRAPPED) == draw_attachment.WRAPPERS
    assert (tuple(unet.CAPTURES), tuple(unet.BLENDS)) == (draw_attachment.CAPTURE, draw_attachment.BLEND)
