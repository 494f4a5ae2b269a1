"""Image prompts as the personalised branch: IP-Adapter's decoupled attention (arXiv 2308.06721), routed.

In a cross-attention layer the personalised branch adds attention over a subject's image tokens to the prior:

    personal_s(z) = prior(z) + W_o Attention(z W_q, c_s W_k', c_s W_v')

Mixed with the prior this is R_0 prior + Σ_s R_s personal_s = prior + Σ_s R_s W_o Attention_s, because R sums to one. FaceID
files also hold low-rank differences of the projections; the branch then uses the changed projections for the text, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..method.expert import MATRICES, LowRank, Projections
from ..method.factory import PLAIN, Factory
from ..method.layer import Attend, Gate, KeysValues, RoutedLayer, attend_to_each, without_unshared
from ..method.router import mix
from ..method.spec import LayerSpec, MoAConfig
from ..run.step import Rows, Step
from .base import Adapter, EncoderInput
from .folding import attend_folded, fold, pays


class PromptTokens(NamedTuple):
    """The context of a cross-attention layer."""

    text: Tensor
    """(R,M,T)"""
    images: Tensor
    """(R,S,K,T) image tokens of every subject."""


class LowRankProjections(nn.Module):
    """Low-rank differences to all four projections of one layer, as the LoRA inside FaceID files has them."""

    def __init__(self, spec: LayerSpec, rank: int, factory: Factory):
        super().__init__()
        self.to_q, self.to_out = (LowRank(spec.hidden, spec.hidden, rank, factory) for _ in range(2))
        self.to_k, self.to_v = (LowRank(spec.context, spec.hidden, rank, factory) for _ in range(2))

    def on(self, base: Projections) -> Projections:
        """The prior's projections with these differences."""
        q, k, v, out = (partial(getattr(self, n), prior=getattr(base, n), factor=base.difference) for n in MATRICES)
        return Projections(q, k, v, out)


class ImagePromptLayer(RoutedLayer):
    """W_k' and W_v' of one cross-attention layer; queries and W_o are the prior's, with a rank plus its differences."""

    def __init__(self, spec: LayerSpec, rank: int = 0, factory: Factory = PLAIN):
        super().__init__()
        self.spec, self.changes_weight = spec, factory.changes_weight
        self.to_k = factory.linear(spec.context, spec.hidden, bias=False)
        self.to_v = factory.linear(spec.context, spec.hidden, bias=False)
        self.low_rank = LowRankProjections(spec, rank, factory) if rank else None
        self.router = None

    def changes_prior(self, base: Projections) -> bool:
        return self.low_rank is not None and base.difference != 0

    def projections(self, base: Projections) -> Projections:
        """The projections that the branch builds on."""
        return self.low_rank.on(base) if self.low_rank is not None and base.difference else base

    def queries(self, hidden: Tensor, base: Projections) -> Tensor:
        return self.projections(base).to_q(hidden)

    def keys_values(self, context: PromptTokens, base: Projections) -> KeysValues:
        own, images = self.projections(base), context.images
        key, value = self.to_k(images), self.to_v(images)
        if not self.changes_prior(base) and pays(images.shape[2], self.spec.heads, self.spec.hidden):
            return fold(key, value, base, self.spec.heads, self.changes_weight(base.to_q))
        text = None if not self.changes_prior(base) else (own.to_k(context.text), own.to_v(context.text))
        # The bias of W_o is subtracted below, so that a pixel without any share gets exactly nothing.
        zero_output = own.to_out(images.new_zeros(1, 1, self.spec.hidden))
        return KeysValues(key, value, text, zero_output)

    def mix(
        self, query: Tensor, keys_values: KeysValues, prior: Tensor, gate: Gate, base: Projections, attend: Attend
    ) -> Tensor:
        to_out, heads, shares = self.projections(base).to_out, self.spec.heads, gate.by_subject()
        if keys_values.folded:
            each = attend_folded(query, keys_values)
        else:
            each = attend_to_each(attend, query, keys_values.key, keys_values.value, heads)
        if keys_values.folded and each.shape[1] == 1:
            return torch.addcmul(prior, gate.by_subject_in(each.dtype)[:, 0], each[:, 0])
        images = (gate.by_subject_in(each.dtype) * without_unshared(each, shares)).sum(dim=1)
        if keys_values.folded:
            return prior + images
        if keys_values.text is None:
            return prior + (to_out(images) - keys_values.zero_output)
        share = gate.personal[..., None].to(images.dtype)
        text = attend(query, *keys_values.text, heads)
        return (1 - share) * (prior - keys_values.zero_output) + to_out(images + share * text)


class LowRankLayer(RoutedLayer):
    """A self-attention layer of a FaceID file: R_0 prior(z) + R_1 changed(z), with changed projections."""

    def __init__(self, spec: LayerSpec, rank: int, factory: Factory = PLAIN):
        super().__init__()
        self.spec, self.low_rank = spec, LowRankProjections(spec, rank, factory)
        self.router = None

    def changes_prior(self, base: Projections) -> bool:
        return base.difference != 0

    def queries(self, hidden: Tensor, base: Projections) -> Tensor:
        return self.low_rank.on(base).to_q(hidden)

    def keys_values(self, context: Tensor, base: Projections) -> KeysValues:
        """
        Args: context: (B,N,D) z itself.
        """
        own = self.low_rank.on(base)
        return KeysValues(own.to_k(context), own.to_v(context))

    def mix(
        self, query: Tensor, keys_values: KeysValues, prior: Tensor, gate: Gate, base: Projections, attend: Attend
    ) -> Tensor:
        attended = attend(query, keys_values.key, keys_values.value, self.spec.heads)
        return mix(prior, self.low_rank.on(base).to_out(attended), gate.personal)


@dataclass(frozen=True)
class ImagePromptStep(Step):
    """Prepared once per call; `tokens` are (R,S,K,T), the same for every layer."""

    def context_for(self, spec: LayerSpec, hidden: Tensor, context: Tensor) -> Any:
        return self.constant_context(context) if spec.is_cross else hidden

    def constant_context(self, context: Tensor) -> PromptTokens:
        return PromptTokens(self.select(context), self.tokens)

    def keys_values(self, layer: RoutedLayer, hidden: Tensor, context: Tensor, base: Projections) -> KeysValues:
        found = super().keys_values(layer, hidden, context, base)
        return (
            found if self.emphasis is None or not layer.spec.is_cross else self.emphasis.scale(layer.spec.name, found)
        )

    def complete(self, cached: KeysValues, layer: RoutedLayer, base: Projections) -> KeysValues:
        """Neither text nor image tokens change in a run, so that nothing is missing."""
        return cached


class ImagePromptAdapter(Adapter):
    """An image prompt adapter of one base model: every cross-attention layer's W_k' and W_v', and the image projection.

    Args:
        config: its layers; self-attention layers among them only with a `rank`. `image_width` is K·T, as the feature of a
            subject consists of its image tokens.
        projection: from the inputs to image tokens (`projections.py`).
        requires: its inputs with their widths, in the order of its arguments.
    """

    encoder = None
    separates_subjects = False
    feature_is_tokens = True

    def __init__(
        self,
        config: MoAConfig,
        projection: nn.Module,
        requires: Mapping[EncoderInput, int],
        factory: Factory = PLAIN,
    ):
        super().__init__()
        self.config, self.projection, self._requires = config, projection, dict(requires)
        self.encode_options = getattr(projection, "options", ())
        self.layers = nn.ModuleDict(
            {
                spec.name: (ImagePromptLayer if spec.is_cross else LowRankLayer)(spec, config.rank, factory)
                for spec in config.layers
            }
        )

    @property
    def requires(self) -> dict[EncoderInput, int]:
        return self._requires

    @property
    def subject_modules(self) -> list[nn.Module]:
        return [self.projection]

    def encode(self, inputs: Mapping[EncoderInput, Tensor], **options: float) -> Tensor:
        """The inputs, each (K,F') or (K,P,F'), to a subject's image tokens: -> (K,K'·T)."""
        return self.projection(*(inputs[name] for name in self.requires), **options).flatten(1)

    def encode_negative(self, device: torch.device, patches: Tensor | None = None, **options: float) -> Tensor:
        """What IP-Adapter gives to negative prompts: the tokens of zeros, and of the patches of a black picture. -> (1,K'·T)

        Args: patches: (1,P,F') of a black picture, where `requires` has them.
        """
        zeros: dict[EncoderInput, Tensor] = {
            n: torch.zeros(1, width, device=device) for n, width in self.requires.items() if n != "patches"
        }
        return self.encode(zeros if patches is None else {**zeros, "patches": patches}, **options)

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
        """As `Adapter.begin`; image tokens depend on neither text nor timestep, and shares carry the subjects' strengths."""
        if rows is not None:
            slots, features = slots[rows], features[rows]
        return ImagePromptStep(rows, slots, features.unflatten(-1, (-1, self.config.text_width)), prior_bias)
