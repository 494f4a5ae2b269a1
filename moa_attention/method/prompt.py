"""The multimodal prompt: which tokens belong to subjects, and the subjects' tokens put in their place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def gather_tokens(context: Tensor, slots: Tensor, subjects: int) -> Tensor:
    """The text token each subject is bound to: (B,M,T) context, (B,M) slots -> (B,S,T).

    A slot without a token yields the first token; `place_tokens` never places it.
    """
    wanted = torch.arange(1, subjects + 1, device=slots.device)
    first = (slots[:, None] == wanted[:, None]).int().argmax(dim=-1)  # (B,S)
    return context.gather(1, first[..., None].expand(-1, -1, context.shape[-1]))


class TokenOwners(NamedTuple):
    """The subject of each token of a prompt."""

    subject: Tensor
    """(B,M) int64, the subject's index from 0; 0 for an ordinary token, too."""
    owned: Tensor
    """(B,M) bool, whether the token belongs to a subject."""


def token_owners(slots: Tensor) -> TokenOwners:
    """(B,M) int64, 0 for an ordinary token, s for subject s."""
    return TokenOwners((slots - 1).clamp(min=0), slots > 0)


def place_tokens(context: Tensor, owners: TokenOwners, tokens: Tensor) -> Tensor:
    """The prompt of the personalised branch: subjects' tokens replace their words, at every copy of them.

    Args: context (B,M,T) text embedding, tokens (B,S,T); or the products of both with a linear layer without bias.
    Returns: (B,M,T).
    """
    index = owners.subject[..., None].expand(-1, -1, context.shape[-1])
    return torch.where(owners.owned[..., None], tokens.to(context.dtype).gather(1, index), context)
