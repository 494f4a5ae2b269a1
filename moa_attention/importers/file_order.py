"""In which order IP-Adapter files count the attention layers, and which of ours these are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

SD15 = [*(("input", n, 1) for n in (1, 2, 4, 5, 7, 8)), *(("output", n, 1) for n in range(3, 12)), ("middle", 0, 1)]
SDXL = [
    ("input", 4, 2), ("input", 5, 2), ("input", 7, 10), ("input", 8, 10), *(("output", n, 10) for n in range(3)),
    *(("output", n, 2) for n in range(3, 6)), ("middle", 0, 10),
]  # fmt: skip
"""(stage, block, transformers) in the order in which the published files count layers: the middle block comes last."""
STAGES = ("input", "middle", "output")


def places(base: str, attention: Literal["attn1", "attn2"]) -> Iterator[str]:
    """Names of the self- or cross-attention layers in the file's order."""
    for stage, block, transformers in SD15 if base == "sd15" else SDXL:
        yield from (f"{stage}_{block}_{j}_{attention}" for j in range(transformers))


def in_order(name: str) -> tuple[int, int, int]:
    """Sorts layer names as the U-Net executes them."""
    stage, block, transformer, _ = name.split("_")
    return STAGES.index(stage), int(block), int(transformer)
