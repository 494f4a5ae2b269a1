"""What MoA's arithmetic should be, from its equations: to be compared with what is counted.

Multiply-adds of linear layers and attention products, two FLOPs each, as PyTorch's counter counts them.
"""

from __future__ import annotations

from ..moa_attention.config import LayerSpec, MoAConfig
from ..moa_attention.subject import FREQUENCIES

STAGES = {"sd15": 4, "sdxl": 3}
"""Of the U-Net, each at half the side of the one before; three blocks of the way down, and of the way up, lie in each."""
TEXT_TOKENS = 77


def pixels(spec: LayerSpec, base: str, side: int) -> int:
    """N, the latent pixels that a layer sees of a picture of `side` pixels."""
    stage, number, _ = spec.name.split("_", 2)
    last = STAGES[base] - 1
    halvings = {"input": int(number) // 3, "middle": last, "output": last - int(number) // 3}[stage]
    return (side // 8 >> halvings) ** 2


def layer(spec: LayerSpec, pixels: int, routed: float = 1.0, projected: int = TEXT_TOKENS) -> float:
    """Multiply-adds that the personalised branch and its router add to one row of one layer.

    Args:
        routed: share of the pixels for which the branch is computed; the router, and self-attention's keys and values, see all.
        projected: words whose keys and values are made at this step; a prompt's constant ones may be kept from the first.
    """
    asking = routed * pixels
    heard = TEXT_TOKENS if spec.is_cross else pixels
    queries = 2 * asking * spec.hidden**2  # W_q and W_o
    keys = 2 * (projected if spec.is_cross else pixels) * spec.context * spec.hidden  # W_k and W_v
    products = 2 * asking * heard * spec.hidden
    return queries + keys + products + 2 * pixels * spec.hidden


def fusion(config: MoAConfig, subjects: int) -> int:
    """Multiply-adds of eq. 9 for all layers: the place's encoding, and an MLP for each subject."""
    joint, text = config.image_width + config.text_width, config.text_width
    return config.depth * (4 * FREQUENCIES * joint + subjects * (joint * 2 * text + 2 * text * text))


def extra_flops(
    config: MoAConfig, side: int, subjects: int, routed: float = 1.0, projected: int = TEXT_TOKENS
) -> float:
    """FLOPs that one row with subjects costs more than the stock model; rows without cost nothing."""
    layers = (layer(spec, pixels(spec, config.base, side), routed, projected) for spec in config.layers)
    return 2 * (sum(layers) + fusion(config, subjects))


def image_prompt_flops(config: MoAConfig, side: int, tokens: int, rows: int) -> int:
    """FLOPs that an IP-Adapter costs more: two halves are projected whatever the number of rows."""
    cross = [spec for spec in config.layers if spec.is_cross]
    projections = sum(2 * 2 * tokens * spec.context * spec.hidden for spec in cross)
    products = sum(2 * rows * pixels(spec, config.base, side) * tokens * spec.hidden for spec in cross)
    return 2 * (projections + products)
