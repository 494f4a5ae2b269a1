"""Rows of the benchmark: counted for every variant, timed for some."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from typing import Any

from comfy.ldm.modules.attention import BasicTransformerBlock, attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor

from .bases import Pair, hollow
from .calls import Given, denoise, given, load
from .card import book
from .counting import Counted, count
from .rows import Row
from .timing import middle, seconds_each
from .variants import STOCK, Attached, Variant, attach, weight_bytes

MIB = 2**20
WARM_UP = 64
"""Pixels of a side of the calls before those that count: what a run does once is the same at every size."""


def count_rows(pair: Pair, side: int, cfg: bool, variants: list[Variant]) -> list[Row]:
    """A row for each variant of a hollow pair, against the stock model."""

    def of(variant: Variant) -> tuple[Counted, int]:
        attached = attach(pair, variant)
        return count(pair, attached, given(pair, side, cfg, variant.carried)), weight_bytes(attached.weights)

    stock, _ = of(STOCK)
    rows = []
    for variant in variants:
        found, weights = of(variant)
        row = Row(pair.base, side, pair.where, pair.precision, *variant, cfg)
        more = {"host_syncs": found.reads - stock.reads, "kernels": found.kernels - stock.kernels}
        extra = (weights + found.peak - stock.peak) / MIB
        rows.append(replace(row, flops_ratio=found.flops / stock.flops, peak_extra_mib=extra, **more))
    return rows


def time_rows(pair: Pair, side: int, rounds: int, variants: list[Variant]) -> list[Row]:
    """A row for each variant of a pair with weights, with guidance, against the stock model in the same rounds.

    Arithmetic, and on a CPU waits too, are those of a hollow twin; on a card waits and memory are its own.
    """
    every = {variant: attach(pair, variant) for variant in (STOCK, *variants)}
    steps = {variant: given(pair, side, True, variant.carried) for variant in every}
    for variant, attached in every.items():
        load(attached.model)
        denoise(attached.model, given(pair, WARM_UP, True, variant.carried))  # prompts are heard, kernels chosen
    attention, blocks = None, []
    if pair.device.type == "cpu":  # on a card every turn would have to wait for it
        attention, unet = torch_attention, pair.model.model.diffusion_model
        blocks = [module for module in unet.modules() if isinstance(module, (ResBlock, BasicTransformerBlock))]
    runs = {v: partial(denoise, every[v].model, steps[v], attention) for v in every}
    found = [seconds_each(runs, blocks, first) for first in range(rounds)]
    stock = statistics.median(seconds[STOCK] for seconds in found)
    rows = []
    for variant, twin in zip(variants, count_rows(hollow(pair.base), side, True, variants), strict=True):
        ratio, spread = middle([seconds[variant] / seconds[STOCK] for seconds in found])
        row = replace(twin, device=pair.where, dtype=pair.precision, ratio=ratio, ratio_spread=spread)
        rows.append(replace(row, peak_extra_mib=None, seconds_stock=stock))
    if pair.device.type != "cuda":
        return rows
    return [on_card(row, every[v], steps[v], every[STOCK], steps[STOCK]) for v, row in zip(variants, rows, strict=True)]


def torch_attention(_chosen: Any, *arguments: Any, **options: Any) -> Tensor:
    """PyTorch's kernel, which hosts choose on cards; on CPUs they choose a slow one that saves memory."""
    return attention_pytorch(*arguments, **options)


def on_card(row: Row, attached: Attached, step: Given, stock: Attached, stock_step: Given) -> Row:
    """The row with what the card's own books say."""
    ours, theirs = book(attached, step), book(stock, stock_step)
    extra = (weight_bytes(attached.weights) + ours.peak - theirs.peak) / MIB
    return replace(row, host_syncs=ours.syncs - theirs.syncs, peak_extra_mib=extra)
