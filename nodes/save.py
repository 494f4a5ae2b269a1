"""MoASaveAdapter: a trained adapter -> a file of models/moa."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..moa_attention.adapter import MoAAdapter
from ..moa_attention.checkpoint import save_adapter
from .folders import FOLDER, new_file
from .load import CATEGORY
from .sockets import Adapter, AdapterSocket

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class MoASaveAdapter(io.ComfyNode):
    """MOA_ADAPTER -> `models/moa/<prefix>_00001_.safetensors`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASaveAdapter",
            display_name="Save MoA Adapter",
            category=CATEGORY,
            description="Writes an adapter into models/moa, with what it was trained on. Never writes over a file.",
            search_aliases=["moa save", "export adapter", "save trained adapter"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                AdapterSocket.Input("adapter", tooltip="From MoATrain."),
                io.String.Input(
                    "filename_prefix", default="my_adapter", tooltip="A name, or folder/name, inside models/moa."
                ),
                io.Combo.Input("precision", options=list(PRECISIONS), tooltip="On disk; fp16 is enough to use it."),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file is.")],
        )

    @classmethod
    def execute(cls, adapter: Adapter, filename_prefix: str, precision: str) -> io.NodeOutput:
        module = adapter.patcher.model
        if not isinstance(module, MoAAdapter):
            raise ValueError(
                f"'{adapter.name}' was imported; there is nothing to save that its own file does not hold. MoASaveAdapter is for "
                "what MoATrain makes."
            )
        path = new_file(FOLDER, filename_prefix)
        save_adapter(module, path, licence=adapter.licence, provenance=adapter.provenance, dtype=PRECISIONS[precision])
        return io.NodeOutput(str(path))
