"""The MoA adapter: experts and routers of all layers, the multimodal fusion, and where needed an image encoder of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..method.factory import PLAIN, Factory
from ..method.fusion import SubjectFusion
from ..method.layer import MoALayer
from ..method.prompt import gather_tokens
from ..method.spec import EMBEDDED_ENCODER, MoAConfig
from ..run.step import Rows, Step
from .base import Adapter, EncoderInput
from .fastcomposer import PostFusion
from .vision import ClipTail, ImageEncoder


class MoAAdapter(Adapter):
    """All trained parts of MoA for one base model."""

    def __init__(self, config: MoAConfig, factory: Factory = PLAIN):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleDict({spec.name: MoALayer(spec, config, factory) for spec in config.layers})
        fusion = PostFusion if config.fusion == "fastcomposer" else SubjectFusion
        self.fusion = fusion(config.image_width, config.text_width, factory)
        embedded = config.image_encoder == EMBEDDED_ENCODER
        self.encoder = ImageEncoder(config.image_width, factory) if embedded else None
        tail = (config.encoder_tail, config.encoder_width, config.image_width)
        self.tail = ClipTail(*tail, factory) if config.encoder_tail else None

    @property
    def requires(self) -> dict[EncoderInput, int]:
        if self.encoder is not None:
            return {"pixels": self.encoder.picture}
        if self.tail is not None:
            return {"embedding": self.config.image_width, "hidden": self.config.encoder_width}
        return {"embedding": self.config.image_width}

    @property
    def subject_modules(self) -> list[nn.Module]:
        encoder = self.tail or self.encoder
        return [self.fusion] if encoder is None else [encoder, self.fusion]

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

    def encode(self, inputs: Mapping[EncoderInput, Tensor]) -> Tensor:
        if self.encoder is not None:
            return self.encoder(inputs["pixels"])
        return inputs["embedding"] if self.tail is None else self.tail(inputs["hidden"])

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
        """As `Adapter.begin`: every subject's token is fused for every layer at this timestep (eq. 9).

        With weights, the tokens lie between the word's, at 0, and the fused ones, at 1, or beyond these (ours).
        """
        if rows is not None:
            context, t, slots, features = context[rows], t[rows], slots[rows], features[rows]
        words = gather_tokens(context, slots, features.shape[1])
        tokens = self.fusion(features.to(words.dtype), words, t, self.config.depth)
        if weights is not None:
            weights = weights[..., None].to(tokens.dtype)
            tokens = torch.where(weights == 0, words, words.lerp(tokens, weights))
        return Step(rows, slots, tokens, prior_bias)
