"""The paper's claims on MoA Mini: every row trained with the same budget and measured on the same cases.

`recipes/run.py mini.evidence.run` trains and measures the missing rows and adds each to `docs/evidence.json`; stopped or
killed, it resumes. `--share 0/2` and `--share 1/2` divide the work between two processes.
"""

import argparse
import json
import time
from dataclasses import replace

import torch

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.formats.adapter import load_adapter
from ....moa_attention.formats.atomic import replacing
from ....moa_attention.method.spec import EMBEDDED_ENCODER
from ....nodes.host.model.layers import fresh_adapter
from ....nodes.host.training.trainer import TrainingSession
from ..data.faces import ROOT, WEIGHTS, WORK
from ..model.adapter import CONFIG, Examples, load_base
from .ablations import ABLATIONS, Ablation
from .measure import CASES, Measures

STEPS, BATCH = 1500, 16
ROWS = ROOT / "docs" / "evidence.json"


def train_ablation(ablation: Ablation, seed: int) -> MoAAdapter:
    """From a fresh adapter with the shipped image encoder, the same number of steps for all."""
    config = replace(CONFIG, steps=STEPS, batch_size=BATCH, seed=seed, **ablation.train)
    model, clip = load_base()
    shipped = load_adapter(WEIGHTS / "adapter.safetensors").float()
    torch.manual_seed(seed)
    adapter = fresh_adapter(model, EMBEDDED_ENCODER, shipped.config.image_width, **ablation.adapter)
    assert adapter.encoder is not None and shipped.encoder is not None
    adapter.encoder.load_state_dict(shipped.encoder.state_dict())
    ablation.alter(adapter)
    name = "".join(c if c.isalnum() else "_" for c in ablation.name)
    state, started = WORK / f"evidence_{name}_{seed}.safetensors", time.time()

    def log(step: int, numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        if step % 100 == 0:
            spent, loss = (time.time() - started) / 60, numbers["reconstruction"]
            print(f"{ablation.name}, seed {seed}: step {step}, {spent:.1f} min, {loss:.4f}", flush=True)

    examples = Examples(clip, adapter.encoder.picture, places=ablation.scenes)
    return TrainingSession(model, adapter, config, state, log, prior_bias=ablation.prior_bias).run(examples)


def queue() -> list[tuple[Ablation, int]]:
    """Every training, one of every row before the second of any."""
    return [(a, seed) for seed in range(max(a.seeds for a in ABLATIONS)) for a in ABLATIONS if seed < a.seeds]


def read_rows() -> list[dict]:
    """The rows measured so far."""
    return json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.is_file() else []


def add_row(row: dict) -> None:
    """To those that are there now: another process may have added its own."""
    with replacing(ROWS) as part:
        part.write_text(json.dumps([*read_rows(), row], indent=1) + "\n", encoding="utf-8")
    print(json.dumps(row), flush=True)


def measure_missing(chosen: list[tuple[Ablation, int]]) -> None:
    """Train and measure those without a row."""
    for ablation, seed in chosen:
        known = {(row["variant"], row["seed"]) for row in read_rows()}
        if (ablation.name, seed) in known:
            continue
        adapter = train_ablation(ablation, seed)
        row = {"variant": ablation.name, "seed": seed, "steps": STEPS, "cases": CASES}
        row |= {"trained": sum(p.numel() for p in adapter.parameters())}
        with torch.no_grad():
            add_row(row | Measures(adapter).row(ablation))


def main(argv: list[str]) -> None:
    """Train and measure what is missing."""
    parser = argparse.ArgumentParser(prog="evidence", description=__doc__)
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--share", default="0/1", help="number of this process / number of all processes, such as 0/2")
    options = parser.parse_args(argv)
    part, parts = map(int, options.share.split("/"))
    measure_missing([each for each in queue() if options.only in each[0].name][part::parts])
