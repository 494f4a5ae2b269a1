"""Captions of different lengths in one batch: a real step has the losses of its pictures one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pictures
import pytest
import subjects  # noqa: F401  (imports the pack)
import torch
from comfyui_moa.moa_attention.training.config import PictureConfig, TrainConfig
from comfyui_moa.moa_attention.training.data.examples import UNCONDITIONAL, CachedExamples, Example
from comfyui_moa.moa_attention.training.data.folder import read_pictures
from comfyui_moa.moa_attention.training.lots import generator_for
from comfyui_moa.moa_attention.training.objective import Objective
from comfyui_moa.nodes.host.files.mini_files import load_mini
from comfyui_moa.nodes.host.model.patch import host_patcher
from comfyui_moa.nodes.host.training.data import cached_examples, encode_pictures
from comfyui_moa.nodes.host.training.encoders import HostEncoders
from comfyui_moa.nodes.host.training.trainable import trainable_adapter
from comfyui_moa.nodes.host.training.trainer import HostBase, training_mode

ROOT = Path(__file__).resolve().parents[2]
LONG = "a woman in the snow, " + "with many small trees and a grey sky behind her, " * 8 + "and a man"
"""Two chunks of 75 tokens; the second subject's word is in the second chunk."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HostEncoders, CachedExamples, Objective]]:
    """A folder with a short and a long caption, its examples, and the objective of a small adapter on MoA Mini."""
    folder = pictures.kohya(tmp_path_factory.mktemp("captions") / "boxes", 2)
    (folder / "00000001.txt").write_text(LONG)
    encoders = HostEncoders(*load_mini(ROOT / "weights" / "mini"))
    config = TrainConfig(steps=1, batch_size=3, appearance=1.0, uncondition=0.0, precision="float32")
    adapter = trainable_adapter(encoders.model, encoders, "", None, 0, rank=4)
    data = PictureConfig(side=128)
    cached = encode_pictures(read_pictures(folder), adapter, encoders, data, folder / "cache", lambda *_: None)
    examples = cached_examples(cached, adapter, encoders, data, config)
    with training_mode(encoders.model, config):
        yield encoders, examples, Objective(adapter, HostBase(encoders.model, host_patcher(adapter)), config)


def drawn(examples: CachedExamples, encoders: HostEncoders) -> list[Example]:
    """A short caption, a long one, and a long one whose condition is dropped."""
    short, long = sorted((examples.draw(e, generator_for(0)) for e in examples.entries), key=lambda e: len(e.context))
    empty = encoders.text("", [])
    slots = torch.zeros(len(empty.context), dtype=torch.long)
    slots[0] = UNCONDITIONAL
    return [short, long, long._replace(context=empty.context, slots=slots)]


def test_a_batch_of_captions_of_different_lengths_has_the_losses_of_its_pictures(run):
    encoders, examples, objective = run
    cases = drawn(examples, encoders)
    assert [len(e.context) for e in cases] == [77, 154, 77]
    assert cases[1].slots.nonzero().max() > 77, "the second word lies in the second chunk"
    together = examples.stack(cases)
    assert together.context.shape[1] == 154 and together.slots.shape == (3, 154)
    loss, parts = objective(together, [generator_for(n) for n in range(3)])
    loss.backward()
    assert float(parts["object"]) != 0
    alone = [objective(examples.stack([e]), [generator_for(n)])[1] for n, e in enumerate(cases)]
    for name, value in parts.items():
        assert float(value) == pytest.approx(sum(float(p[name]) for p in alone) / 3, rel=1e-3, abs=1e-6), name
    gradients = [p.grad for p in objective.adapter.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
