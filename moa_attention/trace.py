"""The memory of one sampling run: where the personalised branch spoke, per step and layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .config import LayerSpec
from .layer import Observe, Routing
from .losses import resize


@dataclass
class Call:
    """One U-Net call that had subjects."""

    sigma: Tensor
    """() noise level."""
    images: Tensor
    """(R,) which picture of the batch each row belongs to."""
    maps: dict[str, Tensor] = field(default_factory=dict)
    """R_1 by layer name, (R,h,w) float16."""


class Trace:
    """Filled while sampling, read afterwards; maps stay on the device until `finish`, so that no step waits for them."""

    def __init__(self, layers: tuple[LayerSpec, ...]):
        self.layers = layers
        self.calls: list[Call] = []
        self.ran = False
        """Whether there was a run at all, be it one in which nobody had anything to say."""

    def begin(self) -> None:
        """Forget the run before."""
        self.calls, self.ran = [], True

    def record(self, sigma: Tensor, images: Tensor) -> Observe:
        """Open a call and return the observer that fills it."""
        call = Call(sigma, images)
        self.calls.append(call)

        def observe(spec: LayerSpec, routing: Routing) -> None:
            call.maps[spec.name] = routing.personal.detach().half().unflatten(1, routing.grid)

        return observe

    def finish(self) -> None:
        """Bring all maps to the CPU."""
        for call in self.calls:
            call.sigma, call.images = call.sigma.cpu(), call.images.cpu()
            call.maps = {name: m.cpu() for name, m in call.maps.items()}

    def steps(self) -> list[list[Call]]:
        """Calls grouped by noise level, highest first; area prompts, which see a crop, are left out."""
        full = max((next(iter(c.maps.values())).shape[1:].numel() for c in self.calls if c.maps), default=0)
        groups: dict[float, list[Call]] = {}
        for call in self.calls:
            if call.maps and next(iter(call.maps.values())).shape[1:].numel() == full:
                groups.setdefault(float(call.sigma), []).append(call)
        return [groups[sigma] for sigma in sorted(groups, reverse=True)]


def average_map(calls: list[Call], layers: list[str], image: int, grid: tuple[int, int]) -> Tensor:
    """Mean R_1 over calls, layers and prompts for one picture of the batch, on `grid`: -> (h,w) in [0,1].

    Raises: ValueError when no call knows that picture.
    """
    maps = [
        resize(m[call.images == image][:, None].float(), grid)[:, 0]
        for call in calls
        for name, m in call.maps.items()
        if name in layers and bool((call.images == image).any())
    ]
    if not maps:
        raise ValueError(f"no routing was recorded for picture {image} of the batch")
    return torch.cat(maps).mean(dim=0)
