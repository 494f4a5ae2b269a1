"""Routers fitted to experts that stay as they are, and the small file they are kept in."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import ip_files
import pytest
import torch
from safetensors.torch import save_file
from toy import config, draw, setup

from moa_attention.config import LayerSpec
from moa_attention.files import StoredFileError
from moa_attention.fitted import (
    expert_name,
    load_routers,
    put_on,
    routers_of,
    save_routers,
)
from moa_attention.image_prompt import ImagePromptAdapter
from moa_attention.importers.ip_adapter import flatten, import_ip_adapter
from moa_attention.projection import Place
from moa_attention.router import Router
from moa_attention.training.loop import train
from moa_attention.tuned import TunedLayer
from moa_attention.untrained import reading
from moa_attention.word_router import PlaceRouter


def quiet(_step: int, _numbers: dict[str, float], _averaged: Any) -> None:
    pass


def imported(seed: int = 0) -> ImagePromptAdapter:
    torch.manual_seed(seed)
    file = ip_files.nested("faceid", [32] * 16, 0, 48, rank=2, make=lambda *shape: torch.randn(shape))
    return import_ip_adapter(flatten(file))[0]


def test_only_the_routers_learn(tmp_path: Path):
    adapter, base = setup()
    put_on(adapter, "linear")
    before = copy.deepcopy(adapter.state_dict())
    losses: list[float] = []
    settings = config(
        30, only_routers=True, learning_rate=3e-2, ema_decay=0.0, router_weight=1e-2, router_foreground=1.0
    )
    train(
        adapter, base, draw, settings, tmp_path / "state", lambda _step, numbers, _a: losses.append(numbers["router"])
    )
    for name, tensor in adapter.state_dict().items():
        assert torch.equal(tensor, before[name]) == (".router." not in name), name
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def test_a_run_for_routers_goes_on_where_it_was(tmp_path: Path):
    def run(steps: int, state: str) -> dict[str, torch.Tensor]:
        adapter, base = setup()
        train(adapter, base, draw, config(steps, only_routers=True, save_every=1), tmp_path / state, quiet)
        return adapter.state_dict()

    run(2, "broken")
    once, again = run(4, "whole"), run(4, "broken")
    assert all(torch.equal(once[name], again[name]) for name in once)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_routers_travel_alone_and_fit_their_expert_only(tmp_path: Path, kind: Any):
    adapter, path = imported(), tmp_path / "r.safetensors"
    name = expert_name(adapter)
    put_on(adapter, kind)
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
    for name, message in (("other", "wanted moa-routers 1, found moa-adapter None"), ("torn", "cannot be read")):
        with pytest.raises(StoredFileError, match=message):
            load_routers(imported(), tmp_path / f"{name}.safetensors")


def test_a_learned_share_stays_where_each_may_speak():
    torch.manual_seed(0)
    layer = TunedLayer(LayerSpec("middle_0_0_attn1", 0, 8, 8, 2, True), 2, Place())
    hidden, within = torch.randn(2, 6, 8), torch.rand(2, 3, 6)
    with pytest.raises(ValueError, match="middle_0_0_attn1 has no router of its own"):
        layer.decide(hidden, 0.0, None, within)
    layer.router = Router(8)
    personal = layer.router(hidden, 0.5)
    torch.testing.assert_close(layer.decide(hidden, 0.5, None, within).each(), within * personal[:, None])
    assert torch.equal(layer.decide(hidden, 0.5).each(), personal[:, None])
    assert layer.decide(hidden, 0.5, within).each() is within


def test_places_bound_learned_routers_and_a_single_subject_needs_none():
    router, slots = PlaceRouter(), torch.tensor([[0, 1, 0, 0]])
    shares, watch = router.open({"a": reading(slots)[0]}, slots, 1)
    assert watch is None and shares.tolist() == [[[[1.0]]]]
    pair = torch.tensor([[0, 1, 0, 2]])
    router.learn("a", torch.rand(2, 8, 8), reading(pair)[0])
    shares, watch = router.open({"a": reading(pair)[0]}, pair, 2)
    assert watch is not None and torch.equal(shares.sum(dim=1), torch.ones(1, 8, 8))
    assert not router.decides
