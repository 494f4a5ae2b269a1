"""What one step computes, waits for and holds, counted without computing it: the real calls on PyTorch's `meta` device.

Its tensors have shapes and no contents. What would need an answer of the device (`nonzero`, a boolean index, `equal`, …)
raises there, so that a call which comes through asks for none but those counted here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..moa_attention.training.footprint import Peak
from .bases import Pair
from .calls import Given, call
from .variants import Attached

aten = torch.ops.aten


class Counted(NamedTuple):
    """Of one call at a step that is not the first."""

    flops: int
    """Of convolutions, linear layers and attention products; a multiply-add is two."""
    reads: int
    """How often the host asks for a value that the device computes, and waits for it."""
    uploads: int
    """How often a tensor of the host is copied to the device while the host waits."""
    kernels: int
    """How many operations the device is given, views and mere allocations aside."""
    peak: int
    """Bytes of activations, and of whatever the first call left behind, when most are alive."""


NO_KERNEL = {aten._unsafe_view.default, aten.empty.memory_format, aten.empty_like.default, aten.empty_strided.default}


class Traffic(TorchDispatchMode):
    """Counts reads, uploads and kernels between the CPU and the meta device; what is read is 1 or zeros."""

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


def fused_attention(_chosen: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, *_: Any, **__: Any) -> Tensor:
    """Attention in one kernel, as on cards: (B,N,D) (B,M,D) twice -> (B,N,D). On meta it would be spelled out."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return aten._scaled_dot_product_efficient_attention(q, k, v, None, False)[0].transpose(1, 2).flatten(2)


def count(pair: Pair, attached: Attached, step: Given) -> Counted:
    """Call twice where there are subjects, so that what is made once for a prompt is held, and not counted as arithmetic."""
    peak, traffic, flops = Peak(), Traffic(), FlopCounterMode(display=False)
    for module in (pair.model.model, pair.adapter.model, attached.weights):
        for tensor in (*module.parameters(), *module.buffers()):
            peak.known.add(tensor.untyped_storage())
    with torch.no_grad(), peak:
        if step.carried:
            with Traffic():
                call(attached.model, step, fused_attention)
        with flops, traffic:
            call(attached.model, step, fused_attention)
    return Counted(flops.get_total_flops(), traffic.reads, traffic.uploads, traffic.kernels, peak.most)
