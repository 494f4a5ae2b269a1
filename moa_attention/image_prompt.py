"""Image prompts as the personalised branch: IP-Adapter's decoupled attention (arXiv 2308.06721), routed.

The personalised branch of a cross-attention layer is what the prior says plus an attention over a subject's image tokens:

    personal_s(z) = prior(z) + W_o Attention(z W_q, c_s W_k', c_s W_v')

Mixed with the prior, R_0 prior + Σ_s R_s personal_s = prior + Σ_s R_s W_o Attention_s, because R sums to one. Where a file
tunes the projections as well (`tuned.py`), the branch's words are spoken through the tuned ones, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from .config import LayerSpec, MoAConfig
from .expert import Projections
from .layer import Attend, Heard, RoutedLayer, Said, attend_to_each
from .projection import Place
from .step import Rows, Step
from .tuned import Tuned, TunedLayer

Sees = Literal["embedding", "patches", "face"]
"""A CLIP vision model's global embedding, its patches before the last layer, or a face recogniser's embedding."""


class Prompts(NamedTuple):
    """What a cross-attention layer may look at."""

    text: Tensor
    """(R,M,T)"""
    images: Tensor
    """(R,S,K,T) image tokens of every subject."""


class ImagePromptLayer(RoutedLayer):
    """W_k' and W_v' of one cross-attention layer; queries and W_o are the prior's, or tuned ones with a rank."""

    def __init__(self, spec: LayerSpec, place: Place, rank: int = 0):
        super().__init__()
        options = {"bias": False, "device": place.device, "dtype": place.dtype}
        self.spec = spec
        self.to_k = place.operations.Linear(spec.context, spec.hidden, **options)
        self.to_v = place.operations.Linear(spec.context, spec.hidden, **options)
        self.tuned = Tuned(spec, rank, place) if rank else None
        self.router = None

    def on(self, base: Projections) -> Projections:
        """The projections that the branch shares with the prior."""
        return base if self.tuned is None else self.tuned.on(base)

    def ask(self, hidden: Tensor, base: Projections) -> Tensor:
        return self.on(base).to_q(hidden)

    def listen(self, context: Prompts, base: Projections) -> Heard:
        own, images = self.on(base), context.images
        words = None if self.tuned is None else (own.to_k(context.text), own.to_v(context.text))
        silence = own.to_out(images.new_zeros(1, 1, self.spec.hidden))  # so that nothing is added where nobody speaks
        return Heard(self.to_k(images), self.to_v(images), words, silence)

    def speak(
        self, query: Tensor, heard: Heard, prior: Tensor, said: Said, base: Projections, attend: Attend
    ) -> Tensor:
        out, heads = self.on(base).to_out, self.spec.heads
        seen = attend_to_each(attend, query, heard.key, heard.value, heads)
        spoken = (said.each()[..., None].to(seen.dtype) * seen).sum(dim=1)
        if heard.words is None:
            return prior + (out(spoken) - heard.silence)
        share = said.personal[..., None].to(spoken.dtype)
        words = attend(query, *heard.words, heads)
        return (1 - share) * (prior - heard.silence) + out(spoken + share * words)


@dataclass(frozen=True)
class ImagePromptStep(Step):
    """Prepared once per call; `tokens` are (R,S,K,T), the same for every layer."""

    def context_for(self, layer: RoutedLayer, hidden: Tensor, context: Tensor, base: Projections) -> Any:
        if not layer.spec.is_cross:
            return hidden
        return self.kept.get(layer.spec.name) or self.to_keep(context)

    def to_keep(self, context: Tensor) -> Prompts:
        return Prompts(self.select(context), self.tokens)


class ImagePromptAdapter(nn.Module):
    """An image prompt adapter of one base model: every cross-attention layer's W_k' and W_v', and the way to image tokens.

    Args:
        config: its layers; self-attention among them only where a `rank` says that projections are tuned. `image_width`
            is K·T, as a subject's feature are its image tokens.
        projection: from what is seen of a picture to image tokens (`projection.py`, `face_projection.py`).
        sees: what that is, and how wide, in the order in which `projection` takes it.
    """

    encoder = None
    tells_apart = False
    """Whether a routed prompt says by itself which subject a pixel is."""

    def __init__(self, config: MoAConfig, projection: nn.Module, sees: Mapping[Sees, int], place: Place):
        super().__init__()
        self.config, self.projection, self.sees = config, projection, sees
        self.layers = nn.ModuleDict(
            {
                spec.name: (ImagePromptLayer if spec.is_cross else TunedLayer)(spec, place=place, rank=config.rank)
                for spec in config.layers
            }
        )

    @property
    def has_routers(self) -> bool:
        """Whether it decides itself where subjects speak."""
        return self.config.router != "none"

    def look(self, seen: Mapping[Sees, Tensor], **options: float) -> Tensor:
        """What was seen of pictures, each (B,F) or (B,P,F), to a subject's feature: -> (B,K·T)"""
        return self.projection(*(seen[name] for name in self.sees), **options).flatten(1)

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
        """As `MoAAdapter.begin`; neither text nor timestep has a say in the tokens, and weights are in the shares."""
        if rows is not None:
            slots, features = slots[rows], features[rows]
        return ImagePromptStep(rows, slots, features.unflatten(-1, (-1, self.config.text_width)), prior_bias)
