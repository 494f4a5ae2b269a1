"""The description of an adapter: one entry per attention layer, and the widths of its inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EMBEDDED_ENCODER = "moa-embedded-96"
"""Name of the image encoder that is part of the adapter file (`adapters/vision.py`)."""


@dataclass(frozen=True)
class LayerSpec:
    """One attention layer of the base model."""

    name: str
    """Unique in the model, chosen by its attachment: `input_1_0_attn2` is block ("input", 1) of a U-Net, transformer 0."""
    stage: str
    """The part of the model, for a U-Net `input`, `middle` or `output`."""
    kind: Literal["self", "cross"]
    depth: int
    """Index of its transformer block in execution order, 0..L-1: the l of eq. 9. Both attentions of a block share it."""
    hidden: int
    """D, width of the hidden state, from which queries are projected."""
    context: int
    """Width of the input of keys and values: D for self-attention, T for cross-attention."""
    heads: int
    supervised: bool
    """Whether its R_0 counts in the router loss, and in the map that is shown by default."""

    @property
    def is_cross(self) -> bool:
        return self.kind == "cross"


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
    """f of eq. 5: one linear layer, or two with D/4 dimensions between (ours; the paper allows both). "none": imported
    weights without routers; `moa_attention/routers` holds routers for them that need no training."""
    image_tokens: int = 1
    """K, how many tokens a subject has: the one in the place of its word, and K − 1 after the prompt (ours; the paper has 1)."""
    fusion: Literal["moa", "fastcomposer"] = "moa"
    """How a subject's token is computed: by eq. 9, or as in FastComposer, the same for every layer and timestep."""
    encoder_tail: int = 0
    """How many of the image encoder's last blocks are part of the adapter; 0: none, the stock model's feature is used."""
    encoder_width: int = 0
    """Width of the image encoder's hidden states; only with `encoder_tail`."""

    @property
    def depth(self) -> int:
        """L, the number of transformer blocks."""
        return 1 + max(layer.depth for layer in self.layers)
