"""What MoA costs: sampling with and without it, side by side on the same model, as ratios.

Two models: MoA Mini as it ships, and the SD1.5 U-Net at its real width with random weights (speed does not depend on what
weights say). A step is one guided call: a positive and a negative row in one batch.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import comfy.model_management
import comfy.ops
import comfy.utils
import torch
from torch import Tensor

from ..nodes.adapter_files import load_adapter_patcher
from ..nodes.call import PRIOR_ONLY
from ..nodes.layers import fresh_adapter
from ..nodes.mini import load_mini
from ..nodes.patch import apply_adapter, host_patcher
from ..recipes.mini.faces import ROOT, WEIGHTS

sys.path.append(str(ROOT / "tests" / "comfy"))

STEPS = 4


def subjects(count: int, length: int, width: int, encoder: str) -> dict:
    """The extra of a CONDITIONING with `count` random subjects."""
    import comfy.conds

    from ..nodes.text import ENCODER, FEATURES, SLOTS

    slots = torch.zeros(1, length, 1)
    slots[0, 2 : 2 + count, 0] = torch.arange(1, count + 1)
    features = comfy.conds.CONDRegular(torch.randn(1, count, width))
    return {ENCODER: encoder, "model_conds": {SLOTS: comfy.conds.CONDCrossAttn(slots), FEATURES: features}}


def measure(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each variant, taken in turn so that a busy machine is busy for all of them."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def compare(title: str, model, adapter, latent: tuple[int, ...], rounds: int) -> None:
    """Print one table."""
    from host import conditioning, sample

    config = adapter.model.config
    positive, negative = conditioning(config.text_width), conditioning(config.text_width, seed=1)

    def variant(patched, count: int) -> Callable[[], Tensor]:
        extra = subjects(count, 77, config.image_width, "bench") if count else {}
        ours = [[positive[0][0], extra]]
        return lambda: sample(patched, ours, negative, {"samples": torch.zeros(latent)}, steps=STEPS)

    moa = apply_adapter(model, adapter, encoder="bench")
    off = apply_adapter(model, adapter, encoder="bench", prior_bias=PRIOR_ONLY)
    seconds = measure(
        {
            "stock": variant(model, 0),
            "MoA, no subject": variant(moa, 0),
            "MoA, one subject": variant(moa, 1),
            "MoA, two subjects": variant(moa, 2),
            "MoA, strength 0": variant(off, 1),
        },
        rounds,
    )
    share = sum(p.numel() for p in adapter.model.parameters()) / sum(p.numel() for p in model.model.parameters())
    print(f"\n{title}: latent {latent[-2]} × {latent[-1]}, adapter {100 * share:.0f} % of the model's parameters\n")
    print("| | seconds a step | against stock |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value / STEPS:.3f} | {value / seconds['stock']:.2f} |")


def main(argv: list[str]) -> None:
    """Both tables."""
    from host import sd15

    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=32, help="latent side for the SD1.5 layout; 64 is 512 px")
    options = parser.parse_args(argv)
    comfy.utils.PROGRESS_BAR_ENABLED = False
    device = comfy.model_management.get_torch_device()
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}")
    mini, _, _ = load_mini(WEIGHTS)
    compare("MoA Mini", mini, load_adapter_patcher(WEIGHTS / "adapter.safetensors"), (1, 32, 16, 16), options.rounds)
    real = sd15(channels=320, context=768)
    side = options.size
    adapter = fresh_adapter(real, "clip-vit-large-patch14", 768, operations=comfy.ops.manual_cast)
    patcher = host_patcher(adapter.requires_grad_(False))
    compare("SD1.5 layout, random weights", real, patcher, (1, 4, side, side), options.rounds)
