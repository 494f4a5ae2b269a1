"""The paper's losses: masked reconstruction + λ_r · router + λ_o · object."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attention_probabilities
from .layer import Routing

ROUTER_WEIGHT = 3e-4
"""λ_r, over a sum of pixels (ours: the paper's reduction is open; as a mean it would hardly press)."""
OBJECT_WEIGHT = 1e-3
"""λ_o"""


def resize(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bilinear with antialiasing, so that a small mask keeps its area: (B,C,H,W) -> (B,C,h,w)."""
    return F.interpolate(maps, size=grid, mode="bilinear", align_corners=False, antialias=True)


def masked_reconstruction(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """‖M ⊙ (Z − Ẑ)‖², mean over all elements: (B,C,H,W) (B,C,H,W) (B,1,H,W) -> ().

    The frozen prior already protects what lies outside M, so there is no unmasked term.
    """
    return (mask * (prediction - target)).square().mean()


def prior_map(routing: Routing, grid: tuple[int, int]) -> Tensor:
    """R_0 of one layer, resized to `grid` -> (B,1,h,w). The mean of these over the layers that count is R̄."""
    return resize((1 - routing.personal).unflatten(1, routing.grid)[:, None], grid)


def router_loss(average: Tensor, mask: Tensor, foreground: float = 0.0) -> Tensor:
    """‖(1 − M) ⊙ (1 − R̄)‖² + f · ‖M ⊙ R̄‖²: background goes to the prior, subjects to the personalised branch -> ().

    Args:
        average: R̄ = 1/|L| Σ_l R_0^l over the layers that count (`LayerSpec.supervised`), (B,1,H,W).
        mask: (B,1,H,W), union of the subjects. Sum over pixels, mean over the batch.
        foreground: f, ours; the paper has 0, no target where subjects are.
    """
    leaked, missed = (1 - mask) * (1 - average), mask * average
    return (leaked.square() + foreground * missed.square()).sum(dim=(1, 2, 3)).mean()


def subject_attention(query: Tensor, key: Tensor, slots: Tensor, subjects: int, heads: int) -> Tensor:
    """A_s: how much each latent pixel looks at subject s's token.

    Args: query (B,N,D), key (B,M,D), slots (B,M) int64, 0 for an ordinary token. Returns: (B,S,H,N).
    """
    probabilities = attention_probabilities(query, key, heads)  # (B,H,N,M)
    owners = F.one_hot(slots.clamp(min=0), subjects + 1)[..., 1:].to(probabilities.dtype)  # (B,M,S)
    owners = owners / owners.sum(dim=1, keepdim=True).clamp(min=1)  # mean over copies of a token
    return torch.einsum("bhnm,bms->bshn", probabilities, owners)


def object_loss(routing: Routing, heads: int, slots: Tensor, masks: Tensor) -> Tensor:
    """Mean of A_s on the background of subject s minus its mean on s, in one cross-attention layer -> ().

    FastComposer's localisation loss: mean over the heads, over the subjects of a picture, over the batch.

    Args:
        slots: (B,M) int64.
        masks: (B,S,H,W), one mask per subject; an empty slot has an empty mask and does not count.
    """
    present = (masks.sum(dim=(2, 3)) > 0).float()  # (B,S)
    attention = subject_attention(routing.query, routing.key, slots, masks.shape[1], heads)
    attention = attention.unflatten(-1, routing.grid)  # (B,S,H,h,w)
    inside = resize(masks, routing.grid)[:, :, None]
    outside = 1 - inside
    on_subject = (attention * inside).sum(dim=(3, 4)) / inside.sum(dim=(3, 4)).clamp(min=1e-6)
    on_rest = (attention * outside).sum(dim=(3, 4)) / outside.sum(dim=(3, 4)).clamp(min=1e-6)
    per_subject = (on_rest - on_subject).mean(dim=2) * present
    return (per_subject.sum(dim=1) / present.sum(dim=1).clamp(min=1)).mean()
