"""MoALayerStrength: how loudly the personalised branch speaks in each attention layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from comfy_api.latest import io

from ..moa_attention.config import LayerSpec
from .load import CATEGORY
from .sockets import LayerStrengthSocket


@dataclass(frozen=True)
class LayerStrength:
    """Factors of the strength."""

    parts: Mapping[str, float]
    """By stage (`input`, `middle`, `output`) and by kind (`attn1`, `attn2`): a layer has the product of its two."""
    single: Mapping[str, float]
    """By the beginning of a layer's name, `output_3` or `output_3_0_attn2`: in the place of the product, the longest wins."""

    def of(self, spec: LayerSpec) -> float:
        fitting = [name for name in self.single if f"{spec.name}_".startswith(f"{name}_")]
        if fitting:
            return self.single[max(fitting, key=len)]
        stage, *_, kind = spec.name.split("_")
        return self.parts[stage] * self.parts[kind]

    def by_layer(self, layers: Iterable[LayerSpec]) -> dict[str, float]:
        """Those that differ from 1.

        Raises: ValueError when a single name fits no layer.
        """
        layers = list(layers)
        unknown = [name for name in self.single if not any(f"{s.name}_".startswith(f"{name}_") for s in layers)]
        if unknown:
            raise ValueError(
                f"No attention layer of this adapter is called {', '.join(unknown)}. There are: "
                f"{', '.join(spec.name for spec in layers)}; a beginning of a name means all that begin so."
            )
        return {spec.name: strength for spec in layers if (strength := self.of(spec)) != 1}


def read_single(text: str) -> dict[str, float]:
    """'output_3: 0.5, middle_0: 0' -> {'output_3': 0.5, 'middle_0': 0.0}

    Raises: ValueError naming what cannot be read.
    """
    found = {}
    for part in text.replace("\n", ",").split(","):
        name, colon, value = part.partition(":")
        if not part.strip():
            continue
        try:
            strength = float(value)
        except ValueError:
            strength = -1.0
        if not colon or strength < 0:
            raise ValueError(f"'{part.strip()}' is not a layer and its strength, like 'output_3: 0.5'.")
        found[name.strip()] = strength
    return found


def part(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=1.0, min=0.0, max=5.0, step=0.05, tooltip=tooltip)


class MoALayerStrength(io.ComfyNode):
    """Factors by stage, kind and name -> MOA_LAYER_STRENGTH."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALayerStrength",
            display_name="Layer Strength (MoA)",
            category=CATEGORY,
            description="How loudly subjects speak in each part of the U-Net, as factors of ApplyMoA's strength.",
            search_aliases=["moa layers", "layer weights", "block weight", "mad scientist", "style transfer"],
            inputs=[
                part("input", "The blocks on the way down: composition and shape."),
                part("middle", "The middle block."),
                part("output", "The blocks on the way up: where things are, then how they look."),
                part(
                    "self_attention",
                    "Layers that look at the picture. Imported IP-Adapters speak there only if FaceID.",
                ),
                part("cross_attention", "Layers that look at the prompt."),
                io.String.Input(
                    "single",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Single layers, or all whose name begins so, in the place of the factors above: "
                    "'output_3: 0.5, middle_0_0_attn2: 0'. The contact sheet of RouterVisualize shows their names.",
                ),
            ],
            outputs=[LayerStrengthSocket.Output(display_name="layer_strength", tooltip="For ApplyMoA.")],
        )

    @classmethod
    def execute(
        cls, input: float, middle: float, output: float, self_attention: float, cross_attention: float, single: str = ""
    ) -> io.NodeOutput:
        parts = {"input": input, "middle": middle, "output": output, "attn1": self_attention, "attn2": cross_attention}
        return io.NodeOutput(LayerStrength(parts, read_single(single)))
