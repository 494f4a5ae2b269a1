"""The paper's losses: masked reconstruction + λ_r · router + λ_o · object."""

from __future__ import annotations

from torch import Tensor

from .attention import resize, subject_attention
from .layer import Routing

ROUTER_PIXELS = 64 * 64
"""Latent pixels of the paper's pictures, 512² pixels of SD1.5: the scale of the router loss at every resolution."""
ROUTER_WEIGHT = 3e-4
"""λ_r"""
OBJECT_WEIGHT = 1e-3
"""λ_o"""


def masked_reconstruction(prediction: Tensor, target: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """‖M ⊙ (Z − Ẑ)‖², mean over all elements: (B,C,H,W) (B,C,H,W) (B,1,H,W) -> ().

    The frozen prior already protects what lies outside M, so there is no unmasked term.

    Args: weights: factor of each example (ours), (B,).
    """
    return weighted_mean((mask * (prediction - target)).square().mean(dim=(1, 2, 3)), weights)


def weighted_mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over the batch of losses (B,), each times its factor (B,) (ours) -> ()."""
    return losses.mean() if weights is None else (losses * weights).mean()


def prior_map(routing: Routing, grid: tuple[int, int]) -> Tensor:
    """R_0 of one layer, resized to `grid` -> (B,1,h,w). The mean of these over the layers that count is R̄."""
    return resize((1 - routing.personal).unflatten(1, routing.grid)[:, None], grid)


def router_loss(average: Tensor, mask: Tensor, foreground: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """‖(1 − M) ⊙ (1 − R̄)‖² + f · ‖M ⊙ R̄‖²: background goes to the prior, subjects to the personalised branch -> ().

    Mean over pixels times `ROUTER_PIXELS`, mean over the batch. At 64 × 64 latent pixels this is the sum of the formula; at
    any other resolution the same map has the same loss (ours: a sum would weigh it by its number of pixels).

    Args:
        average: R̄ = 1/|L| Σ_l R_0^l over the layers that count (`LayerSpec.supervised`), (B,1,H,W).
        mask: (B,1,H,W), union of the subjects.
        foreground: f, ours; the paper has 0, no target where subjects are.
        weights: factor of each example (ours), (B,).
    """
    leaked, missed = (1 - mask) * (1 - average), mask * average
    return ROUTER_PIXELS * weighted_mean((leaked.square() + foreground * missed.square()).mean(dim=(1, 2, 3)), weights)


def object_loss(routing: Routing, heads: int, slots: Tensor, masks: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of A_s on the background of subject s minus its mean on s, in one cross-attention layer -> ().

    FastComposer's localisation loss: mean over the heads, over the subjects of a picture, over the batch.

    Args:
        slots: (B,M) int64.
        masks: (B,S,H,W), one mask per subject; an empty slot has an empty mask and does not count.
        weights: factor of each example (ours), (B,).
    """
    present = (masks.sum(dim=(2, 3)) > 0).float()  # (B,S)
    attention = subject_attention(routing.query, routing.key, slots, masks.shape[1], heads, routing.mask)
    attention = attention.unflatten(-1, routing.grid)  # (B,S,H,h,w)
    inside = resize(masks, routing.grid)[:, :, None]
    outside = 1 - inside
    on_subject = (attention * inside).sum(dim=(3, 4)) / inside.sum(dim=(3, 4)).clamp(min=1e-6)
    on_rest = (attention * outside).sum(dim=(3, 4)) / outside.sum(dim=(3, 4)).clamp(min=1e-6)
    per_subject = (on_rest - on_subject).mean(dim=2) * present
    return weighted_mean(per_subject.sum(dim=1) / present.sum(dim=1).clamp(min=1), weights)
