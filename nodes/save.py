"""Save MoA Adapter: a trained adapter -> a file in models/moa, or its routers -> a file in models/moa/routers."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..moa_attention.adapters.moa import MoAAdapter
from ..moa_attention.formats.adapter import save_adapter
from ..moa_attention.formats.routers import save_routers
from .host.files.folders import FOLDER, ROUTERS, new_file
from .sockets import CATEGORY, AdapterSocket, LoadedAdapter

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


class MoASaveAdapter(io.ComfyNode):
    """MOA_ADAPTER -> `models/moa/<prefix>_00001_.safetensors`, or the same in `models/moa/routers`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoASaveAdapter",
            display_name="Save MoA Adapter",
            category=CATEGORY,
            description="Saves an adapter in models/moa, with a record of its training. If only its routers were trained, the routers are "
            "saved in models/moa/routers. Existing files are never overwritten.",
            search_aliases=["moa save", "export adapter", "save trained adapter"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                AdapterSocket.Input("adapter", tooltip="From Train MoA Adapter."),
                io.String.Input(
                    "filename_prefix", default="my_adapter", tooltip="A name, or folder/name, inside models/moa."
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    tooltip="Precision of the weights in the file. fp16 is enough to use the adapter. Choose fp32 to continue its training. "
                    "Routers alone are always saved in fp32.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The path of the file.")],
        )

    @classmethod
    def execute(cls, adapter: LoadedAdapter, filename_prefix: str, precision: str) -> io.NodeOutput:
        module, record = adapter.patcher.model, {"licence": adapter.licence, "provenance": adapter.provenance}
        if adapter.expert:
            path = new_file(ROUTERS, filename_prefix)
            save_routers(module, path, expert=adapter.expert, **record)
            return io.NodeOutput(str(path))
        if not isinstance(module, MoAAdapter):
            raise ValueError(
                f"'Save MoA Adapter' cannot save '{adapter.name}': it comes from a file of another format, which already "
                "contains all of it. Connect the adapter of 'Train MoA Adapter'."
            )
        path = new_file(FOLDER, filename_prefix)
        save_adapter(module, path, dtype=PRECISIONS[precision], subjects=adapter.encoder, **record)
        return io.NodeOutput(str(path))
