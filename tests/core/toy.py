"""A toy base model of two attention layers, to train an adapter on within seconds.

As a program it trains one: `python toy.py STATE LOG STEPS BATCH MICRO_BATCH`. It logs every loss to the last bit, shares
its steps with other processes when a launcher set them up, and may be killed at any moment.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "core")]

from routed import run  # noqa: E402
from routed import spec as layer_spec  # noqa: E402

from moa_attention import LayerSpec, MoAAdapter, MoAConfig  # noqa: E402
from moa_attention.adapters.vision import ImageEncoder  # noqa: E402
from moa_attention.method.attention import attend  # noqa: E402
from moa_attention.method.expert import Projections  # noqa: E402
from moa_attention.method.spec import EMBEDDED_ENCODER  # noqa: E402
from moa_attention.training.base import Batch, Record  # noqa: E402
from moa_attention.training.config import TrainConfig  # noqa: E402
from moa_attention.training.loop import train  # noqa: E402
from moa_attention.training.lots import Lot, lots  # noqa: E402
from moa_attention.training.workers import Alone, Workers  # noqa: E402

LAYERS = (layer_spec("middle_0_0_attn1", 0, 16, 16, 2, True), layer_spec("middle_0_0_attn2", 0, 16, 12, 2, True))
CONFIG = MoAConfig("toy", LAYERS, 12, EMBEDDED_ENCODER, 8)


class Attention(nn.Module):
    """A frozen attention layer of the toy base model."""

    def __init__(self, spec: LayerSpec):
        super().__init__()
        self.heads = spec.heads
        self.to_q = nn.Linear(spec.hidden, spec.hidden, bias=False)
        self.to_k = nn.Linear(spec.context, spec.hidden, bias=False)
        self.to_v = nn.Linear(spec.context, spec.hidden, bias=False)
        self.to_out = nn.Identity()

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return attend(self.to_q(z), self.to_k(c), self.to_v(c), self.heads)


class ToyBase(nn.Module):
    """A denoiser of two attention layers over 4-channel latents."""

    def __init__(self, adapter: MoAAdapter):
        super().__init__()
        torch.manual_seed(1)
        self.lift, self.drop = nn.Linear(4, 16), nn.Linear(16, 4)
        self.attentions = nn.ModuleDict({spec.name: Attention(spec) for spec in LAYERS})
        self.requires_grad_(False)
        self.adapter = [adapter]

    def sigma_at(self, share: Tensor) -> Tensor:
        return share + 0.5

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return latents + noise * sigma[:, None, None, None]

    def error_weight(self, sigma: Tensor) -> Tensor:
        return 1 / sigma

    def signal_to_noise(self, sigma: Tensor) -> Tensor:
        return 1 / sigma.square()

    def denoise(self, noisy: Tensor, sigma: Tensor, batch: Batch, features: Tensor, record: Record) -> Tensor:
        adapter, observe = self.adapter[0], record(sigma[0], torch.arange(len(noisy)))
        step = adapter.begin(batch.context, sigma * 100, batch.slots, features, None, torch.zeros(()))
        h, w = noisy.shape[-2:]
        z = self.lift(noisy.flatten(2).transpose(1, 2))
        for spec in LAYERS:
            prior = self.attentions[spec.name](z, batch.context if spec.is_cross else z)
            layer: Any = adapter.layers[spec.name]
            own = Projections.of(self.attentions[spec.name])
            context = step.context_for(spec, z, batch.context)
            z = z + run(layer, z, context, prior, own, (h, w), observe=observe)
        return self.drop(z).transpose(1, 2).unflatten(-1, (h, w))

    @torch.no_grad()
    def denoise_alone(self, noisy: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        z = self.lift(noisy.flatten(2).transpose(1, 2))
        for spec in LAYERS:
            z = z + self.attentions[spec.name](z, batch.context if spec.is_cross else z)
        return self.drop(z).transpose(1, 2).unflatten(-1, noisy.shape[-2:])


def setup() -> tuple[MoAAdapter, ToyBase]:
    torch.manual_seed(0)
    adapter = MoAAdapter(CONFIG)
    base = ToyBase(adapter)
    adapter.init_from(dict(base.attentions.items()))
    return adapter, base


def draw(lot: Lot) -> Batch:
    """Examples in turn of one and of two subjects."""
    masks = torch.zeros(len(lot.places), 2, 6, 4)
    slots = torch.zeros(len(lot.places), 5, dtype=torch.long)
    for i, place in enumerate(lot.places):
        masks[i, 0, 1:3, 1:3] = 1
        slots[i, 1 + place % 2] = 1
        if place % 2:
            masks[i, 1, 4:] = 1
            slots[i, 3] = 2

    def random(*shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in lot.generators])

    return Batch(
        random(4, 6, 4), random(5, 12), slots, random(2, 3, ImageEncoder.picture, ImageEncoder.picture).sigmoid(), masks
    )


def one_lot(seed: int = 0) -> Lot:
    return next(lots(0, config(1, seed=seed), Alone()))


def config(steps: int, **options: Any) -> TrainConfig:
    settings = {"batch_size": 2, "learning_rate": 1e-2, "precision": "float32", **options}
    return TrainConfig(steps=steps, **settings)


def ignore_log(_step: int, _numbers: dict[str, float], _averaged: MoAAdapter) -> None:
    pass


def stop_after(calls: int) -> Callable[[], bool]:
    results = iter([True] * calls + [False])
    return lambda: next(results)


def workers() -> Workers:
    """Several processes when a launcher started us, else this one alone."""
    if "WORLD_SIZE" not in os.environ:
        return Alone()
    from accelerate import Accelerator

    from recipes.adapter.workers import Accelerated

    return Accelerated(Accelerator(cpu=True))


def main(state: str, log: str, steps: str, batch: str, micro: str) -> None:
    """Train with a save at every step; one line of numbers for each."""
    torch.set_num_threads(1)
    adapter, base = setup()

    def write(step: int, numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")

    settings = config(int(steps), batch_size=int(batch), micro_batch=int(micro), warmup=2, save_every=1)
    train(adapter, base, draw, settings, Path(state), write, workers=workers())


if __name__ == "__main__":
    main(*sys.argv[1:])
