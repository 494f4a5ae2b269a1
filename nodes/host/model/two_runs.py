"""To keep the background, the sampler samples twice: without the subjects, then with them beside what it gave before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ....moa_attention.run.base_run import BaseRun
from ....moa_attention.run.listener import RunListener

BASE_RUN = "moa_base_run"
"""Name of the BaseRun in the model options of both runs."""
CALLBACK = 4
"""Place among the arguments of `outer_sample` after the noise."""
OTHER_STEPS = (
    "The sampler or a node did not take the same steps without the subjects and with them, or frames are sampled in windows. Details of the "
    "background may therefore change."
)

Callback = Callable[[int, Tensor, Tensor, int], Any]


def sample_twice(
    first: Any, executor: Any, listeners: Sequence[RunListener], lines: list[str], noise: Tensor, *args: Any, **kwargs: Any
) -> Tensor:  # fmt: skip
    """The result of an OUTER_SAMPLE wrapper.

    Args:
        first: samples as `executor` does, but not through this wrapper.
        listeners: begin anew with the second run.
        lines: receives what users must know.
    """
    guider, run = executor.class_obj, BaseRun(noise.shape)
    options, conds = guider.model_options, guider.conds
    guider.model_options = {**options, BASE_RUN: run}
    try:
        guider.conds = {name: [each.copy() for each in of_name] for name, of_name in conds.items()}
        with same_random_numbers(noise.device):
            first.execute(noise.clone(), *in_half(args, 0), **kwargs)
        run.repeat()
        for listener in listeners:
            listener.end_run()
            listener.begin_run()
        guider.conds = conds
        result = executor(noise, *in_half(args, 1), **kwargs)
    finally:
        guider.model_options = options
    if bool(run.apart):
        lines.append(OTHER_STEPS)
    return result


@contextmanager
def same_random_numbers(device: torch.device) -> Iterator[None]:
    """What follows the block draws the same random numbers as the block, from PyTorch's own generators."""
    accelerated = device.type not in ("cpu", "mps")
    with torch.random.fork_rng([device] if accelerated else [], device_type=device.type if accelerated else None):
        yield


def in_half(args: tuple, half: int) -> tuple:
    """The arguments of `outer_sample` with the callback of one of two runs, which together are the progress that users see."""
    callback: Callback | None = args[CALLBACK] if len(args) > CALLBACK else None
    if callback is None:
        return args

    def report(step: int, denoised: Tensor, x: Tensor, steps: int) -> Any:
        return callback(half * steps + step, denoised, x, 2 * steps)

    return *args[:CALLBACK], report, *args[CALLBACK + 1 :]
