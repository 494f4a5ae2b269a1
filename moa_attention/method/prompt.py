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


def with_further_places(slots: Tensor, subjects: int, each: int) -> Tensor:
    """Slots (B,M) with places for `each` further tokens of every subject after the prompt (ours) -> (B,M'); 0 where a row has none.

    A prompt that the host repeats has them as often as its words, so that the attention stays the same. They are in the order of
    copy, token, subject.
    """
    wanted = torch.arange(1, subjects + 1, device=slots.device)
    copies = (slots[:, None] == wanted[:, None]).sum(dim=-1)  # (B,S)
    counted = torch.arange(int(copies.max()), device=slots.device)
    places = (copies[:, None] > counted[:, None]) * wanted  # (B,C,S)
    return torch.cat((slots, places[:, :, None].expand(-1, -1, each, -1).flatten(1)), dim=1)


def token_numbers(slots: Tensor, words: int, subjects: int, each: int) -> Tensor:
    """Which of all S·K tokens each place has, a subject's K together: slots (B,M') of `with_further_places` -> (B,M').

    Args: words: M, the places of the prompt's words; each: K − 1, the further tokens of a subject.
    """
    further = torch.arange(slots.shape[1] - words, device=slots.device) // subjects % each + 1
    return (slots - 1).clamp(min=0) * (each + 1) + torch.cat((further.new_zeros(words), further))


class TokenOwners(NamedTuple):
    """Which of the subjects' tokens takes each place of a prompt."""

    token: Tensor
    """(B,M) int64, the token's index from 0; 0 for an ordinary token, too."""
    owned: Tensor
    """(B,M) bool, whether the place belongs to a subject."""


def token_owners(slots: Tensor) -> TokenOwners:
    """Of subjects with one token each: (B,M) int64, 0 for an ordinary token, s for subject s."""
    return TokenOwners((slots - 1).clamp(min=0), slots > 0)


def place_tokens(context: Tensor, owners: TokenOwners, tokens: Tensor) -> Tensor:
    """The prompt of the personalised branch: subjects' tokens replace their words, at every copy of them.

    Args: context (B,M,T) text embedding, tokens (B,S·K,T); or the products of both with a linear layer without bias.
    Returns: (B,M,T).
    """
    index = owners.token[..., None].expand(-1, -1, context.shape[-1])
    return torch.where(owners.owned[..., None], tokens.to(context.dtype).gather(1, index), context)
