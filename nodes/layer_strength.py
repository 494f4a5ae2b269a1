"""Layer Strength (MoA): the strength of the personalised branch in each part of the U-Net."""

from __future__ import annotations

from comfy_api.latest import io

from ..moa_attention.run.strength import LayerStrength, read_factors
from .sockets import CATEGORY, LayerStrengthSocket


def factor(name: str, tooltip: str) -> io.Float.Input:
    """A factor of the strength as an input."""
    return io.Float.Input(name, default=1.0, min=0.0, max=5.0, step=0.05, tooltip=tooltip)


class MoALayerStrength(io.ComfyNode):
    """Factors by stage, kind and name -> MOA_LAYER_STRENGTH."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALayerStrength",
            display_name="Layer Strength (MoA)",
            category=CATEGORY,
            description="Sets the strength of the subjects in each part of the U-Net. The values multiply the strength of Apply "
            "MoA. In a layer whose value is 0, the base model acts alone.",
            search_aliases=["moa layers", "layer weights", "block weight", "mad scientist", "style transfer"],
            inputs=[
                factor("input", "Layers in the U-Net's input blocks. They affect composition and shape."),
                factor("middle", "Layers in the middle block."),
                factor(
                    "output", "Layers in the output blocks. The first ones affect placement, the last ones appearance."
                ),
                factor(
                    "self_attention",
                    "Layers that attend to the picture itself. IP-Adapters act here only if they are FaceID files.",
                ),
                factor("cross_attention", "Layers that attend to the prompt."),
                io.String.Input(
                    "single",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Values for single layers, for example 'output_3: 0.5, middle_0_0_attn2: 0'. They replace the values "
                    "above. The beginning of a name stands for all layers that begin with it. The contact sheet of Visualize MoA "
                    "Router shows the names.",
                ),
            ],
            outputs=[LayerStrengthSocket.Output(display_name="layer_strength", tooltip="Connect it to Apply MoA.")],
        )

    @classmethod
    def execute(
        cls, input: float, middle: float, output: float, self_attention: float, cross_attention: float, single: str = ""
    ) -> io.NodeOutput:
        stages = {"input": input, "middle": middle, "output": output}
        return io.NodeOutput(LayerStrength(stages, self_attention, cross_attention, read_factors(single)))
