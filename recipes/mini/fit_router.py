"""New routers for MoA Mini's frozen experts, beside the attention router: `python recipes/run.py mini.fit_router`.

What `train.only_routers` does for an imported expert, where the truth is known. The shipped adapter's own routers are
thrown away; a few hundred steps fit new ones, and `mini.routers`' cases measure them.
"""

import argparse
from dataclasses import replace

import torch

from ...moa_attention.fitted import Expert, routers_of
from ...moa_attention.training.loop import train
from ...nodes.adapter_files import load_adapter_patcher
from ...nodes.mini import load_mini
from ...nodes.patch import host_patcher
from ...nodes.training import HostBase, training_mode, with_neutral_routers
from .adapter import CONFIG, Examples
from .faces import WEIGHTS, WORK
from .routers import Way, row, set_up
from .session import DEVICE
from .studio import START, STRENGTH, Studio

STEPS, RATE = 300, 1e-2


def fit(steps: int) -> Expert:
    """The shipped experts with new routers."""
    config = replace(CONFIG, steps=steps, learning_rate=RATE, warmup=20, ema_decay=0.98, only_routers=True)
    model, clip, _ = load_mini(WEIGHTS)
    adapter = with_neutral_routers(load_adapter_patcher(WEIGHTS / "adapter.safetensors").model, "linear")
    assert adapter.encoder is not None
    examples = Examples(clip, adapter.encoder.picture)

    def log(step: int, numbers: dict[str, float], _averaged: Expert) -> None:
        if step % 25 == 0:
            print({"step": step, **{name: round(value, 4) for name, value in numbers.items()}}, flush=True)

    with training_mode(model, config):
        base = HostBase(model, host_patcher(adapter.to(DEVICE)))
        return train(adapter, base, examples, config, WORK / f"fit_router_{steps}.safetensors", log)


def main(argv: list[str]) -> None:
    """Fit, then print a row for each strength."""
    parser = argparse.ArgumentParser(prog="fit_router", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cases", type=int, default=100, help="pictures of one person")
    parser.add_argument("--pairs", type=int, default=100, help="pictures of two")
    options = parser.parse_args(argv)
    fitted = fit(options.steps)
    print(f"{sum(p.numel() for r in routers_of(fitted) for p in r.parameters())} numbers in the routers\n")
    with torch.no_grad():
        studio = Studio(fitted)
        bench = set_up(studio, options.cases, options.pairs)
        for strength in (STRENGTH, 1.0):
            print(row(bench, studio, Way("fitted", lambda: None, strength, START)), flush=True)
