"""The host's VAE, text encoder and CLIP vision as the training cache sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..moa_attention.encoder import ImageEncoder
from ..moa_attention.fingerprint import fingerprint
from ..moa_attention.training.data.encoders import Text
from ..moa_attention.training.data.pictures import BadPicture
from .sight import CLIP_PICTURE, Given, see
from .sockets import Adapter
from .text import position_stream, special_tokens


class HostEncoders:
    """`moa_attention.training.data.encoders.Encoders` over what the host's loaders return.

    Args:
        clip_vision: None when the adapter brings its own image encoder.
        adapter: one that makes something of its own of what the CLIP vision model sees.
    """

    def __init__(self, model: Any, clip: Any, vae: Any, clip_vision: Any = None, adapter: Adapter | None = None):
        self.model, self.clip, self.vae, self.clip_vision, self.adapter = model, clip, vae, clip_vision, adapter
        self.side = ImageEncoder.picture if clip_vision is None else CLIP_PICTURE
        self.scale = int(vae.spacial_compression_encode())
        seen = [vae.first_stage_model, clip.cond_stage_model, *([clip_vision.model] if clip_vision else [])]
        self.fingerprint = " ".join([fingerprint(*seen), str(self.side), *([adapter.encoder] if adapter else [])])

    def latents(self, images: Tensor) -> Tensor:
        encoded = self.vae.encode(images.movedim(1, -1))
        return self.model.model.process_latent_in(encoded).float().cpu()

    def text(self, caption: str, ends: Sequence[int]) -> Text:
        tokens = self.clip.tokenize(plain(caption))
        context, pooled = self.clip.encode_from_tokens(tokens, return_pooled=True)
        places = [self._last_token(plain(caption[:end])) for end in ends]
        if max(places, default=0) >= context.shape[1]:
            raise BadPicture(f"caption too long: the text encoder does not reach the subject in '{caption}'")
        wants_pooled = self.model.model.model_config.unet_config.get("adm_in_channels") is not None
        pooled = pooled[0].float().cpu() if wants_pooled else torch.zeros(0)
        return Text(context[0].float().cpu(), pooled, places)

    def _last_token(self, text: str) -> int:
        """Where the last token of a text stands in its context."""
        chunks, special = position_stream(self.clip.tokenize(text)), special_tokens(self.clip)
        stream = [token for chunk in chunks for token, *_ in chunk]
        words = [place for place, token in enumerate(stream) if token not in special]
        if not words:
            raise BadPicture(f"unreadable word: '{text}' is nothing to the tokenizer")
        return words[-1]

    def features(self, references: Tensor) -> Tensor:
        pictures = references.movedim(1, -1)
        if self.adapter is not None:
            return see(self.adapter, Given(pictures, clip_vision=self.clip_vision))
        return self.clip_vision.encode_image(pictures)["image_embeds"].float().cpu()


def plain(text: str) -> str:
    """Parentheses are a prompt's weights to the host, and punctuation in a caption."""
    return text.replace("(", r"\(").replace(")", r"\)")
