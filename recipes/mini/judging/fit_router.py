"""New routers for MoA Mini's frozen experts, beside the attention router: `python recipes/run.py mini.judging.fit_router`.

What `train.only_routers` does for an imported expert, on data with known masks. The shipped adapter's own routers are
dropped; a few hundred steps fit new ones, and the cases of `mini.judging.routers` measure them.
"""

import argparse
from dataclasses import replace

import torch

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.formats.routers import routers_of
from ....nodes.host.files.adapters import load_adapter_patcher
from ....nodes.host.files.mini_files import load_mini
from ....nodes.host.training.trainable import with_neutral_routers
from ....nodes.host.training.trainer import TrainingSession
from ..data.faces import WEIGHTS, WORK
from ..model.adapter import CONFIG, Examples
from .evaluation_set import prepare
from .pipeline import START, STRENGTH, MiniPipeline
from .routers import RouterSetting, measure_router
from .tables import print_table

STEPS, RATE = 300, 1e-2


def fit_routers(steps: int) -> MoAAdapter:
    """The shipped experts with new routers."""
    config = replace(CONFIG, steps=steps, learning_rate=RATE, warmup=20, ema_decay=0.98, only_routers=True)
    model, clip, _ = load_mini(WEIGHTS)
    adapter = with_neutral_routers(load_adapter_patcher(WEIGHTS / "adapter.safetensors").model, "linear")
    assert adapter.encoder is not None
    examples = Examples(clip, adapter.encoder.picture)

    def log(step: int, numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        if step % 25 == 0:
            print({"step": step, **{name: round(value, 4) for name, value in numbers.items()}}, flush=True)

    return TrainingSession(model, adapter, config, WORK / f"fit_router_{steps}.safetensors", log).run(examples)


def main(argv: list[str]) -> None:
    """Fit, then print a row for each strength."""
    parser = argparse.ArgumentParser(prog="fit_router", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cases", type=int, default=100, help="pictures of one person")
    parser.add_argument("--pairs", type=int, default=100, help="pictures of two people")
    options = parser.parse_args(argv)
    fitted = fit_routers(options.steps)
    print(f"{sum(p.numel() for r in routers_of(fitted) for p in r.parameters())} numbers in the routers\n")
    with torch.no_grad():
        pipeline = MiniPipeline(fitted)
        chosen = prepare(pipeline, options.cases, options.pairs)
        settings = [RouterSetting("fitted", lambda: None, strength, START) for strength in (STRENGTH, 1.0)]
        print_table(measure_router(chosen, pipeline, setting) for setting in settings)
