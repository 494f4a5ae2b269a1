"""The paper's losses: masked reconstruction + λ_r · router + λ_o · object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attention_probabilities
from .layer import Routing
from .router import PRIOR

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


def average_prior_route(routings: Sequence[Routing], grid: tuple[int, int]) -> Tensor:
    """R̄ = 1/|L| Σ_l R_0^l, each layer's map resized to `grid` -> (B,1,h,w)."""
    maps = [r.route[..., PRIOR].unflatten(1, r.grid)[:, None] for r in routings]
    return torch.stack([resize(m, grid) for m in maps]).mean(dim=0)


def router_loss(routings: Sequence[Routing], mask: Tensor, foreground: float = 0.0) -> Tensor:
    """‖(1 − M) ⊙ (1 − R̄)‖² + f · ‖M ⊙ R̄‖²: background goes to the prior, subjects to the personalised branch -> ().

    Args:
        routings: of the layers that count (`LayerSpec.supervised`).
        mask: (B,1,H,W), union of the subjects; R̄ is compared on this grid. Sum over pixels, mean over the batch.
        foreground: f, ours; the paper has 0, no target where subjects are.
    """
    average = average_prior_route(routings, (mask.shape[-2], mask.shape[-1]))
    leaked, missed = (1 - mask) * (1 - average), mask * average
    return (leaked.square() + foreground * missed.square()).sum(dim=(1, 2, 3)).mean()


def subject_attention(routing: Routing, slots: Tensor, subjects: int, heads: int) -> Tensor:
    """A_s: how much each latent pixel looks at subject s's token, in the personalised branch.

    Args: slots: (B,M) int64, 0 for an ordinary token. Returns: (B,S,H,h,w).
    """
    probabilities = attention_probabilities(routing.query, routing.key, heads)  # (B,H,N,M)
    owners = F.one_hot(slots, subjects + 1)[..., 1:].to(probabilities.dtype)  # (B,M,S)
    owners = owners / owners.sum(dim=1, keepdim=True).clamp(min=1)  # mean over copies of a token
    return torch.einsum("bhnm,bms->bshn", probabilities, owners).unflatten(-1, routing.grid)


def object_loss(routings: Sequence[Routing], heads: Sequence[int], slots: Tensor, masks: Tensor) -> Tensor:
    """Mean of A_s on the background of subject s minus its mean on s (FastComposer's localisation loss) -> ().

    Args:
        routings: cross-attention layers only.
        heads: number of heads of each.
        slots: (B,M) int64.
        masks: (B,S,H,W), one mask per subject; an empty slot has an empty mask and does not count.
    """
    present = (masks.sum(dim=(2, 3)) > 0).float()  # (B,S)
    total = masks.new_zeros(())
    for routing, h in zip(routings, heads, strict=True):
        attention = subject_attention(routing, slots, masks.shape[1], h)  # (B,S,H,h,w)
        inside = resize(masks, routing.grid)[:, :, None]
        outside = 1 - inside
        on_subject = (attention * inside).sum(dim=(3, 4)) / inside.sum(dim=(3, 4)).clamp(min=1e-6)
        on_rest = (attention * outside).sum(dim=(3, 4)) / outside.sum(dim=(3, 4)).clamp(min=1e-6)
        per_subject = (on_rest - on_subject).mean(dim=2)  # (B,S)
        total = total + (per_subject * present).sum() / present.sum().clamp(min=1)
    return total / len(routings)
