"""Loading: an adapter from a file, and the small bundled base model."""

from __future__ import annotations

import hashlib

import folder_paths
from comfy_api.latest import io

from ..moa_attention.adapter import MoAAdapter
from ..moa_attention.checkpoint import Header
from ..moa_attention.image_prompt import ImagePromptAdapter
from .adapter_files import open_adapter
from .folders import ROUTERS, WEIGHTS, adapter_names, adapter_path, router_path, stamp
from .mini import load_mini
from .sockets import Adapter, AdapterSocket

CATEGORY = "MoA"
OWN = "own"
"""In the drop-down of routers: none but those in the adapter's file."""


def encoder_identity(adapter: MoAAdapter | ImagePromptAdapter) -> str:
    """The CLIP vision model's name, and a fingerprint of what the file does with pictures: features of two do not mix."""
    name = adapter.config.image_encoder
    own = adapter.projection if isinstance(adapter, ImagePromptAdapter) else adapter.tail or adapter.encoder
    if own is None:
        return name
    digest = hashlib.sha256()
    for tensor in own.state_dict().values():
        digest.update(tensor.float().cpu().numpy().tobytes())
    return f"{name}:{digest.hexdigest()[:12]}"


def describe(header: Header) -> str:
    """What a file says of itself, for people: one line for each thing, nested ones in full."""
    config = header.config
    tail = config.encoder_tail
    kind = f"rank {config.rank}" if config.rank else "whole matrices"
    kind = "image tokens" if "imported" in header.provenance else kind
    lines = [
        f"for {config.base}, {len(config.layers)} attention layers, {kind}",
        f"sees through {config.image_encoder}" + (f", whose last {tail} blocks it brings" if tail else ""),
        f"licence: {header.licence}",
    ]
    lines += [f"{name}: {value}" for name, value in header.provenance.items() if not isinstance(value, dict)]
    lines += [
        f"{name}: {', '.join(f'{k} {v}' for k, v in value.items())}"
        for name, value in header.provenance.items()
        if isinstance(value, dict)
    ]
    return "\n".join(lines)


class LoadMoAAdapter(io.ComfyNode):
    """A file of `models/moa` -> MOA_ADAPTER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadMoAAdapter",
            display_name="Load MoA Adapter",
            category=CATEGORY,
            description="Loads a MoA adapter, or an IP-Adapter as one. It brings subjects from pictures into images of one family of base models.",
            search_aliases=[
                "moa",
                "mixture of attention",
                "ip adapter",
                "face id",
                "personalization",
                "subject loader",
            ],
            inputs=[
                io.Combo.Input(
                    "adapter_file",
                    options=adapter_names(),
                    tooltip="A file in models/moa, or under 'ipadapter' an IP-Adapter in models/ipadapter (also folders of "
                    "these names in extra_model_paths.yaml). Entries under 'bundled' come with this extension.",
                ),
                io.Combo.Input(
                    "router_file",
                    options=[OWN, *folder_paths.get_filename_list(ROUTERS)],
                    default=OWN,
                    optional=True,
                    advanced=True,
                    tooltip="Routers that were fitted to this adapter, in models/moa/routers; 'own' takes those in its file, if any.",
                ),
            ],
            outputs=[
                AdapterSocket.Output(display_name="adapter", tooltip="For SubjectEncode and ApplyMoA."),
                io.String.Output(
                    display_name="about", tooltip="What the file says of itself: base, data, licence, settings."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter_file: str, router_file: str = OWN) -> str:
        files = [adapter_path(adapter_file), *([] if router_file == OWN else [router_path(router_file)])]
        return " ".join(map(stamp, files))

    @classmethod
    def execute(cls, adapter_file: str, router_file: str = OWN) -> io.NodeOutput:
        routers = None if router_file == OWN else router_path(router_file)
        patcher, header = open_adapter(adapter_path(adapter_file), routers)
        made = Adapter(patcher, adapter_file, encoder_identity(patcher.model), header.licence, header.provenance)
        return io.NodeOutput(made, describe(header))


class MoALoadMini(io.ComfyNode):
    """The bundled small text-to-image model -> MODEL, CLIP, VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALoadMini",
            display_name="Load MoA Mini",
            category=CATEGORY,
            description="Loads MoA Mini, a tiny text-to-image model of cartoon people that comes with this extension: try "
            "MoA in seconds, without downloads and without a GPU. Pictures are 128 × 128; see its help page for words it knows.",
            search_aliases=["moa mini", "demo model", "checkpoint loader", "small model"],
            inputs=[io.Combo.Input("model", options=["mini"], tooltip="Which bundled model to load.")],
            outputs=[
                io.Model.Output(tooltip="The U-Net, for ApplyMoA or KSampler."),
                io.Clip.Output(tooltip="The text encoder, for MoATextEncode and CLIPTextEncode."),
                io.Vae.Output(tooltip="The VAE, for VAE Decode."),
            ],
        )

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        return io.NodeOutput(*load_mini(WEIGHTS / model))
