"""Low-rank changes of a frozen network's weights, and their training: what the style LoRA and the ControlNet have in common."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ....moa_attention.training.precision import mixed_precision
from ..data.faces import WORK
from .session import DEVICE, Session

RATE = 2e-3
"""Highest learning rate."""
SAVE_EVERY, LOG_EVERY = 60, 50
"""Seconds, and steps."""


class WeightChanges(nn.Module):
    """Changes `up @ down` of the weights of some layers; nothing at first.

    Args:
        network: keeps its weights; its layers are linear or convolutions.
        layers: names of those that change.
        rank: of each change, at most that of the weight.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], rank: int) -> None:
        super().__init__()
        self.network = [network]  # in a list: its parameters are not ours
        self.weights = {name: network.get_parameter(f"{name}.weight").detach() for name in layers}
        self.up, self.down = nn.ParameterDict(), nn.ParameterDict()
        for name, weight in self.weights.items():
            outputs, inputs = weight.flatten(1).shape
            size = min(rank, outputs, inputs)
            self.up[self._key(name)] = nn.Parameter(torch.zeros(outputs, size))
            self.down[self._key(name)] = nn.Parameter(torch.randn(size, inputs) * inputs**-0.5)

    @staticmethod
    def _key(name: str) -> str:
        return name.replace(".", "/")  # torch allows no dots

    def factors(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Up (out, rank) and down (rank, in, ...) by layer, in the shape of its weight."""
        return {
            name: (self.up[self._key(name)], self.down[self._key(name)].unflatten(1, weight.shape[1:]))
            for name, weight in self.weights.items()
        }

    def changed(self) -> Callable[..., Any]:
        """The network's forward pass with the weights as they are changed now."""
        weights, [network] = {}, self.network
        for name, weight in self.weights.items():
            change = self.up[self._key(name)] @ self.down[self._key(name)]
            weights[f"{name}.weight"] = weight + change.view_as(weight)
        return lambda *args, **kwargs: functional_call(network, weights, args, kwargs)


def fit(name: str, minutes: float, training: nn.Module) -> int:
    """Train for so many minutes in total, or go on with what `.mini/<name>.pt` holds; gives the number of steps.

    Args: training: what is trained; called, it gives the loss of a fresh batch, drawn with torch's random state.
    """
    parameters = [p for p in training.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, RATE, (0.9, 0.99), weight_decay=0.01, fused=True)
    session, losses = Session(WORK, name, minutes, trained=training, optimiser=optimiser), []
    while session.progress < 1:
        optimiser.param_groups[0]["lr"] = session.rate(RATE)
        with mixed_precision(DEVICE):
            value = training()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        session.step += 1
        losses.append(value.detach())
        if session.step % LOG_EVERY == 0:
            session.log(loss=torch.stack(losses).mean().item())
            losses = []
        if session.due(SAVE_EVERY):
            session.save()
    session.save()
    return session.step
