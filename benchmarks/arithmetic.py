"""The arithmetic of MoA, from its equations: to be compared with what is counted.

Multiply-adds of linear layers and attention products, two FLOPs each, as PyTorch's counter counts them.
"""

from __future__ import annotations

from ..moa_attention.method.fusion import FREQUENCIES
from ..moa_attention.method.spec import LayerSpec, MoAConfig

STAGES = {"sd15": 4, "sdxl": 3}
"""Resolutions of the U-Net, each half the one before; each has three blocks on the way down and three on the way up."""
TEXT_TOKENS = 77


def latent_pixels(spec: LayerSpec, base: str, side: int) -> int:
    """N of a layer, for a picture of `side` pixels."""
    stage, number, _ = spec.name.split("_", 2)
    last = STAGES[base] - 1
    halvings = {"input": int(number) // 3, "middle": last, "output": last - int(number) // 3}[stage]
    return (side // 8 >> halvings) ** 2


def layer_multiply_adds(spec: LayerSpec, pixels: int, routed: float = 1.0, projected: int = TEXT_TOKENS) -> float:
    """What the personalised branch and its router add to one row of one layer.

    Args:
        pixels: N.
        routed: share of the pixels for which the branch is computed; the router, and self-attention's keys and values, take
            all.
        projected: words whose keys and values are computed at this step; a prompt's constant ones may be cached.
    """
    queries = routed * pixels
    keys = TEXT_TOKENS if spec.is_cross else pixels
    query_side = 2 * queries * spec.hidden**2  # W_q and W_o
    key_side = 2 * (projected if spec.is_cross else pixels) * spec.context * spec.hidden  # W_k and W_v
    products = 2 * queries * keys * spec.hidden
    return query_side + key_side + products + 2 * pixels * spec.hidden


def fusion_multiply_adds(config: MoAConfig, subjects: int) -> int:
    """Eq. 9 for all layers: the space-time encoding, and an MLP for each subject."""
    joint, text = config.image_width + config.text_width, config.text_width
    return config.depth * (4 * FREQUENCIES * joint + subjects * (joint * 2 * text + 2 * text * text))


def extra_flops(
    config: MoAConfig, side: int, subjects: int, routed: float = 1.0, projected: int = TEXT_TOKENS
) -> float:
    """FLOPs that one row with subjects adds to the stock model's; rows without subjects add none."""
    layers = (
        layer_multiply_adds(spec, latent_pixels(spec, config.base, side), routed, projected) for spec in config.layers
    )
    return 2 * (sum(layers) + fusion_multiply_adds(config, subjects))


def folded_flops(config: MoAConfig, side: int, tokens: int, rows: int) -> int:
    """FLOPs of image prompts whose tokens have the prior's W_q and W_o in them: nothing is projected."""
    cross = [spec for spec in config.layers if spec.is_cross]
    layers = (2 * latent_pixels(spec, config.base, side) * spec.hidden * spec.heads * tokens for spec in cross)
    return 2 * rows * sum(layers)


def image_prompt_flops(config: MoAConfig, side: int, tokens: int, rows: int) -> int:
    """FLOPs that an IP-Adapter adds: two halves are projected whatever the number of rows."""
    cross = [spec for spec in config.layers if spec.is_cross]
    projections = sum(2 * 2 * tokens * spec.context * spec.hidden for spec in cross)
    products = sum(2 * rows * latent_pixels(spec, config.base, side) * tokens * spec.hidden for spec in cross)
    return 2 * (projections + products)
