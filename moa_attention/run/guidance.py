"""Subject guidance (ours): subjects change a prediction only where the routers give them a share.

With p the prediction of the prior alone, m that with subjects and u the negative one, a step with the guidance `cfg` results in

    u + cfg · (p − u) + cfg · s · w(R) · (m − p)

R is the mean of R_1 over the layers, at the latents' resolution, w a ramp from 0 to 1, and s the strength of this guidance. It is the
ordinary result for the prediction p + s · w(R) · (m − p), which takes the place of m. Where w is 0, this is p itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from ..method.attention import resize
from ..method.layer import Observe, Routing
from ..method.spec import LayerSpec
from .listener import CallInfo, RunListener

RAMP = (0.10, 0.30)
"""R where w begins to rise, and where it is 1."""


class SubjectGuidance(RunListener):
    """The state of one run.

    Args:
        strength: s.
        layers: those of the adapter. R is the mean over the supervised ones, if there are any.
        ramp: as `RAMP`.
    """

    def __init__(self, strength: float, layers: Sequence[LayerSpec], ramp: tuple[float, float] = RAMP):
        self.strength, self.ramp = strength, ramp
        supervised = {spec.name for spec in layers if spec.supervised}
        self.layers = supervised or {spec.name for spec in layers}
        self.begin_run()

    def begin_run(self) -> None:
        self.maps: dict[CallInfo, dict[str, Tensor]] = {}
        self.known: dict[Hashable, Tensor] = {}
        """R of the last call, (1,1,h,w) by row."""
        self.begin_evaluation({})

    def end_run(self) -> None:
        self.begin_run()

    def begin_evaluation(self, sources: Mapping[int, int]) -> None:
        """The model is evaluated.

        Args: sources: of the lists of conds that are added for the prior, by number, the lists with the same prompts.
        """
        self.sources = sources
        self.priors: defaultdict[int, list[Tensor]] = defaultdict(list)
        """Predictions of the prior that wait for the row with subjects, (1,C,h,w) by pair."""
        self.late: Counter[int] = Counter()
        """Predictions of the prior for which a row with subjects did not wait, by pair."""

    def begin_call(self, call: CallInfo) -> Observe:
        maps = self.maps[call] = {}

        def observe(spec: LayerSpec, routing: Routing) -> None:
            if spec.name in self.layers:
                maps[spec.name] = routing.personal.detach().unflatten(1, routing.grid)

        return observe

    def end_call(self, call: CallInfo) -> None:
        self.maps.pop(call, None)

    def shares(self, call: CallInfo, rows: Sequence[int], size: tuple[int, int]) -> dict[int, Tensor]:
        """R of a call's rows, (1,1,h,w) by their indices `rows`.

        Other nodes may take a call's result from a cache. No layer is then computed, and R is that of the call before.
        """
        maps = self.maps[call]
        if maps:
            found = mean_share(list(maps.values()), size)
            if call.known:
                self.known.update(zip(call.rows, found.split(1), strict=True))
            return dict(zip(rows, found.split(1), strict=True))
        blank = torch.zeros(1, 1, *size, device=call.sigma.device)
        return {index: self.known.get(row, blank) for index, row in zip(rows, call.rows, strict=True)}

    def original(self, lists: Sequence[int]) -> list[int]:
        """Numbers of a call's lists of conds as other nodes know them, who expect those of the sampler."""
        return [self.sources.get(number, number) for number in lists]

    def blend(
        self, result: Tensor, pairs: Sequence[int], shares: Mapping[int, Tensor], prior: Callable[[], Tensor]
    ) -> Tensor:
        """The predictions of a call, (B,C,h,w), with those of the rows with subjects blended into the prior's.

        The host may split the rows of an evaluation into several calls, and cuts all of them alike. Therefore the n-th row of a pair
        with subjects belongs to the n-th without.

        Args:
            pairs: B numbers: n of a row with subjects, −n of the same prompt without, 0 of any other.
            shares: R, (1,1,h,w) by row, of the rows with an active subject.
            prior: computes the predictions of all rows without subjects, for a row whose prior the host computes later.
        """
        parts, alone, (first, full) = list(result.split(1)), cache(prior), self.ramp
        for pair, part in zip(pairs, parts, strict=True):
            if pair < 0 and self.late[-pair]:
                self.late[-pair] -= 1
            elif pair < 0:
                self.priors[-pair].append(part)
        for row, pair in enumerate(pairs):
            if pair > 0:
                self.late[pair] += not self.priors[pair]
                own = self.priors[pair].pop(0).to(result.device) if self.priors[pair] else alone()[row : row + 1]
                weight = ((shares[row] - first) / (full - first)).clamp(0, 1) if row in shares else None
                parts[row] = own if weight is None else toward(own, parts[row], self.strength * weight)
        return torch.cat(parts)


def toward(prior: Tensor, personal: Tensor, weight: Tensor) -> Tensor:
    """prior + weight · (personal − prior), which is the prior itself where the weight is 0, whatever the other is."""
    return torch.where(weight > 0, prior.lerp(personal, weight.to(prior.dtype)), prior)


def mean_share(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The mean of the layers' R_1, each (R,h_l,w_l), at the latents' resolution: -> (R,1,h,w)."""
    by_grid: dict[tuple[int, ...], list[Tensor]] = {}
    for each in maps:
        by_grid.setdefault(tuple(each.shape[1:]), []).append(each.float())
    sums = [resize(torch.stack(each).sum(dim=0)[:, None], size) for each in by_grid.values()]
    return torch.stack(sums).sum(dim=0) / len(maps)
