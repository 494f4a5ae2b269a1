"""Memory and arithmetic of a step, counted by taking one on PyTorch's `meta` device, where tensors have no contents."""

from __future__ import annotations

import weakref
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from .base import Batch
from .config import TrainConfig
from .lots import lots
from .objective import Objective
from .optimisation.optimisers import OPTIMISERS
from .workers import Alone


@dataclass(frozen=True)
class Footprint:
    """Memory in bytes and arithmetic of one optimiser step of one process."""

    base: int
    """The frozen U-Net's weights."""
    adapter: int
    """The adapter in float32, the optimiser's moments and the averaged copy."""
    working: int
    """Peak of one micro-batch in addition: activations, gradients, temporaries."""
    flops: int
    """Forward and backward passes of all micro-batches."""
    trained: int
    """Trained parameters."""

    @property
    def total(self) -> int:
        return self.base + self.adapter + self.working

    def in_bfloat16(self) -> Footprint:
        """The same with a base in 16 bits and autocast: activations halve, and 16-bit copies of the adapter are added."""
        gradients = 4 * self.trained
        working = gradients + max(0, self.working - gradients) // 2 + 2 * self.trained
        return replace(self, base=self.base // 2, working=working)


class Peak(TorchDispatchMode):
    """Sums the storages that are alive on the meta device and keeps the maximum; counts the arithmetic.

    `FlopCounterMode` counts the same arithmetic, but makes cycles of references, in which tensors stay alive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.most, self.flops = 0, 0, 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        tree_map_only(Tensor, self.count, out)
        if (flops := flop_registry.get(function._overloadpacket)) is not None:
            self.flops += flops(*args, **(kwargs or {}), out_val=out)
        return out

    def count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.device.type == "meta" and storage not in self.known:
            self.known.add(storage)
            self.alive += storage.nbytes()
            self.most = max(self.most, self.alive)
            weakref.finalize(storage, self.release, storage.nbytes())
        return tensor

    def release(self, size: int) -> None:
        self.alive -= size


def fused_attention(q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Tensor:
    """Attention as GPUs compute it, without storing the scores; the meta device would store them."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[0]


def footprint(
    objective: Objective, unet: nn.Module, batch: Batch, config: TrainConfig, fused: bool = True
) -> Footprint:
    """Take one step and count.

    Args:
        fused: whether attention is one kernel (GPUs) or stores its scores (training on a CPU).
        objective: around an adapter and a base whose weights are on the meta device.
        unet: the base's own module.
        batch: one micro-batch on the meta device.
    """
    micro = config.micro_batch or config.batch_size
    lot = next(lots(0, config, Alone()))
    peak = Peak()
    for tensor in (*unet.parameters(), *objective.adapter.parameters()):
        peak.known.add(tensor.untyped_storage())  # counted below, not as working memory
    kernel = patch.object(nn.functional, "scaled_dot_product_attention", fused_attention) if fused else nullcontext()
    with peak, kernel:
        loss, _ = objective(batch, lot.generators)
        loss.backward()
    trained = sum(p.numel() for p in objective.adapter.parameters())
    return Footprint(
        base=sum(p.numel() * p.element_size() for p in unet.parameters()),
        adapter=trained * (4 + OPTIMISERS[config.optimiser].moments + (4 if config.ema_decay else 0)),
        working=peak.most,
        flops=peak.flops * (config.batch_size // micro),
        trained=trained,
    )
