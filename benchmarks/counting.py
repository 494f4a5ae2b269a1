"""FLOPs, synchronisations, kernels and peak memory of one step, counted by real calls on PyTorch's `meta` device.

Its tensors have shapes and no contents. Operations that read values of the device (`nonzero`, a boolean index, `equal`, …)
raise there, so a call that succeeds has no reads but those counted here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..moa_attention.training.footprint import Peak
from .bases import Pair
from .calls import StepInputs, call
from .variants import Attached

aten = torch.ops.aten


class CallCost(NamedTuple):
    """Of one call at a step that is not the first."""

    flops: int
    """Of convolutions, linear layers and attention products; a multiply-add is two."""
    reads: int
    """Values that the host reads from the device, waiting for each."""
    uploads: int
    """Blocking copies of a tensor from the host to the device."""
    kernels: int
    """Operations on the device, without views and mere allocations."""
    peak: int
    """Peak bytes of activations and of what the first call has cached."""


NO_KERNEL = {aten._unsafe_view.default, aten.empty.memory_format, aten.empty_like.default, aten.empty_strided.default}


class DeviceTraffic(TorchDispatchMode):
    """Counts reads, uploads and kernels between the CPU and the meta device; reads return 1 or zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.uploads, self.kernels = 0, 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if function is aten._local_scalar_dense.default and args[0].is_meta:
            self.reads += 1
            return 1.0
        if function is aten._to_copy.default:
            to = torch.device(options.get("device") or args[0].device)
            if args[0].is_meta and to.type == "cpu":
                self.reads += 1
                return torch.zeros(args[0].shape, dtype=options.get("dtype") or args[0].dtype)
            self.uploads += args[0].device.type == "cpu" and to.type == "meta" and not options.get("non_blocking")
        if function is aten.copy_.default:
            self.uploads += args[0].is_meta and args[1].device.type == "cpu" and not (args[2:] or (False,))[0]
        result = function(*args, **options)
        made = result[0] if isinstance(result, (tuple, list)) else result
        computed = not function.is_view and function not in NO_KERNEL
        self.kernels += computed and isinstance(made, Tensor) and made.is_meta
        return result


def fused_kernel(_chosen: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *_: Any, **__: Any) -> Tensor:
    """Attention in one kernel, as on GPUs: (B,N,D) (B,M,D) twice -> (B,N,D). By default meta decomposes it."""
    q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v))
    return rearrange(aten._scaled_dot_product_efficient_attention(q, k, v, None, False)[0], "b h n d -> b n (h d)")


def count_call(pair: Pair, attached: Attached, step: StepInputs) -> CallCost:
    """Of the second call where there are subjects: a prompt's cache counts as memory, not as arithmetic."""
    peak, traffic, flops = Peak(), DeviceTraffic(), FlopCounterMode(display=False)
    for module in (pair.model.model, pair.adapter.model, attached.weights):
        for tensor in (*module.parameters(), *module.buffers()):
            peak.known.add(tensor.untyped_storage())
    with torch.no_grad(), peak:
        if step.payload:
            with DeviceTraffic():
                call(attached.model, step, fused_kernel)
        with flops, traffic:
            call(attached.model, step, fused_kernel)
    return CallCost(flops.get_total_flops(), traffic.reads, traffic.uploads, traffic.kernels, peak.most)
