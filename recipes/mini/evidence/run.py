"""The paper's claims on MoA Mini: every ablation trained with the same budget and measured on the same cases.

`recipes/run.py mini.evidence.run` trains and measures the missing ablations and adds a row of each to `docs/evidence.json`;
stopped or killed, it resumes, and `--share 0/2` and `--share 1/2` divide the work between two processes. Everything is measured as
trained: strength 1, from the first step on. `--in-use` measures the main ablations with the example workflow's settings.
"""

import argparse
import json
import time
from dataclasses import replace

import torch
from tabulate import tabulate

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.formats.adapter import load_adapter
from ....moa_attention.method.spec import EMBEDDED_ENCODER
from ....nodes.host.model.layers import fresh_adapter
from ....nodes.host.training.trainer import TrainingSession
from ..data.faces import ROOT, WEIGHTS, WORK
from ..model.adapter import CONFIG, Examples, load_base
from .ablations import ABLATIONS, Ablation
from .measure import CASES, IN_USE, measure_as_trained, measure_in_use

STEPS = 1500
ROWS = ROOT / "docs" / "evidence.json"


def train_ablation(ablation: Ablation, seed: int) -> MoAAdapter:
    """From a fresh adapter with the shipped image encoder, the same number of steps for all."""
    config = replace(CONFIG, steps=STEPS, seed=seed, **ablation.train)
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


def read_rows() -> list[dict]:
    """The rows measured so far."""
    return json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.is_file() else []


def measure_missing(only: str, part: int, parts: int) -> None:
    """Train and measure the ablations without a row; one seed of every ablation before the second of any."""
    queue = [(seed, a) for seed in range(max(a.seeds for a in ABLATIONS)) for a in ABLATIONS if seed < a.seeds]
    for seed, ablation in queue[part::parts]:
        known = {(row["variant"], row["seed"]) for row in read_rows()}
        if (ablation.name, seed) in known or only not in ablation.name:
            continue
        adapter = train_ablation(ablation, seed)
        row = {"variant": ablation.name, "seed": seed, "steps": STEPS, "cases": CASES}
        row |= {"trained": sum(p.numel() for p in adapter.parameters())}
        with torch.no_grad():
            row |= measure_as_trained(adapter, ablation.prior_bias)
        ROWS.write_text(json.dumps([*read_rows(), row], indent=1) + "\n", encoding="utf-8")
        print(json.dumps(row), flush=True)


def main(argv: list[str]) -> None:
    """Train and measure the missing ablations, or print those in use."""
    parser = argparse.ArgumentParser(prog="evidence", description=__doc__)
    parser.add_argument("--only", default="", help="only ablations whose name contains this")
    parser.add_argument("--share", default="0/1", help="number of this process / number of all processes, such as 0/2")
    parser.add_argument(
        "--in-use",
        nargs="*",
        metavar="NAME",
        help="measure with the example workflow's settings; without a NAME, the main ablations",
    )
    options = parser.parse_args(argv)
    if options.in_use is None:
        measure_missing(options.only, *map(int, options.share.split("/")))
        return
    with torch.no_grad():
        rows = list(measure_in_use(train_ablation, options.in_use or IN_USE))
    print(tabulate(rows, headers="keys", tablefmt="github"))
