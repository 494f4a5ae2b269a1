"""What an adapter is made of: one entry per attention layer, and the widths at the seams."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

EMBEDDED_ENCODER = "moa-embedded-64"
"""Name of the image encoder that travels inside the adapter file (`encoder.py`)."""


@dataclass(frozen=True)
class LayerSpec:
    """One attention layer of the U-Net, named by its place: `input_1_0_attn2` is block ("input", 1), transformer 0."""

    name: str
    depth: int
    """Index of its transformer block in execution order, 0..L-1: the l of eq. 9. Both attentions of a block share it."""
    hidden: int
    """D, width of the hidden state (queries)."""
    context: int
    """Width of keys and values' input: D for self-attention, T for cross-attention."""
    heads: int
    supervised: bool
    """Whether its R_0 counts in the router loss, and so in the picture shown by default."""

    @property
    def is_cross(self) -> bool:
        return self.name.endswith("attn2")


@dataclass(frozen=True)
class MoAConfig:
    """Everything needed to build an adapter; stored as JSON in the file's header."""

    base: str
    """The architecture it was trained on: "sd15", "sdxl", "moa-mini"."""
    layers: tuple[LayerSpec, ...]
    text_width: int
    """T, width of a token of the text encoder's output."""
    image_encoder: str
    """`EMBEDDED_ENCODER`, or the name of the CLIP vision model whose projected embedding is F wide."""
    image_width: int
    """F, width of the image feature."""
    output_projection: Literal["shared", "own"] = "shared"
    """Whether the personalised branch uses the prior's W_o (the equations name none) or one of its own."""
    rank: int = 0
    """0: the expert has whole W_q, W_k, W_v; r: differences of rank r to the prior's (ours)."""
    router: Literal["linear", "mlp", "none"] = "linear"
    """f of eq. 5: one linear layer, or two with D/4 dimensions between (ours; the paper allows both). "none": converted
    weights that were trained without routers; `untrained.py` has some for them."""
    fusion: Literal["moa", "fastcomposer"] = "moa"
    """How a subject's token is made: by eq. 9, or as FastComposer does, the same for every layer and timestep."""
    encoder_tail: int = 0
    """How many of the image encoder's last blocks the adapter brings; 0: none, the stock model's feature is used."""
    encoder_width: int = 0
    """Width of the image encoder's hidden states; only with `encoder_tail`."""

    @property
    def depth(self) -> int:
        """L, the number of transformer blocks."""
        return 1 + max(layer.depth for layer in self.layers)

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> MoAConfig:
        """Raises ValueError, TypeError or KeyError when a field is missing, unknown or malformed."""
        fields = json.loads(text)
        fields["layers"] = tuple(LayerSpec(**layer) for layer in fields["layers"])
        if not fields["layers"]:
            raise ValueError("an adapter needs at least one layer")
        return cls(**fields)
