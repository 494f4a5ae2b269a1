"""The MoA adapter: experts and routers of all layers, the multimodal fusion, and where needed an image encoder of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..method.factory import PLAIN, Factory
from ..method.fusion import SubjectFusion
from ..method.layer import MoALayer
from ..method.prompt import gather_tokens, token_numbers
from ..method.spec import EMBEDDED_ENCODER, MoAConfig
from ..run.step import FurtherTokens, Rows, Step
from .base import Adapter, EncoderInput
from .fastcomposer import PostFusion
from .vision import ClipTail, ImageEncoder


class MoAAdapter(Adapter):
    """All trained parts of MoA for one base model."""

    def __init__(self, config: MoAConfig, factory: Factory = PLAIN):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleDict({spec.name: MoALayer(spec, config, factory) for spec in config.layers})
        widths = (config.image_width, config.text_width, factory)
        fastcomposer = config.fusion == "fastcomposer"
        self.fusion = PostFusion(*widths) if fastcomposer else SubjectFusion(*widths, config.image_tokens)
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
    def further_tokens(self) -> int:
        return self.config.image_tokens - 1

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
        subjects, length = features.shape[1], context.shape[1]
        words = gather_tokens(context, slots[:, :length], subjects)
        plain, places = words, None
        if self.further_tokens:  # they start as the prompt's last token, of which it has many
            further = context[:, None, -1:].expand(-1, subjects, self.further_tokens, -1)
            plain = torch.cat((words[:, :, None], further), dim=2).flatten(1, 2)
            numbers = token_numbers(slots, length, subjects, self.further_tokens)
            places = FurtherTokens(self.config.image_tokens, length, numbers)
        tokens = self.fusion(features.to(words.dtype), words, t, self.config.depth, plain)
        if weights is not None:
            weights = weights.repeat_interleave(self.config.image_tokens, dim=1)[..., None].to(tokens.dtype)
            tokens = torch.where(weights == 0, plain, plain.lerp(tokens, weights))
        return Step(rows, slots, tokens, prior_bias, places)
