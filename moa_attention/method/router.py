"""The router: the share of each branch at each latent pixel (eqs. 4, 5, 7)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .factory import PLAIN, Factory


class Router(nn.Module):
    """R = softmax(f(z)), softmax over the experts and per latent pixel (eqs. 5, 7).

    f is one Linear(D → 2), or D → D/4 → 2 with a SiLU between. With two experts one share suffices: R_1 is the logistic
    function of the logits' difference, and R_0 = 1 − R_1.

    Zero-initialised (ours): both branches start with equal shares. Since the experts start identical, the network's output
    starts as the base model's.
    """

    def __init__(self, hidden: int, kind: Literal["linear", "mlp"] = "linear", factory: Factory = PLAIN):
        super().__init__()
        width = hidden if kind == "linear" else hidden // 4
        self.narrow = None if kind == "linear" else factory.linear(hidden, width)
        self.project = factory.linear(width, 2)

    def zero(self) -> None:
        """Set R = (½, ½) everywhere."""
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, hidden: Tensor, prior_bias: Tensor | float = 0.0) -> Tensor:
        """R_1: (B,N,D) -> (B,N) in float32.

        `prior_bias` is added to the prior's logit: our strength control, not part of the paper. At a large bias R_1 is
        exactly 0, so that the mix below is exactly the prior.
        """
        if self.narrow is not None:
            hidden = nn.functional.silu(self.narrow(hidden))
        prior, personal = self.project(hidden).float().unbind(-1)
        return torch.sigmoid(personal - prior - prior_bias)


def max_share(shares: Tensor) -> Tensor:
    """R_1 of a training-free router: the largest share of any subject, (B,S,N) -> (B,N) in [0,1] (ours)."""
    return shares.float().amax(dim=1).clamp(0, 1)


def mix(prior: Tensor, personal: Tensor, share: Tensor) -> Tensor:
    """Σ_n R_n ⊙ expert_n for the two experts (eqs. 4, 6): (B,N,D) (B,N,D), R_1 (B,N) -> (B,N,D).

    As R sums to one it is a step of R_1 from the prior towards the personalised branch: one kernel, and exact at both ends.
    """
    return prior.lerp(personal, share[..., None].to(prior.dtype))
