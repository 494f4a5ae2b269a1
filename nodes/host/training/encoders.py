"""The host's VAE, text encoder and CLIP vision model, as the training cache uses them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import comfy.sd1_clip
import torch
from torch import Tensor

from ....moa_attention.adapters.vision import ImageEncoder
from ....moa_attention.formats.fingerprint import fingerprint
from ....moa_attention.training.data.encoders import EncodedCaption
from ....moa_attention.training.data.pictures import BadPicture
from ...sockets import LoadedAdapter
from ..pictures.vision import CLIP_PICTURE, Reference, encode_reference
from ..prompts.prompt_words import position_stream, special_tokens

BATCH = 8
"""Pictures that are encoded together on a GPU. The host's VAE divides them where the memory is too small."""


class HostEncoders:
    """`moa_attention.training.data.encoders.Encoders` over what the host's loaders return.

    Args:
        clip_vision: None when the adapter has its own image encoder.
        adapter: one that computes its features from the outputs of the CLIP vision model.
    """

    def __init__(self, model: Any, clip: Any, vae: Any, clip_vision: Any = None, adapter: LoadedAdapter | None = None):
        self.model, self.clip, self.vae, self.clip_vision, self.adapter = model, clip, vae, clip_vision, adapter
        self.side = ImageEncoder.picture if clip_vision is None else CLIP_PICTURE
        self.scale = int(vae.spacial_compression_encode())
        self.batch = 1 if model.load_device.type == "cpu" else BATCH
        modules = [vae.first_stage_model, clip.cond_stage_model, *([clip_vision.model] if clip_vision else [])]
        self.fingerprint = " ".join([fingerprint(*modules), str(self.side), *([adapter.encoder] if adapter else [])])

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        # Channels last in memory, as the host's own nodes pass pictures: convolutions are faster so.
        encoded = self.vae.encode(images.movedim(1, -1).contiguous())
        return self.model.model.process_latent_in(encoded).float().cpu()

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Tensor:
        """The opposite of `latents`: (B,C,h,w) -> (B,H,W,3) in [0,1]."""
        return self.vae.decode(self.model.model.process_latent_out(latents)).float().cpu().clamp(0, 1)

    @torch.no_grad()
    def text(self, caption: str, ends: Sequence[int]) -> EncodedCaption:
        tokens = self.clip.tokenize(plain(caption))
        context, pooled = self.clip.encode_from_tokens(tokens, return_pooled=True)
        positions = [self._last_token(plain(caption[:end])) for end in ends]
        if max(positions, default=0) >= context.shape[1]:
            raise BadPicture(f"caption too long: the subject lies beyond the text encoder's context in '{caption}'")
        has_pooled = self.model.model.model_config.unet_config.get("adm_in_channels") is not None
        pooled = pooled[0].float().cpu() if has_pooled else torch.zeros(0)
        return EncodedCaption(context[0].float().cpu(), pooled, positions)

    def token(self, caption: str, position: int) -> str:
        """The token of a caption at an index of its context, as text."""
        return self.clip.tokenizer.decode([self._stream(plain(caption))[position]]).strip()

    def _stream(self, text: str) -> list[Any]:
        """The tokens of a text in the order of its context."""
        return [token for chunk in position_stream(self.clip.tokenize(text)) for token, *_ in chunk]

    def _last_token(self, text: str) -> int:
        """Index in the context of the last token of a text."""
        stream, special = self._stream(text), special_tokens(self.clip)
        words = [position for position, token in enumerate(stream) if token not in special]
        if not words:
            raise BadPicture(f"unreadable word: '{text}' has no token")
        return words[-1]

    @torch.no_grad()
    def features(self, references: Tensor) -> Tensor:
        pictures = references.movedim(1, -1)
        if self.adapter is not None:
            return encode_reference(self.adapter, Reference(pictures, clip_vision=self.clip_vision))
        return self.clip_vision.encode_image(pictures)["image_embeds"].float().cpu()


def plain(text: str) -> str:
    """A caption with its parentheses escaped, which are weights in the host's prompts and punctuation in captions."""
    return text.replace("(", r"\(").replace(")", r"\)")


def caption_parts(caption: str) -> int:
    """The parts of 75 tokens in which CLIP's text encoders take a caption."""
    return len(clip_tokenizer().tokenize_with_weights(plain(caption))["l"])


@cache
def clip_tokenizer() -> comfy.sd1_clip.SD1Tokenizer:
    """The host's own, of SD1.5, SDXL and MoA Mini alike."""
    return comfy.sd1_clip.SD1Tokenizer()
