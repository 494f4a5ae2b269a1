"""Trains MoA Mini's adapter: the base stays frozen, the trainer is the one of `moa_attention.training`."""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Generator, Tensor

from ...moa_attention.adapter import MoAAdapter
from ...moa_attention.checkpoint import load_adapter, save_adapter
from ...moa_attention.config import EMBEDDED_ENCODER
from ...moa_attention.training.base import Batch
from ...moa_attention.training.config import TrainConfig
from ...moa_attention.training.loop import train
from ...moa_attention.training.lots import Lot
from ...nodes.layers import fresh_adapter
from ...nodes.mini import load_mini
from ...nodes.patch import host_patcher
from ...nodes.text import find_word, position_stream, word_tokens
from ...nodes.training import HostBase, training_mode
from .dataset import MASK_SIZE, load
from .encoder import FILE as ENCODER
from .encoder import IMAGE_WIDTH
from .faces import VARIANTS, WEIGHTS, WORK, load_cutouts
from .references import draw_references
from .scenes import SCENES
from .session import DEVICE

NOUNS = ("man", "woman")
SUBJECTS = 2
APPEAR_RATE = 0.9
"""How often a person of a picture is given as a subject (FastComposer's rate); at least one always is."""
CONFIG = TrainConfig(
    steps=9000,
    batch_size=16,
    learning_rate=1e-3,
    schedule="cosine",
    warmup=100,
    ema_decay=0.998,
    noisiness=2,
    # Ordinary CPUs emulate bfloat16, an order of magnitude slower than they compute in float32.
    precision="float32" if DEVICE.type == "cpu" else "bfloat16",
    # Ten times the paper's: its sum runs over 64 × 64 latent pixels, ours over 16 × 16.
    router_weight=3e-3,
    router_foreground=0.3,
    object_weight=1e-2,
)


def load_base():
    """MoA Mini's model and text encoder, laid out for training."""
    model, clip, _ = load_mini(WEIGHTS)
    model.model.diffusion_model.to(memory_format=torch.channels_last)  # CPUs train a tenth faster so
    return model, clip


def new_adapter(model) -> MoAAdapter:
    """An adapter for MoA Mini's U-Net, experts copied from it and the encoder from its schooling."""
    adapter = fresh_adapter(model, EMBEDDED_ENCODER, IMAGE_WIDTH)
    assert adapter.encoder is not None
    adapter.encoder.load_state_dict(load_file(ENCODER))
    return adapter


class Prompts:
    """Every caption of the training set, encoded once, and the tokens of its people from left to right."""

    def __init__(self, clip, captions: np.ndarray):
        distinct, self.row = np.unique(captions, return_inverse=True)
        tokens = [clip.tokenize(caption) for caption in distinct.tolist()]
        words = [word_tokens(clip, noun) for noun in NOUNS]
        with torch.no_grad():
            self.context = torch.cat([clip.encode_from_tokens(t).float() for t in tokens]).clone()
        self.places = torch.full((len(distinct), SUBJECTS), -1)
        for i, t in enumerate(tokens):
            found = sorted(place for word in words for place in find_word(position_stream(t), word))
            self.places[i, : len(found)] = torch.tensor(found)

    def slots(self, rows: Tensor, present: Tensor) -> Tensor:
        """(B,M) int64 for captions `rows` (B,) and given subjects `present` (B,S) bool."""
        slots = torch.zeros(len(rows), self.context.shape[1], dtype=torch.long)
        for s in range(SUBJECTS):
            places = self.places[rows, s].clamp(min=0)[:, None]
            slots.scatter_add_(1, places, (present[:, s].long() * (s + 1))[:, None])
        return slots


class Examples:
    """Batches: pictures with references that show the same people in other drawings.

    Args: places: where the pictures may be taken.
    """

    def __init__(self, clip, side: int, split: str = "train", places: Sequence[str] = tuple(SCENES)):
        shard = load(split)
        self.records, self.masks, self.side = shard.records, shard.masks, side
        self.latents = np.load(WORK / f"{split}_latents.npy", mmap_mode="r")
        self.rows = np.flatnonzero(np.isin(shard.records["scene"], [list(SCENES).index(place) for place in places]))
        self.prompts = Prompts(clip, shard.records["caption"])
        self.cutouts = load_cutouts()

    def __call__(self, lot: Lot) -> Batch:
        chosen, present, references = zip(*map(self.draw, lot.generators), strict=True)
        given = torch.stack(present)
        masks = torch.from_numpy(self.masks[list(chosen)]).float() / 255
        masks = torch.nn.functional.avg_pool2d(masks, MASK_SIZE // self.latents.shape[-1]) * given[..., None, None]
        rows = torch.from_numpy(self.prompts.row)[list(chosen)]
        return Batch(
            latents=torch.from_numpy(self.latents[list(chosen)]).float().to(DEVICE),
            context=self.prompts.context[rows].to(DEVICE),
            slots=self.prompts.slots(rows, given).to(DEVICE),
            references=torch.stack(references).to(DEVICE),
            masks=masks.to(DEVICE),
        )

    def draw(self, generator: Generator) -> tuple[int, Tensor, Tensor]:
        """A picture, which of its people are given as subjects (S,), and their references (S,3,side,side)."""
        index = int(self.rows[int(torch.randint(len(self.rows), (), generator=generator))])
        drawing = torch.from_numpy(self.records["drawing"][index].astype(np.int64))  # (S,), -1 nobody
        present = (drawing >= 0) & (torch.rand(drawing.shape, generator=generator) < APPEAR_RATE)
        present[0] |= ~present.any()
        other = (drawing % VARIANTS + torch.randint(1, VARIANTS, drawing.shape, generator=generator)) % VARIANTS
        shown = drawing.clamp(min=0) // VARIANTS * VARIANTS + other
        return index, present, draw_references(self.cutouts[shown.numpy()], self.side, generator)


def main(argv: list[str]) -> None:
    """Train, or go on training, and export the averaged adapter to `weights/mini`."""
    parser = argparse.ArgumentParser(prog="mini.adapter", description=__doc__)
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--shipped", action="store_true", help="begin with the adapter that is shipped")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long; the next call goes on")
    options = parser.parse_args(argv)
    config = replace(CONFIG, steps=options.steps)

    torch.manual_seed(config.seed)
    model, clip = load_base()
    shipped = WEIGHTS / "adapter.safetensors"
    adapter = load_adapter(shipped).float() if options.shipped else new_adapter(model)
    started, path = time.time(), WORK / "adapter.jsonl"

    def log(step: int, numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        rounded = {name: round(value, 5) for name, value in numbers.items()}
        with path.open("a") as file:
            file.write(json.dumps({"step": step, "minutes": round((time.time() - started) / 60, 2), **rounded}) + "\n")

    def in_time() -> bool:
        return time.time() - started < options.minutes * 60

    assert adapter.encoder is not None
    examples = Examples(clip, adapter.encoder.picture)
    with training_mode(model, config):
        base = HostBase(model, host_patcher(adapter.to(DEVICE)))
        trained = train(adapter, base, examples, config, WORK / "adapter_state.safetensors", log, in_time)
    provenance = {"data": "MoA Mini's own renders, training identities only", "config": vars(config)}
    save_adapter(trained, shipped, licence="GPL-3.0-or-later", provenance=provenance, dtype=torch.float16)
