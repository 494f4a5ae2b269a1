"""Loading: an adapter from a file, and the small bundled base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..moa_attention.formats.errors import printable
from ..moa_attention.formats.ip_adapter.presets import PRESETS
from ..moa_attention.formats.plan import Header
from .host.files.adapters import named_adapter
from .host.files.clip_files import FOLDER as VISION_FOLDER
from .host.files.folders import (
    IPADAPTER_FOLDER,
    IPADAPTER_PREFIX,
    ROUTERS,
    WEIGHTS,
    adapter_names,
    adapter_path,
    file_version,
    folder_versions,
    router_path,
)
from .host.files.listing import file_names
from .host.files.mini_files import load_mini
from .host.files.preset_files import find_files
from .host.files.shared_files import load_vision, shared
from .host.node_text import NodeText
from .sockets import CATEGORY, AdapterSocket, LoadedAdapter

LONGEST = 1000
"""Characters of an entry that are shown."""
OWN = "own"
"""In the drop-down of routers: those in the adapter's file."""


def describe(header: Header) -> str:
    """A file's header as text for users: one line for each entry. The entries of the file's own record are indented."""
    config = header.config
    tail = config.encoder_tail
    kind = f"rank {config.rank}" if config.rank else "whole matrices"
    kind = "image tokens" if "imported" in header.provenance else kind
    lines = [
        f"for {printable(config.base)}, {len(config.layers)} attention layers, {kind}",
        f"encodes pictures with {printable(config.image_encoder)}"
        + (f", whose last {tail} blocks are in the file" if tail else ""),
        f"licence: {printable(header.licence)}",
    ]
    record = sorted(header.provenance.items(), key=lambda entry: isinstance(entry[1], dict))
    return "\n".join([*lines, *(f"  {printable(name, 60)}: {in_words(value)}" for name, value in record)])


def in_words(value: object) -> str:
    """An entry of the record on one line."""
    if isinstance(value, dict):
        value = ", ".join(f"{name} {entry}" for name, entry in value.items())
    return printable(value, LONGEST)


class LoadMoAAdapter(io.ComfyNode):
    """A file of `models/moa` -> MOA_ADAPTER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadMoAAdapter",
            display_name="Load MoA Adapter",
            category=CATEGORY,
            description="Loads a MoA adapter, or an IP-Adapter. An adapter brings subjects from reference pictures into the pictures of "
            "one family of base models.",
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
                    tooltip="A file in models/moa. Entries under 'ipadapter' are IP-Adapters in models/ipadapter; entries under "
                    "'bundled' come with this extension. The folders moa and ipadapter of extra_model_paths.yaml are listed, too.",
                ),
                io.Combo.Input(
                    "router_file",
                    options=[OWN, *file_names(ROUTERS)],
                    default=OWN,
                    optional=True,
                    advanced=True,
                    tooltip="A file in models/moa/routers that was fitted to this adapter. 'own' uses the routers in the adapter's file, if any.",
                ),
            ],
            outputs=[
                AdapterSocket.Output(display_name="adapter", tooltip="For Encode Subject (MoA) and Apply MoA."),
                io.String.Output(
                    display_name="about", tooltip="The contents of the file's header: base, data, licence, settings."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter_file: str, router_file: str = OWN) -> str:
        files = [adapter_path(adapter_file), *([] if router_file == OWN else [router_path(router_file)])]
        return " ".join(map(file_version, files))

    @classmethod
    def execute(cls, adapter_file: str, router_file: str = OWN) -> io.NodeOutput:
        made = loaded(adapter_file, None if router_file == OWN else router_file)
        return io.NodeOutput(made, describe(header_of(made)))


class MoALoadIPAdapter(io.ComfyNode):
    """A preset and a MODEL -> MOA_ADAPTER and CLIP_VISION, from files found by their contents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALoadIPAdapter",
            display_name="Load IP-Adapter (MoA)",
            category=CATEGORY,
            description="Finds and loads the IP-Adapter for a preset, and the CLIP vision model that it reads. Files are recognised by "
            "their tensors; names count only where several kinds have the same tensors.",
            search_aliases=[
                "ipadapter unified loader",
                "ip adapter",
                "ip-adapter preset",
                "clip vision",
                "faceid",
                "instantid",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The checkpoint's model. It decides between files for SD1.5 and for SDXL."
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="PLUS (high strength)",
                    tooltip="The kind of IP-Adapter, as in the unified loaders of IPAdapter_plus. FACEID presets also need a face "
                    "embedding from Face Embedding (MoA).",
                ),
            ],
            outputs=[
                AdapterSocket.Output(display_name="adapter", tooltip="For Encode Subject (MoA) and Apply MoA."),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="For Encode Subject (MoA). Presets that read only face embeddings have none.",
                ),
                io.String.Output(
                    display_name="about",
                    tooltip="What was looked for, the files that were found, and what else is needed.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model: Any, preset: str) -> str:
        return folder_versions(IPADAPTER_FOLDER, VISION_FOLDER)

    @classmethod
    def execute(cls, model: Any, preset: str) -> io.NodeOutput:
        found = find_files(model, preset)
        NodeText().show(found.about)
        adapter = loaded(IPADAPTER_PREFIX + found.adapter)
        vision = None
        if found.vision:
            path = folder_paths.get_full_path_or_raise(VISION_FOLDER, found.vision)
            vision = shared(load_vision, path, files=[Path(path)])
        return io.NodeOutput(adapter, vision, f"{found.about}\n{describe(header_of(adapter))}")


def loaded(name: str, router: str | None = None) -> LoadedAdapter:
    """The adapter behind a drop-down entry, shared with other nodes that load it."""
    files = [adapter_path(name), *([router_path(router)] if router else [])]
    return shared(named_adapter, name, router, files=files)


def header_of(adapter: LoadedAdapter) -> Header:
    """What its file states about itself."""
    return Header(adapter.patcher.model.config, adapter.licence, dict(adapter.provenance))


class MoALoadMini(io.ComfyNode):
    """The bundled small text-to-image model -> MODEL, CLIP, VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALoadMini",
            display_name="Load MoA Mini",
            category=CATEGORY,
            description="Loads MoA Mini, a tiny text-to-image model of cartoon people that comes with this extension. With it you can "
            "try MoA in seconds, without a download and without a GPU. Pictures are 128 × 128 pixels. The help page lists the "
            "words that the model knows.",
            search_aliases=["moa mini", "demo model", "checkpoint loader", "small model"],
            inputs=[io.Combo.Input("model", options=["mini"], tooltip="The bundled model to load.")],
            outputs=[
                io.Model.Output(tooltip="The U-Net, for Apply MoA or KSampler."),
                io.Clip.Output(tooltip="The text encoder, for MoA Text Encode (Prompt) and CLIP Text Encode (Prompt)."),
                io.Vae.Output(tooltip="The VAE, for VAE Decode."),
            ],
        )

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        return io.NodeOutput(*load_mini(WEIGHTS / model))
