"""Costs of the variants: counted for all, timed for some."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from typing import Any

from comfy.ldm.modules.attention import BasicTransformerBlock, attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor

from .bases import Pair, meta_pair
from .calls import StepInputs, denoise, load_patched, random_inputs
from .counting import CallCost, count_call
from .cuda_costs import CudaCost, measure_on_cuda
from .measurements import Measurement
from .timing import median_and_spread, seconds_each
from .variants import STOCK, Attached, SamplingVariant, attach, weight_bytes

MIB = 2**20
WARM_UP = 64
"""Pixels of a side in the warm-up: what a run does once is the same at every size."""


def count_variants(pair: Pair, side: int, cfg: bool, variants: list[SamplingVariant]) -> list[Measurement]:
    """On a meta pair, against the stock model."""

    def cost(variant: SamplingVariant) -> tuple[CallCost, int]:
        attached = attach(pair, variant)
        step = random_inputs(pair, side, cfg, variant.conditioned, prior_row=variant.prior_row)
        return count_call(pair, attached, step), weight_bytes(attached.weights)

    stock, _ = cost(STOCK)
    measurements = []
    for variant in variants:
        found, weights = cost(variant)
        measurements.append(
            Measurement(
                pair.base, side, pair.device_name, pair.precision, *variant, cfg,
                flops_ratio=found.flops / stock.flops,
                host_syncs=found.reads - stock.reads,
                kernels=found.kernels - stock.kernels,
                peak_extra_mib=(weights + found.peak - stock.peak) / MIB,
            )
        )  # fmt: skip
    return measurements


def time_variants(pair: Pair, side: int, rounds: int, variants: list[SamplingVariant]) -> list[Measurement]:
    """On a pair with weights, with guidance, against the stock model in the same rounds.

    Arithmetic, and on a CPU synchronisations too, are those of a meta pair; on CUDA synchronisations and memory are
    measured.
    """
    attached = {variant: attach(pair, variant) for variant in (STOCK, *variants)}
    steps = {
        variant: random_inputs(pair, side, True, variant.conditioned, prior_row=variant.prior_row)
        for variant in attached
    }
    seconds = time_rounds(pair, attached, steps, rounds)
    stock = statistics.median(each[STOCK] for each in seconds)
    measurements = []
    for variant, counted in zip(variants, count_variants(meta_pair(pair.base), side, True, variants), strict=True):
        ratio, spread = median_and_spread([each[variant] / each[STOCK] for each in seconds])
        timed = replace(counted, device=pair.device_name, dtype=pair.precision, ratio=ratio, ratio_spread=spread)
        measurements.append(replace(timed, peak_extra_mib=None, seconds_stock=stock))
    if pair.device.type != "cuda":
        return measurements
    theirs = measure_on_cuda(attached[STOCK], steps[STOCK])
    return [with_cuda_costs(m, attached[v], steps[v], theirs) for v, m in zip(variants, measurements, strict=True)]


def time_rounds(
    pair: Pair,
    attached: dict[SamplingVariant, Attached],
    steps: dict[SamplingVariant, StepInputs],
    rounds: int,
) -> list[dict[SamplingVariant, float]]:
    """Seconds of a call of every variant, round by round, after a warm-up that fills caches and chooses kernels."""
    for variant, each in attached.items():
        load_patched(each.model)
        denoise(each.model, random_inputs(pair, WARM_UP, True, variant.conditioned, prior_row=variant.prior_row))
    attention, blocks = None, []
    if pair.device.type == "cpu":  # on CUDA every turn would have to wait for the device
        attention, unet = torch_attention, pair.model.model.diffusion_model
        blocks = [module for module in unet.modules() if isinstance(module, (ResBlock, BasicTransformerBlock))]
    runs = {v: partial(denoise, attached[v].model, steps[v], attention) for v in attached}
    return [seconds_each(runs, blocks, first) for first in range(rounds)]


def torch_attention(_chosen: Any, *arguments: Any, **options: Any) -> Tensor:
    """PyTorch's kernel, the host's choice on GPUs; on CPUs it chooses a slower one that saves memory."""
    return attention_pytorch(*arguments, **options)


def with_cuda_costs(measurement: Measurement, attached: Attached, step: StepInputs, stock: CudaCost) -> Measurement:
    """The measurement with synchronisations and memory against the stock model's."""
    ours = measure_on_cuda(attached, step)
    extra = (weight_bytes(attached.weights) + ours.peak - stock.peak) / MIB
    return replace(measurement, host_syncs=ours.syncs - stock.syncs, peak_extra_mib=extra)
