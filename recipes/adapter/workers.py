"""Several processes through Hugging Face Accelerate: start with `accelerate launch`, or without for a single one."""

from contextlib import AbstractContextManager
from typing import cast

from accelerate import Accelerator
from torch import Tensor, nn


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
