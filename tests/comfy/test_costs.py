"""What a step costs, counted on the host's real U-Nets at their real widths, agrees with the equations and needs no synchronisation."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path

import host
import pytest
import subjects
import torch
from comfyui_moa.benchmarks import arithmetic, measuring
from comfyui_moa.benchmarks.bases import ENCODER, FEATURE, Pair, meta_image_pair, meta_pair
from comfyui_moa.benchmarks.calls import random_inputs
from comfyui_moa.benchmarks.counting import CallCost, count_call, fused_kernel
from comfyui_moa.benchmarks.ip_adapter import IMAGE_TOKENS, ImagePrompts, attach_image_prompts
from comfyui_moa.benchmarks.measurements import (
    Measurement,
    cost_table,
    merge,
    read_measurements,
    write_measurements,
)
from comfyui_moa.benchmarks.timing import seconds_each
from comfyui_moa.benchmarks.variants import (
    IP_ADAPTER,
    NO_SUBJECT,
    STOCK,
    ZERO_STRENGTH,
    SamplingVariant,
    attach,
    dense,
    keep_background,
    routed_by,
    sparse,
)
from comfyui_moa.moa_attention.routers import ROUTERS
from comfyui_moa.nodes.host.files.adapters import HOST
from comfyui_moa.nodes.host.model.layers import fresh_adapter
from comfyui_moa.nodes.host.model.patch import host_patcher
from torch.utils.flop_counter import FlopCounterMode

SIDES = {"sd15": 512, "sdxl": 1024}
PUBLISHED = {"sd15": 401.637e9, "sdxl": 3380.618e9}
"""Multiply-adds of one picture in one call of the stock U-Net, by PyTorch's counter and by hand."""


@pytest.fixture(scope="module", autouse=True)
def clear_pairs():
    """Models that outlive the tests complain when the interpreter ends."""
    yield
    pair.cache_clear()


@cache
def pair(base: str) -> Pair:
    return meta_pair(base)


@cache
def counted_once(base: str, variant: SamplingVariant, cfg: bool) -> CallCost:
    step = random_inputs(pair(base), SIDES[base], cfg, variant.conditioned, prior_row=variant.prior_row)
    return count_call(pair(base), attach(pair(base), variant), step)


def counted(base: str, variant: SamplingVariant, cfg: bool = True) -> CallCost:
    return counted_once(base, variant, cfg)


def extra(base: str, variant: SamplingVariant, cfg: bool = True) -> int:
    """FLOPs beyond the stock model's."""
    return counted(base, variant, cfg).flops - counted(base, STOCK, cfg).flops


def test_fused_attention_is_counted_as_two_products():
    query, key = torch.empty(2, 64, 40, device="meta"), torch.empty(2, 7, 40, device="meta")
    with FlopCounterMode(display=False) as counter:
        out = fused_kernel(None, query, key, key, 8)
    assert out.shape == query.shape
    assert counter.get_total_flops() == 2 * 2 * 2 * 64 * 7 * 40


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_the_stock_model_is_the_published_one(base: str):
    assert counted(base, STOCK).flops == pytest.approx(2 * 2 * PUBLISHED[base], rel=1e-4)


@pytest.mark.parametrize(
    ("base", "variant", "cfg"),
    [
        ("sd15", dense(), True),
        ("sd15", sparse(0.25), True),
        ("sd15", sparse(0.05, 4), False),
        ("sdxl", sparse(0.25), True),
        pytest.param("sdxl", dense(), True, marks=pytest.mark.slow),
    ],
)
def test_what_is_computed_follows_the_equations(base: str, variant: SamplingVariant, cfg: bool):
    """The row without subjects costs nothing, and only the subjects' words are projected anew at every step."""
    config = pair(base).adapter.model.config
    expected = arithmetic.extra_flops(config, SIDES[base], variant.subjects, variant.routed or 0.0, variant.subjects)
    assert extra(base, variant, cfg) == pytest.approx(expected, rel=0.01)


def test_no_subject_and_zero_strength_compute_nothing():
    assert extra("sd15", NO_SUBJECT) == extra("sd15", ZERO_STRENGTH) == 0


@pytest.mark.parametrize(("base", "variant"), [("sd15", dense()), ("sd15", sparse(0.25)), ("sdxl", sparse(0.25))])
def test_a_step_reads_nothing_from_the_device(base: str, variant: SamplingVariant):
    assert counted(base, variant).reads == 0


def test_keep_background_costs_a_row_more_and_waits_for_nothing():
    found, row = counted("sd15", keep_background()), counted("sd15", STOCK).flops / 2
    assert found.flops == pytest.approx(counted("sd15", dense()).flops + row, rel=1e-4)
    assert found.reads == found.uploads == 0
    alone = counted("sd15", keep_background(), cfg=False)
    assert alone.flops == pytest.approx(counted("sd15", dense(), cfg=False).flops + row, rel=1e-4)


@pytest.mark.parametrize("subjects", [1, 2])
@pytest.mark.parametrize("router", list(ROUTERS))
def test_no_router_reads_from_the_device(router: str, subjects: int):
    found = counted("sd15", routed_by(router, subjects))
    assert found.reads == found.uploads == 0


@cache
def image_prompts(base: str, router: str, negative_images: bool = True) -> CallCost:
    """Of image prompts with 16 tokens in both rows."""
    made, variant = meta_image_pair(base), routed_by(router)
    step = random_inputs(made, SIDES[base], True, 1, negative_images=negative_images)
    return count_call(made, attach(made, variant), step)


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_image_prompts_project_no_pixel_again(base: str):
    found, config = image_prompts(base, "constant"), pair(base).adapter.model.config
    expected = arithmetic.folded_flops(config, SIDES[base], IMAGE_TOKENS, rows=2)
    assert found.flops - counted(base, STOCK).flops == expected
    assert found.reads == found.uploads == 0
    assert expected < 0.02 * counted(base, STOCK).flops


def test_image_prompts_take_fewer_kernels_than_as_commonly_attached():
    stock = counted("sd15", STOCK).kernels
    ours, common = image_prompts("sd15", "constant").kernels - stock, counted("sd15", IP_ADAPTER).kernels - stock
    assert 0 < ours < common


@pytest.mark.parametrize("router", list(ROUTERS))
def test_image_prompts_wait_for_nothing_with_any_router(router: str):
    assert image_prompts("sd15", router).reads == image_prompts("sd15", router).uploads == 0


def test_no_upload_blocks():
    assert counted("sd15", dense()).uploads == 0


def test_the_common_ip_adapter_reads_from_the_device_in_every_layer():
    found = counted("sd15", IP_ADAPTER)
    config = pair("sd15").adapter.model.config
    assert found.reads == sum(spec.is_cross for spec in config.layers) == 16
    assert extra("sd15", IP_ADAPTER) == arithmetic.image_prompt_flops(config, SIDES["sd15"], IMAGE_TOKENS, rows=2)


def test_the_common_ip_adapter_is_the_published_formula():
    """At weight 0 it is the stock model, at weight 1 it is not."""
    model = host.sd15()
    torch.manual_seed(0)
    prompts = ImagePrompts(model, torch.device("cpu"), torch.float32)
    for name in ("picture", "nothing"):
        getattr(prompts, name).normal_()
    sampled = [
        host.sample(m, host.conditioning(seed=1), host.conditioning(seed=2))
        for m in (model, attach_image_prompts(model, prompts, 0.0), attach_image_prompts(model, prompts))
    ]
    torch.testing.assert_close(sampled[1], sampled[0])
    assert subjects.difference(sampled[0], sampled[2]) > 0.05


def test_memory_is_the_weights_and_little_more():
    weights = sum(p.numel() * p.element_size() for p in pair("sd15").adapter.model.parameters())
    found = counted("sd15", dense()).peak - counted("sd15", STOCK).peak
    assert 0 <= found < 0.1 * weights


def test_measurements_are_kept_merged_and_printed(tmp_path: Path):
    row = Measurement(
        "sd15", 512, "meta", "float16", "dense", 1.0, 1, True, flops_ratio=1.128, host_syncs=0, peak_extra_mib=144
    )
    timed = Measurement("sd15", 512, "cpu", "float32", "dense", 1.0, 1, True, ratio=1.1, ratio_spread=0.02)
    file = tmp_path / "rows.json"
    write_measurements(file, [row, timed])
    assert json.loads(file.read_text())[1]["flops_ratio"] is None
    better = Measurement(*row.key, flops_ratio=1.1)
    assert merge(read_measurements(file), [better]) == [better, timed]
    assert "| 1.128 |" in cost_table([row, timed]) and "1.100" in cost_table([row, timed])


def test_runs_take_turns_at_every_block_and_only_their_own_time_counts():
    blocks, order = [torch.nn.Identity(), torch.nn.Identity()], []

    def run(name: str, nap: float) -> None:
        for block in blocks:
            order.append(name)
            time.sleep(nap)
            block(torch.zeros(1))

    spent = seconds_each({"slow": lambda: run("slow", 0.1), "fast": lambda: run("fast", 0.0)}, blocks, first=1)
    assert order == ["fast", "slow", "fast", "slow"]
    assert spent["slow"] >= 0.2 and spent["fast"] < 0.1
    assert not any(block._forward_hooks for block in blocks)


def test_a_run_that_fails_stops_no_other():
    block, done = torch.nn.Identity(), []

    def fail() -> None:
        block(torch.zeros(1))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        seconds_each({"bad": fail, "good": lambda: done.append(block(torch.zeros(1)))}, [block])
    assert len(done) == 1


def test_timing_takes_the_stock_model_and_ours_in_turn(monkeypatch: pytest.MonkeyPatch):
    """On a model of SD1.5's layout at a tenth of its width."""
    model = host.sd15(context=768)
    adapter = fresh_adapter(model, ENCODER, FEATURE, factory=HOST).requires_grad_(False)
    small = Pair("sd15", model, host_patcher(adapter), torch.device("cpu"), torch.float32)
    monkeypatch.setattr(measuring, "count_variants", lambda _pair, side, cfg, variants: [
        Measurement("sd15", side, "meta", "float16", *v, cfg, flops_ratio=1.1, host_syncs=0) for v in variants
    ])  # fmt: skip
    rows = measuring.time_variants(small, 64, 2, [dense(), IP_ADAPTER])
    assert [row.key[2:5] for row in rows] == [("cpu", "float32", "dense"), ("cpu", "float32", "ip-adapter-plus")]
    assert all(row.ratio and row.ratio > 0 and row.seconds_stock and row.peak_extra_mib is None for row in rows)
