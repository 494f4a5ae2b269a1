"""Several processes through Hugging Face Accelerate: start with `accelerate launch`, or without for a single one."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list
from torch import Tensor, nn

WHOLE = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU)
"""Ways of sharing a step in which every process holds the whole adapter."""


CONNECTION_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")
"""In the messages of Gloo, which has no type of error of its own."""


def check_workers(kind: DistributedType, count: int) -> None:
    """Whether `count` processes train together.

    Raises: ValueError for launches that shard the adapter (FSDP, DeepSpeed), and where the launcher has started more processes than
    Accelerate knows of.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != count:
        raise ValueError(
            f"The launcher has started {started} processes, but Accelerate knows of {count}. Each would train by itself and "
            "overwrite the files of the others. On a CPU, set the environment variable ACCELERATE_USE_CPU=true."
        )
    if kind not in WHOLE:
        raise ValueError(
            f"Accelerate was launched for {kind.value}, which divides a model among processes, but training needs the whole "
            "adapter in every process. Launch it with --multi_gpu. If the memory is too small, these settings save memory: "
            "adapter.rank, train.optimiser, train.checkpointing."
        )


class LostWorker(ValueError):
    """Another process of the run has ended; the message is for users."""


@contextmanager
def lost_workers() -> Iterator[None]:
    """Inside, the errors of a connection to a process that has ended become a sentence.

    Raises: LostWorker.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or any(mark in str(error) for mark in CONNECTION_LOST):
            raise LostWorker(
                "another process of this run has ended, and this one cannot continue alone. The same command resumes, with "
                "any number of processes."
            ) from error
        raise


class Accelerated:
    """`moa_attention.training.workers.Workers` over an Accelerator.

    Raises: ValueError as `check_workers`.
    """

    def __init__(self, accelerator: Accelerator):
        check_workers(accelerator.distributed_type, accelerator.num_processes)
        self.accelerator = accelerator
        self.count: int = accelerator.num_processes
        self.rank: int = accelerator.process_index

    def of_first(self, text: str) -> str:
        """The text that the first process gives, in every process."""
        return cast("str", broadcast_object_list([text])[0])

    def share(self, objective: nn.Module) -> nn.Module:
        return self.accelerator.prepare_model(objective)

    def no_sync(self, objective: nn.Module) -> AbstractContextManager[object]:
        return self.accelerator.no_sync(objective)

    def mean(self, numbers: Tensor) -> Tensor:
        return cast("Tensor", self.accelerator.reduce(numbers.to(self.accelerator.device), "mean"))
