"""Several processes through Hugging Face Accelerate: start with `accelerate launch`, or without for a single one."""

from contextlib import AbstractContextManager
from typing import cast

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

WHOLE = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU)
"""Ways of sharing a step in which every process holds the whole adapter."""


def check_workers(kind: DistributedType) -> None:
    """Raises: ValueError for launches that would cut the adapter into pieces (FSDP, DeepSpeed)."""
    if kind not in WHOLE:
        raise ValueError(
            f"Accelerate was launched for {kind.value}, which spreads a model over processes. Every process of a MoA "
            "training holds the whole adapter: launch with --multi_gpu. If it does not fit, `plan` names what would "
            "make it: adapter.rank, train.optimiser, train.checkpointing."
        )


class Accelerated:
    """`moa_attention.training.workers.Workers` over an Accelerator."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.count: int = accelerator.num_processes
        self.rank: int = accelerator.process_index

    def share(self, objective: nn.Module) -> nn.Module:
        return self.accelerator.prepare_model(objective)

    def silently(self, objective: nn.Module) -> AbstractContextManager[object]:
        return self.accelerator.no_sync(objective)

    def mean(self, numbers: Tensor) -> Tensor:
        return cast("Tensor", self.accelerator.reduce(numbers, "mean"))
