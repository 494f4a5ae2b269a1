"""The knobs of IPAdapter_plus as inputs of the nodes here: tables of names and values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from .graph import Link

ROUTER = "IPAdapter_plus"
"""Of Apply MoA: places image prompts as that extension does."""
WORD = "subject"
"""The name of a subject that belongs to the whole prompt."""
WEIGHT_TYPES = {"standard": "linear", "prompt is more important": "ease out"}
"""Of the simple node. All others have the same name."""
COMBINE = {"average": "mean", "norm average": "norm mean"}
"""All others have the same name."""
BY_KIND = {
    **dict.fromkeys(("IPAdapterPreciseStyleTransfer", "IPAdapterPreciseStyleTransferBatch"), "style transfer precise"),
    **dict.fromkeys(("IPAdapterPreciseComposition", "IPAdapterPreciseCompositionBatch"), "composition precise"),
}
"""Weight types that a node has by itself."""
CURVES: dict[str, Callable[[float], float]] = {
    "custom": lambda x: x, "linear": lambda x: x, "ease_in_out": lambda x: (1 - math.cos(x * math.pi)) / 2,
    "ease_in": lambda x: math.sin(x * math.pi / 2), "ease_out": lambda x: 1 - math.cos(x * math.pi / 2),
}  # fmt: skip
"""From the first weight to the last, by `timing`."""
STRENGTHS = (-1.0, 5.0)
"""Of Subject Settings."""
BLOCKS = {
    "sd15": [
        "input_1",
        "input_2",
        "input_4",
        "input_5",
        "input_7",
        "input_8",
        "middle_0",
        *(f"output_{i}" for i in range(3, 12)),
    ],
    "sdxl": ["input_4", "input_5", "input_7", "input_8", "middle_0", *(f"output_{i}" for i in range(6))],
}
"""Blocks with attention in the order in which `layer_weights` counts them."""
SHAPE = {"sd15": (4, 5), "sdxl": (3,)}
"""Numbers of the blocks that decide the composition."""


class Differences(NamedTuple):
    """Inputs of a new node, and what is different."""

    inputs: dict[str, Any]
    notes: list[str]


def settings(given: dict[str, Any], kind: str, weight: Any) -> Differences:
    """The inputs of Subject Settings for an image prompt."""
    notes = []
    if not isinstance(weight, Link) and not STRENGTHS[0] <= weight <= STRENGTHS[1]:
        notes.append(f"weight {weight} becomes {min(max(weight, STRENGTHS[0]), STRENGTHS[1])}")
        weight = min(max(weight, STRENGTHS[0]), STRENGTHS[1])
    chosen = BY_KIND.get(kind) or given.get("weight_type", "linear")
    for boost in ("style_boost", "composition_boost"):
        if given.get(boost) == 0:  # without the blocks that make it precise
            chosen = chosen.removesuffix(" precise")
    if given.get("layer_weights") and "precise" not in str(chosen):
        chosen = "linear"
    inputs = {
        "strength": weight, "start_percent": given.get("start_at", 0.0), "end_percent": given.get("end_at", 1.0),
        "weight_type": WEIGHT_TYPES.get(chosen, chosen), "embeds_scaling": given.get("embeds_scaling", "V only"),
    }  # fmt: skip
    if given.get("enhance_tiles", 1) != 1:
        notes.append("enhance_tiles and enhance_ratio are not carried over")
    if given.get("sharpening"):
        notes.append(f"sharpening {given['sharpening']} is not carried over")
    return Differences(inputs, notes)


def boosted(given: dict[str, Any], weight: Any, base: str) -> Differences:
    """The inputs of Layer Strength for blocks with a boost in place of the weight; none where the weight decides.

    Args: base: sd15 or sdxl.
    """
    name = next((n for n in ("style_boost", "composition_boost") if given.get(n, weight) not in (weight, 0)), None)
    if name is None:
        return Differences({}, [])
    if isinstance(weight, Link) or isinstance(given[name], Link) or not weight or given[name] / weight < 0:
        return Differences({}, [f"{name} {given[name]} becomes the weight, {weight}"])
    factor = f"{given[name] / weight:.6g}"
    others = {} if name == "style_boost" else dict.fromkeys(("input", "middle", "output"), factor)
    factors = others | dict.fromkeys((BLOCKS[base][i] for i in SHAPE[base]), "1" if others else factor)
    return Differences({"single": ", ".join(f"{layer}: {value}" for layer, value in factors.items())}, [])


def weights_of_frames(given: dict[str, Any], reverse: bool) -> list[float] | None:
    """The weights of single frames by the inputs of IPAdapter Weights; None where they depend on pictures, links or chance."""
    curve, links = CURVES.get(given.get("timing", "custom")), [v for v in given.values() if isinstance(v, Link)]
    numbers = [float(part) for part in str(given.get("weights", "")).replace("\n", ",").split(",") if part.strip()] or [
        0.0
    ]
    if curve is None or links:
        return None
    if given.get("timing", "custom") != "custom":
        frames, start = max(given.get("frames", 0), 2), given.get("start_frame", 0)
        end = min(given.get("end_frame", 9999), frames)
        if end - start < 2:
            return None
        first, last = numbers[0], numbers[-1]
        between = [first + (last - first) * curve(i / (end - start - 1)) for i in range(end - start)]
        numbers = [first] * start + between + [last] * (frames - end)
    return numbers[::-1] if reverse else numbers


def encoding(given: dict[str, Any], kind: str) -> dict[str, Any]:
    """The inputs of Encode Subject for the pictures of a node."""
    several = "one per frame" if kind.endswith("Batch") else given.get("combine_embeds", "concat")
    fit = "tiles" if kind.startswith("IPAdapterTiled") else "crop centre"
    inputs = {"word": WORD, "fit": fit, "combine": COMBINE.get(several, several), "before_projection": True}
    return inputs | ({"faceid_weight": given["weight_faceidv2"]} if "weight_faceidv2" in given else {})


def layer_weights(text: str) -> dict[str, Any]:
    """'3:0.8, 6:1' as the inputs of Layer Strength: blocks that are not listed have no effect."""
    weights = {
        int(block): float(value)
        for block, _, value in (part.partition(":") for part in text.split(",") if part.strip())
    }
    blocks = BLOCKS["sd15" if max(weights, default=0) >= len(BLOCKS["sdxl"]) else "sdxl"]
    return {"single": ", ".join(f"{name}: {weights.get(i, 0.0)}" for i, name in enumerate(blocks))}
