"""Names in IP-Adapter files: the order in which they number the attention layers, and what the published trainer writes.

A published file has `image_proj.*` and `ip_adapter.<number>.*`. The trainer's checkpoints hold the same tensors as `image_proj_model.*`
and `adapter_modules.<number>.*`, or, where the container keeps one name for a tensor, under their places in diffusers' U-Net:
`unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_ip.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

PROJECTION, LAYERS = "image_proj.", "ip_adapter."
SD15 = [*(("input", n, 1) for n in (1, 2, 4, 5, 7, 8)), *(("output", n, 1) for n in range(3, 12)), ("middle", 0, 1)]
SDXL = [
    ("input", 4, 2), ("input", 5, 2), ("input", 7, 10), ("input", 8, 10), *(("output", n, 10) for n in range(3)),
    *(("output", n, 2) for n in range(3, 6)), ("middle", 0, 10),
]  # fmt: skip
"""(stage, block, transformers) in the order in which the published files number layers: the middle block comes last."""
STAGES = ("input", "middle", "output")
TRAINERS = {PROJECTION: "image_proj_model.", LAYERS: "adapter_modules."}
WRAPPER = "module."
"""Prefix of all names where the trainer ran on several devices."""
IN_THE_UNET = re.compile(
    r"(?:ip_adapter\.|unet\.)?(?P<stage>down|up|mid)_blocks?\.(?:(?P<block>\d{1,3})\.)?attentions\.(?P<place>\d{1,3})\."
    r"transformer_blocks\.(?P<transformer>\d{1,3})\.attn(?P<attention>[12])\.processor\.(?P<rest>\w+_(?:ip|lora)\..+)"
)
DIFFUSERS_STAGES = ("down", "up", "mid")


class Place(NamedTuple):
    """An attention layer of a U-Net."""

    stage: str
    block: int
    transformer: int
    kind: Literal["self", "cross"]

    @property
    def name(self) -> str:
        return f"{self.stage}_{self.block}_{self.transformer}_{'attn2' if self.kind == 'cross' else 'attn1'}"

    @property
    def execution_order(self) -> tuple[int, int, int]:
        """Sorts transformer blocks as the U-Net executes them."""
        return STAGES.index(self.stage), self.block, self.transformer


def places(base: str, kind: Literal["self", "cross"]) -> Iterator[Place]:
    """The self- or cross-attention layers in the file's order."""
    for stage, block, transformers in SD15 if base == "sd15" else SDXL:
        yield from (Place(stage, block, j, kind) for j in range(transformers))


def published_names(names: Iterable[str]) -> dict[str, str]:
    """Names as in published files, each with that of this file; tensors of other parts are left out.

    The trainer's numbered names take precedence over those in its U-Net, which hold the same tensors.
    """
    plain = {name.removeprefix(WRAPPER): name for name in names}
    found = numbered(plain)
    for theirs, name in plain.items():
        for ours, trainers in TRAINERS.items():
            if theirs.startswith((ours, trainers)) and not IN_THE_UNET.fullmatch(theirs):
                found[ours + theirs.removeprefix(ours).removeprefix(trainers)] = name
    return found


def numbered(plain: Mapping[str, str]) -> dict[str, str]:
    """The names in diffusers' U-Net as those of numbered layers: a block's self-attention 2n, its cross-attention 2n + 1."""
    matches = [(match, name) for theirs, name in plain.items() if (match := IN_THE_UNET.fullmatch(theirs))]
    blocks = sorted({block_order(match) for match, _ in matches})
    numbers = {block: 2 * n for n, block in enumerate(blocks)}
    return {
        f"{LAYERS}{numbers[block_order(match)] + (match['attention'] == '2')}.{match['rest']}": name
        for match, name in matches
    }


def block_order(match: re.Match[str]) -> tuple[int, ...]:
    """Sorts transformer blocks as the published files number them."""
    return DIFFUSERS_STAGES.index(match["stage"]), *(
        int(match[part] or 0) for part in ("block", "place", "transformer")
    )
