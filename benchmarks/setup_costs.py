"""The cost of a change of file, subject, strength or prompt; SD1.5 at its real width."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import torch
from tabulate import tabulate

from ..moa_attention.formats.adapter import save_adapter
from ..nodes.host.files.adapters import load_adapter_patcher
from ..nodes.host.model.patch import apply_adapter
from ..nodes.host.prompts.payload_names import FIRST
from .bases import ENCODER, Pair, random_pair
from .calls import StepInputs, denoise, load_patched, random_inputs
from .timing import seconds

SIDE = 128
"""Pixels: a change costs the same at every size, and is most visible beside a short call."""
CHANGES = ("unchanged", "another file", "another subject", "another strength", "another prompt")


def setup_table(rounds: int) -> str:
    """Markdown: seconds of the first call after each change, the change included."""
    device = comfy.model_management.get_torch_device()
    pair = random_pair("sd15", device, torch.float32 if device.type == "cpu" else torch.float16)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "adapter.safetensors"
        save_adapter(pair.adapter.model, file, licence="none", provenance={})
        medians = {change: statistics.median(taken) for change, taken in after_changes(pair, file, rounds).items()}
    first = f"first call at {SIDE}², SD1.5 {pair.device_name} {pair.precision}"
    rows = [(change, f"{value:.3f}", f"{value / medians[CHANGES[0]]:.2f}") for change, value in medians.items()]
    return tabulate(rows, (first, "seconds", "against unchanged"), tablefmt="github", disable_numparse=True)


def after_changes(pair: Pair, file: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each change and the call after it, in turn, without a first round as warm-up."""
    taken: dict[str, list[float]] = {change: [] for change in CHANGES}
    model, step = apply_adapter(pair.model, pair.adapter, encoder=ENCODER), random_inputs(pair, SIDE, True, 1)
    for turn in range((rounds + 1) * len(CHANGES)):
        name, other = CHANGES[turn % len(CHANGES)], random_inputs(pair, SIDE, True, 1, seed=1 + turn)

        def run(name: str = name, other: StepInputs = other, turn: int = turn) -> None:
            nonlocal model, step
            model, step = changed(name, pair, file, model, step, other, turn)
            load_patched(model)
            denoise(model, step)

        taken[name].append(seconds(run))
    return {name: every[1:] for name, every in taken.items()}


def changed(
    name: str, pair: Pair, file: Path, model: Any, step: StepInputs, other: StepInputs, turn: int
) -> tuple[Any, StepInputs]:
    """The next model and inputs, with one thing replaced."""
    if name == "another file":
        return apply_adapter(pair.model, load_adapter_patcher(file), encoder=ENCODER), step
    if name == "another subject":
        return model, replace(step, payload=other.payload)
    if name == "another strength":
        return apply_adapter(pair.model, pair.adapter, encoder=ENCODER, prior_bias=turn / 100), step
    if name == "another prompt":
        payload = {**step.payload, FIRST.prompt: other.payload[FIRST.prompt]}
        return model, replace(step, contexts=other.contexts, uuids=other.uuids, payload=payload)
    return model, step
