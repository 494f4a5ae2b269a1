"""Workflows with nodes of IPAdapter_plus, written for the tests, in both formats of files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from devtools.migration.theirs import APPLY, WIDGETS

OUTPUTS = {
    "CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"), "TinyCheckpoint": ("MODEL", "CLIP"), "CLIPTextEncode": ("CONDITIONING",),
    "KSampler": ("LATENT",), "LoadImage": ("IMAGE", "MASK"), "CLIPVisionLoader": ("CLIP_VISION",), "EmptyLatentImage": ("LATENT",),
    "LoraLoaderModelOnly": ("MODEL",), "ImageBatch": ("IMAGE",), "PreviewImage": (), "SolidMask": ("MASK",), "SaveLatent": (), "ConditioningCombine": ("CONDITIONING",),
    "IPAdapterModelLoader": ("IPADAPTER",), "IPAdapterEncoder": ("EMBEDS", "EMBEDS"), "IPAdapterCombineEmbeds": ("EMBEDS",),
    "IPAdapterLoadEmbeds": ("EMBEDS",), "IPAdapterSaveEmbeds": (), "IPAdapterCombineParams": ("IPADAPTER_PARAMS",),
    "IPAdapterRegionalConditioning": ("IPADAPTER_PARAMS", "CONDITIONING", "CONDITIONING"), "PrepImageForClipVision": ("IMAGE",),
    "IPAdapterFaceID": ("MODEL", "IMAGE"), "IPAdapterFaceIDKolors": ("MODEL", "IMAGE"),
    **dict.fromkeys(("IPAdapterUnifiedLoader", "IPAdapterUnifiedLoaderFaceID"), ("MODEL", "IPADAPTER")),
    "IPAdapterNoise": ("IMAGE",), "IPAdapterWeights": ("FLOAT", "FLOAT", "INT", "IMAGE", "IMAGE"), **{kind: ("MODEL",) for kind in APPLY if kind != "IPAdapterFaceID"},
    **dict.fromkeys(("IPAdapterTiled", "IPAdapterTiledBatch"), ("MODEL", "IMAGE", "MASK")),
}  # fmt: skip
"""Types of outputs by the kind of node."""
CORE_WIDGETS = {
    "CLIPTextEncode": ("text",), "LoadImage": ("image",), "CheckpointLoaderSimple": ("ckpt_name",), "CLIPVisionLoader": ("clip_name",),
    "EmptyLatentImage": ("width", "height", "batch_size"), "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "KSampler": ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"), "SaveLatent": ("filename_prefix",), "SolidMask": ("value", "width", "height"),
}  # fmt: skip

ADVANCED = {
    "weight": 0.7, "weight_type": "linear", "combine_embeds": "concat", "start_at": 0.1, "end_at": 0.9, "embeds_scaling": "V only",
}  # fmt: skip
"""Settings of an IPAdapter Advanced."""


class Out(NamedTuple):
    """An output of a node."""

    node: int
    slot: int = 0


@dataclass
class OldWorkflow:
    """Nodes in order; their numbers begin with 1."""

    nodes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def add(self, kind: str, **inputs: Any) -> Out:
        """A node with links and values."""
        self.nodes.append((kind, inputs))
        return Out(len(self.nodes))

    def api(self) -> dict[str, Any]:
        """In the format of the API."""
        return {
            str(i): {
                "class_type": kind,
                "inputs": {n: [str(v.node), v.slot] if isinstance(v, Out) else v for n, v in inputs.items()},
            }
            for i, (kind, inputs) in enumerate(self.nodes, start=1)
        }

    def page(self) -> dict[str, Any]:
        """In the format of the page."""
        links: list[list[Any]] = []
        nodes = [self.page_node(i, kind, inputs, links) for i, (kind, inputs) in enumerate(self.nodes, start=1)]
        for number, source, slot, *_ in links:
            nodes[source - 1]["outputs"][slot]["links"].append(number)
        return {
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": [],
            "version": 0.4,
        }

    def page_node(self, number: int, kind: str, inputs: dict[str, Any], links: list[list[Any]]) -> dict[str, Any]:
        """One node; adds its links."""
        entries = []
        for name, value in inputs.items():
            if isinstance(value, Out):
                of = OUTPUTS[self.nodes[value.node - 1][0]][value.slot]
                links.append([len(links) + 1, value.node, value.slot, number, len(entries), of])
                entries.append({"name": name, "type": of, "link": len(links)})
        values = [inputs[name] for name in (*WIDGETS.get(kind, ()), *CORE_WIDGETS.get(kind, ())) if name in inputs]
        if kind == "KSampler":
            values.insert(1, "fixed")
        outputs = [{"name": of, "type": of, "links": []} for of in OUTPUTS[kind]]
        return {"id": number, "type": kind, "pos": [number * 300, 100], "size": [270, 100], "flags": {}, "order": number, "mode": 0,
                "inputs": entries, "outputs": outputs, "properties": {}, "widgets_values": values}  # fmt: skip


@dataclass
class Studio(OldWorkflow):
    """A workflow that begins with a checkpoint, its prompts and a latent."""

    checkpoint: str = "CheckpointLoaderSimple"
    preset: str = "STANDARD (medium strength)"

    def __post_init__(self) -> None:
        named = {"ckpt_name": "sd15.safetensors"} if self.checkpoint == "CheckpointLoaderSimple" else {}
        self.model = self.add(self.checkpoint, **named)
        clip = Out(self.model.node, 1)
        self.positive, self.negative = (
            self.add("CLIPTextEncode", clip=clip, text=text) for text in ("a man on a beach", "blurry")
        )
        self.latent = self.add("EmptyLatentImage", width=64, height=64, batch_size=1)

    def unified(self, **inputs: Any) -> Out:
        """The second output of a unified loader."""
        return Out(self.add("IPAdapterUnifiedLoader", model=self.model, preset=self.preset, **inputs).node, 1)

    def picture(self, name: str = "anna.png") -> Out:
        return self.add("LoadImage", image=name)

    def prepared(self, name: str = "anna.png", position: str = "center") -> Out:
        """A picture that is cut to a square."""
        given = {"interpolation": "LANCZOS", "crop_position": position, "sharpening": 0.0}
        return self.add("PrepImageForClipVision", image=self.picture(name), **given)

    def advanced(self, model: Out, ipadapter: Out, image: Out, **changed: Any) -> Out:
        return self.add("IPAdapterAdvanced", model=model, ipadapter=ipadapter, image=image, **{**ADVANCED, **changed})

    def sample(self, model: Out, positive: Out | None = None, negative: Out | None = None) -> Out:
        """A sampler, and what shows its result."""
        found = self.add("KSampler", model=model, positive=positive or self.positive, negative=negative or self.negative,
                         latent_image=self.latent, seed=3, steps=4, cfg=4.0, sampler_name="euler", scheduler="normal", denoise=1.0)  # fmt: skip
        self.add("SaveLatent", samples=found, filename_prefix="migrated")
        return found


def tree(prompt: dict[str, Any], node: str, slot: int = 0) -> Any:
    """A node of a prompt with everything behind it, whatever the ids."""
    found = prompt[node]
    inputs = {n: tree(prompt, v[0], v[1]) if isinstance(v, list) else v for n, v in found["inputs"].items()}
    return found["class_type"], slot, inputs
