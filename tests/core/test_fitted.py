"""Routers fitted to experts that stay unchanged, and the small file of the routers alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import ip_files
import pytest
import torch
from routed import call_info, spec
from safetensors.torch import save_file
from toy import config, draw, setup

from moa_attention.adapters.base import Adapter
from moa_attention.adapters.ip_adapter import LowRankLayer
from moa_attention.formats.errors import StoredFileError
from moa_attention.formats.ip_adapter.importing import flatten
from moa_attention.formats.registry import load_stored
from moa_attention.formats.routers import (
    attach_routers,
    expert_name,
    load_routers,
    routers_of,
    save_routers,
)
from moa_attention.formats.tensors import from_memory
from moa_attention.method.factory import PLAIN
from moa_attention.method.layer import Limits
from moa_attention.method.router import Router
from moa_attention.routers.base import subjects_of_rows
from moa_attention.routers.words import PlaceRouter
from moa_attention.training.loop import train


def ignore_log(_step: int, _numbers: dict[str, float], _averaged: Any) -> None:
    pass


def imported(seed: int = 0) -> Adapter:
    torch.manual_seed(seed)
    file = ip_files.nested("faceid", [32] * 16, 0, 48, rank=2, make=lambda *shape: torch.randn(shape))
    return load_stored(from_memory(Path("ip.bin"), flatten(file)), PLAIN).adapter


def test_only_the_routers_learn(tmp_path: Path):
    adapter, base = setup()
    attach_routers(adapter, "linear")
    before = copy.deepcopy(adapter.state_dict())
    losses: list[float] = []
    settings = config(
        80, only_routers=True, learning_rate=1e-2, ema_decay=0.0, router_weight=1e-2 * 24 / 4096, router_foreground=1.0
    )
    train(
        adapter, base, draw, settings, tmp_path / "state", lambda _step, numbers, _a: losses.append(numbers["router"])
    )
    for name, tensor in adapter.state_dict().items():
        assert torch.equal(tensor, before[name]) == (".router." not in name), name
    assert sum(losses[-20:]) < 0.98 * sum(losses[:20])


def test_a_stopped_run_for_routers_resumes_to_the_unbroken_one(tmp_path: Path):
    def run(steps: int, state: str) -> dict[str, torch.Tensor]:
        adapter, base = setup()
        train(adapter, base, draw, config(steps, only_routers=True, save_every=1), tmp_path / state, ignore_log)
        return adapter.state_dict()

    run(2, "broken")
    once, again = run(4, "whole"), run(4, "broken")
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_routers_are_saved_alone_and_load_with_their_expert_only(tmp_path: Path, kind: Any):
    adapter, path = imported(), tmp_path / "r.safetensors"
    name = expert_name(adapter)
    attach_routers(adapter, kind)
    for router in routers_of(adapter):
        for parameter in router.parameters():
            torch.nn.init.normal_(parameter)
    assert adapter.has_routers and expert_name(adapter) == name
    save_routers(adapter, path, expert=name, licence="CC0-1.0", provenance={"data": "boxes"})
    whole = sum(t.numel() * t.element_size() for t in adapter.state_dict().values())
    assert path.stat().st_size < whole / 3
    again = imported()
    header = load_routers(again, path)
    assert header == (kind, name, "CC0-1.0", {"data": "boxes"}) and again.config.router == kind
    for key, tensor in adapter.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor)
    with pytest.raises(StoredFileError, match="fitted to another adapter file"):
        load_routers(imported(seed=1), path)


def test_other_files_are_refused(tmp_path: Path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", {"format": "moa-adapter"})
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    for name, message in (("other", "expected moa-routers 1, found moa-adapter None"), ("torn", "cannot be read")):
        with pytest.raises(StoredFileError, match=message):
            load_routers(imported(), tmp_path / f"{name}.safetensors")


def test_a_learned_share_stays_within_each_subjects_region():
    torch.manual_seed(0)
    layer = LowRankLayer(spec("middle_0_0_attn1", 0, 8, 8, 2, True), 2)
    hidden, within = torch.randn(2, 6, 8), torch.rand(2, 3, 6)
    with pytest.raises(ValueError, match="middle_0_0_attn1 has no router of its own"):
        layer.gate(hidden, Limits(0.0, None, within))
    layer.router = Router(8)
    personal = layer.router(hidden, 0.5)
    torch.testing.assert_close(layer.gate(hidden, Limits(0.5, None, within)).by_subject(), within * personal[:, None])
    assert torch.equal(layer.gate(hidden, Limits(0.5)).by_subject(), personal[:, None])
    assert layer.gate(hidden, Limits(0.5, within)).by_subject() is within


def test_places_bound_learned_routers_and_a_single_subject_needs_none():
    router, slots = PlaceRouter(), torch.tensor([[0, 1, 0, 0]])
    alone = call_info(slots=slots, subjects=subjects_of_rows(slots), count=1)
    shares = router.shares(alone)
    assert router.begin_call(alone) is None and shares.tolist() == [[[[1.0]]]]
    pair = torch.tensor([[0, 1, 0, 2]])
    both = call_info(slots=pair, subjects=subjects_of_rows(pair), count=2)
    assert router.begin_prior_call(both) is None and PlaceRouter(at_once=True).begin_prior_call(both) is not None
    router.update(both.rows[0], torch.rand(2, 8, 8), both.subjects[0], 1, first=False)
    shares = router.shares(both)
    assert router.begin_call(both) is not None and torch.equal(shares.sum(dim=1), torch.ones(1, 8, 8))
    assert not router.decides
