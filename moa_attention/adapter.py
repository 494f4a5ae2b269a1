"""The adapter: one MoA layer per attention layer of the U-Net, and what turns an image into a word."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor, nn

from .clip_tail import ClipTail
from .config import EMBEDDED_ENCODER, MoAConfig
from .encoder import ImageEncoder
from .layer import MoALayer
from .postfuse import PostFusion
from .projection import Place
from .step import Rows, Step
from .subject import SubjectFusion, gather_tokens


class MoAAdapter(nn.Module):
    """All trained parts of MoA for one base model.

    Args:
        config: the layers and widths.
        operations: where layers come from: the host's casting operations, or `torch.nn`.
    """

    def __init__(
        self,
        config: MoAConfig,
        *,
        operations: ModuleType | type = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        place = {"operations": operations, "device": device, "dtype": dtype}
        self.config = config
        self.layers = nn.ModuleDict({spec.name: MoALayer(spec, config, **place) for spec in config.layers})
        widths, foreign = (config.image_width, config.text_width), config.fusion == "fastcomposer"
        self.fusion = PostFusion(*widths, Place(**place)) if foreign else SubjectFusion(*widths, **place)
        embedded = config.image_encoder == EMBEDDED_ENCODER
        self.encoder = ImageEncoder(config.image_width, **place) if embedded else None
        tail = (config.encoder_tail, config.encoder_width, config.image_width)
        self.tail = ClipTail(*tail, Place(**place)) if config.encoder_tail else None

    tells_apart = True
    """Whether a routed prompt says by itself which subject a pixel is."""

    @property
    def has_routers(self) -> bool:
        """Whether it decides itself where subjects speak."""
        return self.config.router != "none"

    def init_from(self, attentions: Mapping[str, nn.Module]) -> None:
        """Start from the base model: experts copied, routers and fusion neutral.

        Args: attentions: the base model's attention modules by layer name.
        Raises: KeyError when the base model lacks a layer.
        """
        assert isinstance(self.fusion, SubjectFusion)  # FastComposer's has no neutral state
        for name, layer in self.layers.items():
            assert isinstance(layer, MoALayer)
            layer.init_from(attentions[name])
        self.fusion.zero()

    def begin(
        self,
        context: Tensor,
        t: Tensor,
        slots: Tensor,
        features: Tensor,
        rows: Rows,
        prior_bias: Tensor,
        weights: Tensor | None = None,
    ) -> Step:
        """Prepare one U-Net call: fuse every subject's token for every layer at this timestep (eq. 9).

        Args:
            context: (B,M,T) text embedding of the call.
            t: (B,) timesteps.
            slots: (B,M) int64, 0 for an ordinary token, s for subject s.
            features: (B,S,F) image features.
            rows: those with a subject, R of them.
            prior_bias: () float32.
            weights: (R,S), how far each subject's token goes from its word to the subject, 1 all the way (ours).
        """
        if rows is not None:
            context, t, slots, features = context[rows], t[rows], slots[rows], features[rows]
        words = gather_tokens(context, slots, features.shape[1])
        tokens = self.fusion(features.to(words.dtype), words, t, self.config.depth)
        if weights is not None:
            tokens = words.lerp(tokens, weights[..., None].to(tokens.dtype))
        return Step(rows, slots, tokens, prior_bias)

    @torch.no_grad()
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())
