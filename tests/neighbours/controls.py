"""Networks of random weights that steer the U-Net from outside, in the host's own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.gligen
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.t2i_adapter.adapter
import host
import torch
from torch import nn

if TYPE_CHECKING:
    from subjects import Family

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sd15": {
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": (1, 2, 4, 4),
        "transformer_depth": [1] * 6 + [0] * 2,
        "num_heads": 8,
    },
    "sdxl": {
        "num_res_blocks": [2, 2, 2],
        "channel_mult": (1, 2, 4),
        "transformer_depth": [0, 0, 1, 1, 1, 1],
        "num_head_channels": 8,
    },
}


def ready(net: nn.Module, seed: int) -> nn.Module:
    """With random weights, on the host's device."""
    host.randomise(net, seed)
    return net.to(comfy.model_management.get_torch_device()).eval().requires_grad_(False)


def control_net(family: Family, seed: int = 9) -> Any:
    """A ControlNet for pictures with three channels."""
    layout = {**TRANSFORMERS[family.name], "transformer_depth_middle": 1, "context_dim": family.context}
    if family.pooled is not None:
        layout |= {
            "num_classes": "sequential",
            "adm_in_channels": family.pooled + host.SDXL_ADM_SIZES,
            "use_linear_in_transformer": True,
        }
    net = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=4,
        model_channels=32,
        hint_channels=3,
        use_spatial_transformer=True,
        dtype=torch.float32,
        device=comfy.model_management.get_torch_device(),
        operations=comfy.ops.manual_cast,
        **layout,
    )
    return comfy.controlnet.ControlNet(ready(net, seed), load_device=comfy.model_management.get_torch_device())


def t2i_adapter(family: Family) -> Any:
    """A T2I-Adapter for pictures with three channels."""
    large = family.name == "sdxl"
    pixels = 16 if large else 8
    net = comfy.t2i_adapter.adapter.Adapter(
        channels=[32, 64, 128, 128], nums_rb=2, cin=3 * pixels**2, ksize=1, sk=True, use_conv=False, xl=large
    )
    return comfy.controlnet.T2IAdapter(ready(net, 10), 3, 8, "nearest-exact")


def gligen(family: Family) -> Any:
    """GLIGEN for text boxes: a layer of its own in every transformer block of SD1.5."""
    width = family.context
    blocks = [m for m in family.model.model.diffusion_model.modules() if type(m).__name__ == "BasicTransformerBlock"]
    hidden = [block.attn1.to_q.in_features for block in blocks]
    layers = [comfy.gligen.GatedSelfAttentionDense(size, width, 4, size // 4) for size in hidden]
    net = ready(comfy.gligen.Gligen(layers, comfy.gligen.PositionNet(width, width), width), 11)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(net, load_device=device, offload_device=device)
