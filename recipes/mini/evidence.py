"""The paper's claims on MoA Mini: every variant trained with the same budget and measured on the same cases.

`recipes/run.py mini.evidence` works through what is missing and adds a row to `docs/evidence.json` as each ends; stopped
or killed it goes on, and `--share 0/2` and `--share 1/2` divide the work between two processes. Everything is measured as
trained: strength 1, from the first step on.
"""

import argparse
import json
import time
from dataclasses import replace

import torch
from safetensors.torch import load_file
from torch import Tensor

from ...moa_attention.adapter import MoAAdapter
from ...moa_attention.checkpoint import load_adapter
from ...moa_attention.config import EMBEDDED_ENCODER
from ...moa_attention.files import write_tensors
from ...moa_attention.training.loop import train
from ...nodes.layers import fresh_adapter
from ...nodes.patch import host_patcher
from ...nodes.training import HostBase, training_mode
from .ablations import VARIANTS, Variant
from .adapter import CONFIG, Examples, load_base
from .cases import double_cases, orders, paint_all, single_cases
from .denoising import denoising_errors
from .faces import ROOT, WEIGHTS, WORK
from .jury import Jury
from .session import DEVICE
from .studio import Order, Studio

STEPS, CASES = 1500, 100
ROWS = ROOT / "docs" / "evidence.json"


def train_variant(variant: Variant, seed: int) -> MoAAdapter:
    """From a fresh adapter with the shipped image encoder, the same number of steps for all."""
    config = replace(CONFIG, steps=STEPS, seed=seed, **variant.train)
    model, clip = load_base()
    shipped = load_adapter(WEIGHTS / "adapter.safetensors").float()
    torch.manual_seed(seed)
    adapter = fresh_adapter(model, EMBEDDED_ENCODER, shipped.config.image_width, **variant.adapter)
    assert adapter.encoder is not None and shipped.encoder is not None
    adapter.encoder.load_state_dict(shipped.encoder.state_dict())
    variant.alter(adapter)
    name = "".join(c if c.isalnum() else "_" for c in variant.name)
    state, started = WORK / f"evidence_{name}_{seed}.safetensors", time.time()

    def log(step: int, numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        if step % 100 == 0:
            spent, loss = (time.time() - started) / 60, numbers["reconstruction"]
            print(f"{variant.name}, seed {seed}: step {step}, {spent:.1f} min, {loss:.4f}", flush=True)

    examples = Examples(clip, adapter.encoder.picture, places=variant.places)
    with training_mode(model, config):
        base = HostBase(model, host_patcher(adapter.to(DEVICE)), variant.prior_bias)
        return train(adapter, base, examples, config, state, log)


@torch.no_grad()
def alone(studio: Studio, jury: Jury, prior_bias: float, start: float) -> dict[str, float]:
    """Identity, place, background and router of pictures of one person of the test split."""
    cases = single_cases(jury.line_up, CASES)
    wanted = orders(studio, jury.people, cases)
    ours, routes = paint_all(studio, wanted, prior_bias, start)
    assert routes is not None
    within, without = jury.router_split(ours, routes)
    return {
        "identity": jury.identity(ours, cases),
        "scene": jury.place(ours, cases),
        "background": jury.background_change(ours, prior_pictures(studio, wanted)),
        "router_inside": within,
        "prior_outside": 1 - without,
    }


@torch.no_grad()
def measure(adapter: MoAAdapter, prior_bias: float) -> dict[str, float]:
    """What a row tells of an adapter: one person, two people, and the errors of the predicted noise."""
    studio, jury = Studio(adapter), Jury()
    doubles = double_cases(jury.line_up, CASES // 2)
    both, _ = paint_all(studio, orders(studio, jury.people, doubles), prior_bias, 0.0)
    return {
        **alone(studio, jury, prior_bias, 0.0),
        "two_people": jury.identity(both, doubles),
        **denoising_errors(adapter, prior_bias),
    }


def prior_pictures(studio: Studio, wanted: list[Order]) -> Tensor:
    """What the base model paints: the same for every row, so painted once."""
    kept = WORK / "evidence_prior.safetensors"
    if not kept.is_file():
        write_tensors({"pictures": paint_all(studio, wanted, None)[0]}, kept, {})
    return load_file(kept)["pictures"]


def read_rows() -> list[dict]:
    return json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.is_file() else []


def main(argv: list[str]) -> None:
    """Train and measure what has no row yet; one seed of every variant before the second of any."""
    parser = argparse.ArgumentParser(prog="evidence", description=__doc__)
    parser.add_argument("--only", help="a part of a variant's name")
    parser.add_argument("--share", default="0/1", help="which of how many processes this is")
    options = parser.parse_args(argv)
    part, parts = map(int, options.share.split("/"))
    queue = [(seed, v) for seed in range(max(v.seeds for v in VARIANTS)) for v in VARIANTS if seed < v.seeds]
    for seed, variant in queue[part::parts]:
        known = {(row["variant"], row["seed"]) for row in read_rows()}
        if (variant.name, seed) in known or (options.only and options.only not in variant.name):
            continue
        adapter = train_variant(variant, seed)
        row = {"variant": variant.name, "seed": seed, "steps": STEPS, "cases": CASES}
        row |= {"trained": sum(p.numel() for p in adapter.parameters()), **measure(adapter, variant.prior_bias)}
        ROWS.write_text(json.dumps([*read_rows(), row], indent=1) + "\n", encoding="utf-8")
        print(json.dumps(row), flush=True)
