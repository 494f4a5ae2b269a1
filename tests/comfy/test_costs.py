"""What a step costs, counted on the host's real U-Nets at their real widths, agrees with the equations and waits for nobody."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path

import comfy.ops
import host
import pytest
import subjects
import torch
from comfyui_moa.benchmarks import arithmetic, measured
from comfyui_moa.benchmarks.bases import ENCODER, FEATURE, Pair, hollow
from comfyui_moa.benchmarks.calls import given
from comfyui_moa.benchmarks.counting import Counted, count, fused_attention
from comfyui_moa.benchmarks.ip_adapter import IMAGE_TOKENS, ImagePrompts, attach_image_prompts
from comfyui_moa.benchmarks.rows import Row, merge, read_rows, table, write_rows
from comfyui_moa.benchmarks.timing import seconds_each
from comfyui_moa.benchmarks.variants import (
    NOBODY,
    PEER,
    SILENT,
    STOCK,
    Variant,
    attach,
    dense,
    sparse,
)
from comfyui_moa.nodes.layers import fresh_adapter
from comfyui_moa.nodes.patch import host_patcher
from torch.utils.flop_counter import FlopCounterMode

SIDES = {"sd15": 512, "sdxl": 1024}
PUBLISHED = {"sd15": 401.637e9, "sdxl": 3380.618e9}
"""Multiply-adds of one picture in one call of the stock U-Net, by PyTorch's counter and by hand."""


@pytest.fixture(scope="module", autouse=True)
def forget():
    """Models that outlive the tests complain when the interpreter ends."""
    yield
    pair.cache_clear()


@cache
def pair(base: str) -> Pair:
    return hollow(base)


@cache
def counted_once(base: str, variant: Variant, cfg: bool) -> Counted:
    step = given(pair(base), SIDES[base], cfg, variant.carried)
    return count(pair(base), attach(pair(base), variant), step)


def counted(base: str, variant: Variant, cfg: bool = True) -> Counted:
    return counted_once(base, variant, cfg)


def extra(base: str, variant: Variant, cfg: bool = True) -> int:
    """FLOPs beyond the stock model's."""
    return counted(base, variant, cfg).flops - counted(base, STOCK, cfg).flops


def test_fused_attention_is_counted_as_two_products():
    query, key = torch.empty(2, 64, 40, device="meta"), torch.empty(2, 7, 40, device="meta")
    with FlopCounterMode(display=False) as counter:
        out = fused_attention(None, query, key, key, 8)
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
def test_what_is_computed_is_what_the_equations_say(base: str, variant: Variant, cfg: bool):
    """The row without subjects costs nothing, and only the subjects' words are projected anew at every step."""
    config = pair(base).adapter.model.config
    expected = arithmetic.extra_flops(config, SIDES[base], variant.subjects, variant.routed or 0.0, variant.subjects)
    assert extra(base, variant, cfg) == pytest.approx(expected, rel=0.01)


def test_nobody_and_silence_compute_nothing():
    assert extra("sd15", NOBODY) == extra("sd15", SILENT) == 0


@pytest.mark.parametrize(("base", "variant"), [("sd15", dense()), ("sd15", sparse(0.25)), ("sdxl", sparse(0.25))])
def test_a_step_waits_for_nobody(base: str, variant: Variant):
    assert counted(base, variant).reads == 0


def test_what_is_uploaded_waits_for_nobody_either():
    assert counted("sd15", dense()).uploads == 0


def test_the_usual_way_waits_in_every_layer():
    found = counted("sd15", PEER)
    config = pair("sd15").adapter.model.config
    assert found.reads == sum(spec.is_cross for spec in config.layers) == 16
    assert extra("sd15", PEER) == arithmetic.image_prompt_flops(config, SIDES["sd15"], IMAGE_TOKENS, rows=2)


def test_the_usual_way_is_the_published_formula():
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


def test_rows_are_kept_merged_and_told(tmp_path: Path):
    row = Row(
        "sd15", 512, "meta", "float16", "dense", 1.0, 1, True, flops_ratio=1.128, host_syncs=0, peak_extra_mib=144
    )
    timed = Row("sd15", 512, "cpu", "float32", "dense", 1.0, 1, True, ratio=1.1, ratio_spread=0.02)
    file = tmp_path / "rows.json"
    write_rows(file, [row, timed])
    assert json.loads(file.read_text())[1]["flops_ratio"] is None
    better = Row(*row.key, flops_ratio=1.1)
    assert merge(read_rows(file), [better]) == [better, timed]
    assert "| 1.128 |" in table([row, timed]) and "1.100" in table([row, timed])


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
    adapter = fresh_adapter(model, ENCODER, FEATURE, operations=comfy.ops.manual_cast).requires_grad_(False)
    small = Pair("sd15", model, host_patcher(adapter), torch.device("cpu"), torch.float32)
    monkeypatch.setattr(measured, "count_rows", lambda _pair, side, cfg, variants: [
        Row("sd15", side, "meta", "float16", *v, cfg, flops_ratio=1.1, host_syncs=0) for v in variants
    ])  # fmt: skip
    rows = measured.time_rows(small, 64, 2, [dense(), PEER])
    assert [row.key[2:5] for row in rows] == [("cpu", "float32", "dense"), ("cpu", "float32", "ip-adapter-plus")]
    assert all(row.ratio and row.ratio > 0 and row.seconds_stock and row.peak_extra_mib is None for row in rows)
