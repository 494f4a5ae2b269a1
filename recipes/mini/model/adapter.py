"""Train MoA Mini's adapter, with the trainer of `moa_attention.training`.

Two processes on a CPU: `ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 recipes/run.py mini.model.adapter`.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Generator, Tensor

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.formats.adapter import load_adapter, save_adapter
from ....moa_attention.method.losses import ROUTER_PIXELS
from ....moa_attention.method.spec import EMBEDDED_ENCODER
from ....moa_attention.training.base import Batch
from ....moa_attention.training.config import TrainConfig
from ....moa_attention.training.lots import Lot
from ....moa_attention.training.saved.log import RunLog
from ....nodes.host.files.mini_files import load_mini
from ....nodes.host.model.layers import fresh_adapter
from ....nodes.host.prompts.prompt_words import Prompt, word_tokens
from ....nodes.host.training.trainer import TrainingSession
from ...adapter.workers import Accelerated
from ..data.dataset import MASK_SIZE, load
from ..data.faces import WEIGHTS, WORK, load_cutouts
from ..data.references import draw_references, other_drawings
from ..data.scenes import SCENES
from ..judging.pipeline import GUIDANCE, START, STRENGTH
from .encoder import FILE as ENCODER
from .encoder import IMAGE_WIDTH
from .session import DEVICE

NOUNS = ("man", "woman")
SUBJECTS = 2
PAIR_RATE = 0.75
"""Of pictures with two people, where a subject must be bound to its own word."""
APPEAR_RATE = 0.9
"""Probability that a person of a picture is a subject (FastComposer's); each picture keeps at least one."""
SUM = 16 * 16 / ROUTER_PIXELS
"""From a weight of the sum over our 16 × 16 latent pixels to one of the router loss."""
CONFIG = TrainConfig(
    steps=19_000,
    batch_size=32,
    learning_rate=1e-3,
    schedule="cosine",
    warmup=100,
    ema_decay=0.998,
    noisiness=2,
    router_weight=3e-3 * SUM,
    router_foreground=0.3,
    object_weight=1e-2,
    object_layers="all",
    consistency_weight=1.0,
)


def load_base():
    """MoA Mini's model and text encoder."""
    model, clip, _ = load_mini(WEIGHTS)
    return model, clip


def new_adapter(model) -> MoAAdapter:
    """An adapter for MoA Mini's U-Net, with experts copied from it and the pretrained image encoder."""
    adapter = fresh_adapter(model, EMBEDDED_ENCODER, IMAGE_WIDTH)
    assert adapter.encoder is not None
    adapter.encoder.load_state_dict(load_file(ENCODER))
    return adapter


class EncodedCaptions:
    """Every caption of the training set, encoded once, and the token positions of its people from left to right."""

    def __init__(self, clip, captions: np.ndarray):
        distinct, self.row = np.unique(captions, return_inverse=True)
        tokens = [clip.tokenize(caption) for caption in distinct.tolist()]
        words = [word_tokens(clip, noun) for noun in NOUNS]
        with torch.no_grad():
            self.context = torch.cat([clip.encode_from_tokens(t).float() for t in tokens]).clone()
        self.positions = torch.full((len(distinct), SUBJECTS), -1)
        for i, t in enumerate(tokens):
            found = sorted(position for word in words for position in Prompt(clip, t).find(word))
            self.positions[i, : len(found)] = torch.tensor(found)

    def slots(self, rows: Tensor, present: Tensor) -> Tensor:
        """(B,M) int64 for captions `rows` (B,) and subjects `present` (B,S) bool."""
        slots = torch.zeros(len(rows), self.context.shape[1], dtype=torch.long)
        for s in range(SUBJECTS):
            positions = self.positions[rows, s].clamp(min=0)[:, None]
            slots.scatter_add_(1, positions, (present[:, s].long() * (s + 1))[:, None])
        return slots


class Examples:
    """Batches: pictures with references that show the same people in other drawings.

    Args: places: the scenes of the pictures.
    """

    def __init__(self, clip, side: int, split: str = "train", places: Sequence[str] = tuple(SCENES)):
        shard = load(split)
        self.records, self.masks, self.side = shard.records, shard.masks, side
        self.latents = np.load(WORK / f"{split}_latents.npy", mmap_mode="r")
        shown = np.isin(shard.records["scene"], [list(SCENES).index(place) for place in places])
        self.alone, self.pairs = (np.flatnonzero(shown & (shard.records["people"] == people)) for people in (1, 2))
        self.prompts = EncodedCaptions(clip, shard.records["caption"])
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
        """A picture, which of its people are subjects (S,), and their references (S,3,side,side)."""
        rows = self.pairs if torch.rand((), generator=generator) < PAIR_RATE else self.alone
        index = int(rows[int(torch.randint(len(rows), (), generator=generator))])
        drawing = torch.from_numpy(self.records["drawing"][index].astype(np.int64))  # (S,), -1 for no person
        present = (drawing >= 0) & (torch.rand(drawing.shape, generator=generator) < APPEAR_RATE)
        present[0] |= ~present.any()
        shown = other_drawings(drawing, generator)
        return index, present, draw_references(self.cutouts[shown.numpy()], self.side, generator)


def main(argv: list[str]) -> None:
    """Train, or resume, and export the averaged adapter to `weights/mini`."""
    parser = argparse.ArgumentParser(prog="mini.model.adapter", description=__doc__)
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--shipped", action="store_true", help="start from the shipped adapter")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time; the next call resumes")
    options = parser.parse_args(argv)
    config, workers = replace(CONFIG, steps=options.steps), Accelerated(Accelerator())

    torch.manual_seed(config.seed)
    model, clip = load_base()
    shipped = WEIGHTS / "adapter.safetensors"
    adapter = load_adapter(shipped).float() if options.shipped else new_adapter(model)
    started, rows = time.time(), RunLog(WORK / "adapter.jsonl", digits=5)

    def log(step: int, numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        rows.step(step, {"minutes": round((time.time() - started) / 60, 2), **numbers})

    def in_time() -> bool:
        return time.time() - started < options.minutes * 60

    assert adapter.encoder is not None
    examples = Examples(clip, adapter.encoder.picture)
    session = TrainingSession(model, adapter, config, WORK / "adapter_state.safetensors", log, in_time, workers)
    trained = session.run(examples)
    if workers.rank:
        return
    recommended = {"strength": STRENGTH, "start_percent": START, "guidance": GUIDANCE}
    provenance = {
        "data": "MoA Mini's own renders, training identities only",
        "recommended": recommended,
        "config": vars(config),
    }
    save_adapter(trained, shipped, licence="GPL-3.0-or-later", provenance=provenance, dtype=torch.float16)
