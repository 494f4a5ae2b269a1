"""To keep the background, the sampler samples twice: without the subjects, then with them beside what it gave before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers, get_wrappers_with_key
from torch import Tensor

from ....moa_attention.run.base_run import BaseRun
from ....moa_attention.run.listener import RunListener
from .attachment import KEY

BASE_RUN = "moa_base_run"
"""Name of the BaseRun in the model options of both runs."""
CALLBACK = 5
"""Place among the arguments of `outer_sample`."""
OTHER_STEPS = (
    "The sampler did not take the same steps without the subjects and with them, or a node cuts the frames into windows. The background may "
    "therefore change in details."
)

Callback = Callable[[int, Tensor, Tensor, int], Any]


def sample_twice(
    executor: Any, listeners: Sequence[RunListener], lines: list[str], *args: Any, **kwargs: Any
) -> Tensor:
    """The result of an OUTER_SAMPLE wrapper.

    Args:
        listeners: begin anew with the second run.
        lines: receives what users must know.
    """
    guider, noise, options, conds = (
        executor.class_obj,
        args[0],
        executor.class_obj.model_options,
        executor.class_obj.conds,
    )
    run = BaseRun(noise.shape)
    guider.model_options = {**options, BASE_RUN: run}
    try:
        with same_random_numbers(noise.device):
            guider.conds = {name: [each.copy() for each in of_name] for name, of_name in conds.items()}
            without_this(guider).execute(noise.clone(), *args[1:CALLBACK], *in_half(args[CALLBACK:], 0), **kwargs)
        run.repeat()
        for listener in listeners:
            listener.end_run()
            listener.begin_run()
        guider.conds = conds
        result = executor(*args[:CALLBACK], *in_half(args[CALLBACK:], 1), **kwargs)
    finally:
        guider.model_options = options
    if bool(run.apart):
        lines.append(OTHER_STEPS)
    return result


def without_this(guider: Any) -> Any:
    """The sampling of a guider with all its wrappers but MoA's.

    Those around MoA's are among them: what they prepare for a run serves one run only.
    """
    kind, options = WrappersMP.OUTER_SAMPLE, guider.model_options
    own = get_wrappers_with_key(kind, KEY, options, is_model_options=True)
    others = [each for each in get_all_wrappers(kind, options, is_model_options=True) if each not in own]
    return WrapperExecutor.new_class_executor(guider.outer_sample, guider, others)


@contextmanager
def same_random_numbers(device: torch.device) -> Iterator[None]:
    """What follows the block draws the same random numbers as the block, from PyTorch's own generators."""
    accelerated = device.type not in ("cpu", "mps")
    with torch.random.fork_rng([device] if accelerated else [], device_type=device.type if accelerated else None):
        yield


def in_half(args: tuple, half: int) -> tuple:
    """The arguments from the callback on, with the callback of one of two runs, which together are the progress that users see."""
    callback: Callback | None = args[0] if args else None
    if callback is None:
        return args

    def report(step: int, denoised: Tensor, x: Tensor, steps: int) -> Any:
        return callback(half * steps + step, denoised, x, 2 * steps)

    return report, *args[1:]
