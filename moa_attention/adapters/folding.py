"""Few image tokens: W_q goes into their keys and W_o into their values, once for a run (ours).

Attention of N pixels to K tokens with H heads is

    Σ_h softmax(z W_q,h k_h^T / √d) v_h W_o,h = Σ_h softmax(z K_h^T) V_h    with K_h = k_h W_q,h^T / √d and V_h = v_h W_o,h

The right side takes 2 N D · HK multiply-adds, the left one 2 N D · (D + K). No pixel is projected by W_q and W_o again, which the prior
has done already.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..method.expert import Projection, Projections, plain_weight
from ..method.layer import KeysValues


def pays(tokens: int, heads: int, width: int) -> bool:
    """Whether folding takes less arithmetic for K tokens in a layer of width D. It has no rules for gradients of losses."""
    return heads * tokens < width + tokens and not torch.is_grad_enabled()


def fold(key: Tensor, value: Tensor, base: Projections, heads: int, changed: bool) -> KeysValues:
    """Keys and values of image tokens (R,S,K,D) with the prior's W_q and W_o in them: (R,S,H·K,D).

    Args: changed: whether the host changes W_q on its way, so that its weight is not to be read.
    """
    width = key.shape[-1]
    rows = query_matrix(base.to_q, key, changed).unflatten(0, (heads, -1))  # (H,d,D)
    keys = torch.einsum("rskhd,hdc->rshkc", key.unflatten(-1, (heads, -1)), rows) * (width // heads) ** -0.5
    one_head = torch.eye(heads, device=value.device, dtype=value.dtype)
    apart = torch.einsum("rskhd,hg->rshkgd", value.unflatten(-1, (heads, -1)), one_head).flatten(-2)
    values = base.to_out(apart) - base.to_out(value.new_zeros(1, width))
    return KeysValues(keys.flatten(2, 3), values.flatten(2, 3), folded=heads)


def query_matrix(to_q: Projection, like: Tensor, changed: bool) -> Tensor:
    """W_q (D,D) on the device and in the precision of a tensor."""
    weight = None if changed else plain_weight(to_q, like)
    return to_q(torch.eye(like.shape[-1], device=like.device, dtype=like.dtype)).T if weight is None else weight


def attend_folded(hidden: Tensor, found: KeysValues) -> Tensor:
    """Attention to each subject's tokens, after W_o without its bias: z (R,N,D) -> (R,S,N,D)."""
    logits = hidden[:, None] @ found.key.mT
    weights = logits.unflatten(-1, (found.folded, -1)).softmax(dim=-1).flatten(-2)
    return weights @ found.value
