"""What a change costs: of the file, the subject, the strength or the prompt; SD1.5 at its real width."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import torch

from ..moa_attention.checkpoint import save_adapter
from ..nodes.adapter_files import load_adapter_patcher
from ..nodes.patch import apply_adapter
from ..nodes.text import PROMPT
from .bases import ENCODER, Pair, filled
from .calls import Given, denoise, given, load
from .timing import seconds

SIDE = 128
"""Pixels: a change costs the same at every size, and shows best beside a short call."""
CHANGES = ("unchanged", "another file", "another subject", "another strength", "another prompt")


def set_up_costs(rounds: int) -> str:
    """Markdown: seconds of the first call after each change, the change included."""
    device = comfy.model_management.get_torch_device()
    pair = filled("sd15", device, torch.float32 if device.type == "cpu" else torch.float16)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "adapter.safetensors"
        save_adapter(pair.adapter.model, file, licence="none", provenance={})
        medians = {change: statistics.median(taken) for change, taken in after_changes(pair, file, rounds).items()}
    lines = [
        f"| first call at {SIDE}², SD1.5 {pair.where} {pair.precision} | seconds | against unchanged |",
        "|---" * 3 + "|",
    ]
    lines += [f"| {change} | {value:.3f} | {value / medians[CHANGES[0]]:.2f} |" for change, value in medians.items()]
    return "\n".join(lines)


def after_changes(pair: Pair, file: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each change and the call after it, in turn; a first round warms up and does not count."""
    taken: dict[str, list[float]] = {change: [] for change in CHANGES}
    model, step = apply_adapter(pair.model, pair.adapter, encoder=ENCODER), given(pair, SIDE, True, 1)
    for turn in range((rounds + 1) * len(CHANGES)):
        name, other = CHANGES[turn % len(CHANGES)], given(pair, SIDE, True, 1, seed=1 + turn)

        def run(name: str = name, other: Given = other, turn: int = turn) -> None:
            nonlocal model, step
            model, step = change(name, pair, file, model, step, other, turn)
            load(model)
            denoise(model, step)

        taken[name].append(seconds(run))
    return {name: every[1:] for name, every in taken.items()}


def change(name: str, pair: Pair, file: Path, model: Any, step: Given, other: Given, turn: int) -> tuple[Any, Given]:
    """What is called next, where one thing has become another's."""
    if name == "another file":
        return apply_adapter(pair.model, load_adapter_patcher(file), encoder=ENCODER), step
    if name == "another subject":
        return model, replace(step, carried=other.carried)
    if name == "another strength":
        return apply_adapter(pair.model, pair.adapter, encoder=ENCODER, prior_bias=turn / 100), step
    if name == "another prompt":
        carried = {**step.carried, PROMPT: other.carried[PROMPT]}
        return model, replace(step, contexts=other.contexts, uuids=other.uuids, carried=carried)
    return model, step
