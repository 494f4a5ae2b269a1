"""The shares of subjects in a call: what a training-free router gives, or the bounds of what the adapter's own routers give."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ....moa_attention.routers.base import TrainingFreeRouter, confine, present
from ....moa_attention.run.listener import CallInfo


def share_bounds(
    call: CallInfo, allowed: Tensor | None, strengths: Tensor | None, always: bool = False
) -> Tensor | None:
    """The bounds of the subjects' shares, (R,S,h,w): their regions (R,S,h,w), and their strengths (R,S) below 1.

    Above 1 a strength changes the subject's token alone, because a share is at most what the router gives.

    Args: always: also without any bound, where it is None otherwise.
    """
    if allowed is None and strengths is None and not always:
        return None
    here = present(call.slots, call.count)[..., None, None].float()
    bounds = here if strengths is None else here * strengths[..., None, None].clamp(max=1)
    return bounds if allowed is None else allowed * bounds


def routed_shares(
    router: TrainingFreeRouter, call: CallInfo, allowed: Tensor | None, strengths: Tensor | None, prior_bias: float
) -> dict[str, Any]:
    """The fields of a step that a training-free router determines.

    A share is the product of the router's own, of the strength in Apply MoA (only where the router decides; otherwise it is
    the prior bias of the adapter's routers), of the subject's strength (R,S) and of its region (R,S,h,w).
    """
    apply_strength = math.exp(-prior_bias) if router.decides else 1
    subject_strength = 1 if strengths is None else strengths[..., None, None]
    shares = confine(router.shares(call) * (apply_strength * subject_strength), allowed)
    return {"shares": shares, "learned": not router.decides, "apart": router.decides and router.apart}


def strengths_differ(slots: Tensor | None, terms: Tensor | None) -> bool:
    """Whether any row has subjects of different strengths or windows: only then it matters which of them a pixel shows.

    Args: slots (R,M,1) and terms (R,S,4) on the CPU, as in `PayloadNames`.
    """
    if slots is None or terms is None:
        return False
    here, terms = present(slots.squeeze(-1), terms.shape[1])[..., None], terms[..., :3]
    lowest, highest = terms.where(here, math.inf).amin(dim=1), terms.where(here, -math.inf).amax(dim=1)
    return bool((lowest < highest).any())


def token_weights(router: TrainingFreeRouter | None, slots: Tensor, strengths: Tensor | None) -> Tensor | None:
    """How much of each subject's token takes the place of its word, (R,S); None: all.

    Learned routers have one share for all subjects, and below 1 a strength reduces it. Routers with shares that are not apart mix one
    prompt of all subjects with the share of the strongest: there the tokens show how much weaker the others are.

    Args: router: None where the adapter's own routers decide; slots (R,M); strengths (R,S).
    """
    if strengths is None or (router is not None and (router.apart or not router.decides)):
        return None
    if router is None:
        return strengths.clamp(min=1).where(strengths > 0, 0)
    strongest = (strengths * present(slots, strengths.shape[1])).amax(dim=1, keepdim=True)
    return (strengths / strongest.clamp(min=1e-6)).clamp(max=1)
